"""The picture half of the processor, made once so that every checkpoint of ours is alike; and its
work for the detector: bytes go to the device, and become numbers there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PaliGemmaProcessor

from ifailsense_ros.core.errors import CheckpointError
from ifailsense_ros.model.quiet import quiet_transformers

with quiet_transformers():  # it would say that it does without torchvision, as it is meant to
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


def picture_bytes(processor: PaliGemmaProcessor, pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """Montages at the processor's size, as they go to the device: a quarter of the floats' bytes.

    Args:
        pictures: uint8 RGB (H, W, 3) each. Those of the processor's size are taken as they are,
            others are squashed to it as the processor does.

    Returns:
        uint8 (B, height, width, 3).
    """
    size = processor.image_processor.size
    if all(p.shape[:2] == (size["height"], size["width"]) for p in pictures):
        return torch.from_numpy(np.stack(pictures))
    batch = processor.image_processor(
        images=list(pictures),
        return_tensors="pt",
        input_data_format="channels_last",
        do_rescale=False,
        do_normalize=False,
    )
    return batch["pixel_values"].permute(0, 2, 3, 1)


class Normaliser:
    """The numbers that the processor makes of bytes, made on the device that they are on.

    Args:
        processor: whose scale, mean and deviation are used.
        device: where.

    Raises:
        CheckpointError: the processor does something else with the bytes.
    """

    def __init__(self, processor: PaliGemmaProcessor, device: torch.device) -> None:
        settings = processor.image_processor
        if not (settings.do_rescale and settings.do_normalize):
            raise CheckpointError(
                "the base's image processor does not rescale and normalise; correct its settings"
            )
        mean = torch.tensor(settings.image_mean, dtype=torch.float32, device=device)
        std = torch.tensor(settings.image_std, dtype=torch.float32, device=device)
        self._scale = settings.rescale_factor
        self._mean, self._std = mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """float32 (B, 3, height, width) of uint8 (B, height, width, 3)."""
        floats = pictures.permute(0, 3, 1, 2).float()
        return (floats * self._scale - self._mean) / self._std
