"""The picture half of the processor, made once so that every checkpoint of ours is alike."""

from __future__ import annotations

from transformers import SiglipImageProcessor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BICUBIC = 3


def make_image_processor(picture: tuple[int, int], num_image_tokens: int) -> SiglipImageProcessor:
    """Image processor for pictures of (height, width) pixels, normalised as DINOv2 expects.

    `image_seq_length` is what PaliGemmaProcessor reads to write the image tokens.
    """
    height, width = picture
    return SiglipImageProcessor(
        size={"height": height, "width": width},
        resample=BICUBIC,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
        image_seq_length=num_image_tokens,
    )
