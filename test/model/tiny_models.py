"""Tiny random models of the real architecture, with both kinds of vision tower."""

from __future__ import annotations

import uuid
from dataclasses import replace

import numpy as np
import torch
from transformers import (
    Dinov2Config,
    Gemma2Config,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    SiglipVisionConfig,
)

from ifailsense_ros.core.checkpoint import (
    AnswerWords,
    CheckpointConfig,
    FSHeadSettings,
    MontageSettings,
    VoteWeights,
)
from ifailsense_ros.core.detection import bare_config
from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.model.fs_block import FSBlocks
from ifailsense_ros.model.tiny import build_processor, initialise_small

TEXTS = [
    "evaluate en",
    "lift the red block",
    "rotate the blue block to the left",
    "open the drawer",
]
TEMPLATE = "<image> evaluate en {instruction}"
PICTURE = (28, 56)
LAYERS = 3
WIDTH = 32


def build_model(
    tower: str,
    picture: tuple[int, int] = PICTURE,
    softcap: float | None = None,
    layers: int = LAYERS,
):
    """Random PaliGemma with a "dinov2" (CLS token, any aspect) or "siglip" (square) tower."""
    height, width = picture
    patches = (height // 14) * (width // 14)
    if tower == "dinov2":
        vision = Dinov2Config(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=56,
            patch_size=14,
            use_mask_token=False,
        )
        tokens = patches + 1
    else:
        vision = SiglipVisionConfig(
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=height,
            patch_size=14,
            vision_use_head=False,
        )
        tokens = patches
    processor = build_processor(TEXTS, picture, tokens)
    text = Gemma2Config(
        vocab_size=len(processor.tokenizer),
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=256,
        attn_logit_softcapping=softcap,
    )
    config = PaliGemmaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=processor.image_token_id,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
        vocab_size=text.vocab_size,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = PaliGemmaForConditionalGeneration(config)
        initialise_small(model)
    return model.eval(), processor


def pictures_for(processor, count: int) -> list[np.ndarray]:
    """Random uint8 RGB pictures of the processor's size, the same on every call."""
    size = processor.image_processor.size
    shape = (count, size["height"], size["width"], 3)
    return list(np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8))


def base_config(**changes) -> CheckpointConfig:
    """Settings that fit `build_model("dinov2")` with FS blocks on layers 0, 1 and 2."""
    config = bare_config(
        "tiny-test",
        MontageSettings(4, 2, 14, 14),
        prompt=TEMPLATE,
        words=AnswerWords(("success",), ("fail",)),
        schema_version=1,
        hooked_layers=(0, 1, 2),
        fs_head=FSHeadSettings((16, 8), 2, 0.1),
        vote_weights=VoteWeights((1.0, 1.0, 1.0), 2.0),
        abstain_rule="two_of_three",
    )
    return replace(config, **changes)


def random_blocks(config: CheckpointConfig) -> FSBlocks:
    """FS blocks with random weights and running statistics, eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        blocks = FSBlocks(len(config.hooked_layers), WIDTH, config.fs_head)
        for name, buffer in blocks.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return blocks.eval()


def make_episode(instruction: str = "lift the red block", seed: int = 0, keyframes: int = 4):
    """Random keyframes of two PoV at cell size."""
    rng = np.random.default_rng(seed)
    frames = tuple(
        Keyframe(i * 10**9, tuple(rng.integers(0, 256, (2, 14, 14, 3), dtype=np.uint8)))
        for i in range(keyframes)
    )
    return Episode(uuid.UUID(int=seed), instruction, frames, 0, (keyframes - 1) * 10**9)
