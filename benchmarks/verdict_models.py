"""Random models of the true architecture for benchmarks/verdict.py and its test.

What a model computes is meaningless; what it costs is not. The 3B one is built without
initialising and filled from one block of random numbers, which takes seconds instead of minutes;
each tensor begins at another place of the block, so that no two layers are alike.
"""

from __future__ import annotations

import math
import uuid
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    Gemma2Config,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipVisionConfig,
)
from transformers.initialization import no_init_weights

from ifailsense_ros.core.checkpoint import (
    AnswerWords,
    CheckpointConfig,
    FSHeadSettings,
    MontageSettings,
    VoteWeights,
)
from ifailsense_ros.core.detection import bare_config
from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.model.attention import use_fused_attention
from ifailsense_ros.model.checkpoint import LoadedCheckpoint
from ifailsense_ros.model.fs_block import FSBlocks
from ifailsense_ros.model.tiny import build_processor, build_tiny

INSTRUCTION = (
    "lift the red block that lies beside the drawer and carry it slowly over the table to the left "
    "until it stands on the pink block in front of the lamp and leave it there"
)
"""40 tokens in all with the prompt's others: 296 with the picture at 3B."""
ADAPTED = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj|.*vision_tower.*\.(q|k|v)_proj"
"""What the authors' adapters carry: 7 projections of the decoder, 3 of the vision tower."""


@dataclass(frozen=True)
class Size:
    """One model of the benchmark.

    Attributes:
        picture: pixels, (height, width).
        fs_widths: of the FS blocks' classifiers.
        last: hooked layers where the deepest is the last layer.
        below: hooked layers that leave some to save.
    """

    picture: tuple[int, int]
    fs_widths: tuple[int, int]
    last: tuple[int, ...]
    below: tuple[int, ...]


SIZES = {
    "tiny": Size((168, 336), (128, 32), (1, 2, 3), (0, 1, 2)),
    "3b": Size((224, 224), (1024, 256), (13, 17, 25), (13, 17, 20)),
    "test": Size((28, 28), (16, 8), (1, 2, 3), (0, 1, 2)),
}


def build(
    size: str, dtype: torch.dtype
) -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor]:
    """Base model without an adapter, in eval mode, and its processor."""
    picture = SIZES[size].picture
    if size == "tiny":
        model, processor = build_tiny([INSTRUCTION, "evaluate en"], picture)
        return model.to(dtype).eval().requires_grad_(False), processor
    patches = (picture[0] // 14) * (picture[1] // 14)
    processor = build_processor([INSTRUCTION, "evaluate en"], picture, patches)
    big = size == "3b"
    text = Gemma2Config(
        vocab_size=257216 if big else len(processor.tokenizer),
        hidden_size=2304 if big else 32,
        intermediate_size=9216 if big else 64,
        num_hidden_layers=26 if big else 4,
        num_attention_heads=8 if big else 4,
        num_key_value_heads=4 if big else 2,
        head_dim=256 if big else 16,
        query_pre_attn_scalar=256 if big else 16,
    )
    vision = SiglipVisionConfig(
        hidden_size=1152 if big else 24,
        intermediate_size=4304 if big else 32,
        num_hidden_layers=27 if big else 2,
        num_attention_heads=16 if big else 2,
        image_size=picture[0],
        patch_size=14,
        vision_use_head=False,
    )
    config = PaliGemmaConfig(
        vision_config=vision,
        text_config=text,
        projection_dim=text.hidden_size,
        hidden_size=text.hidden_size,
        image_token_index=processor.image_token_id,
        vocab_size=text.vocab_size,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights():
            model = PaliGemmaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    model.tie_weights()
    fill(model, 0.02 if big else 0.15)
    return model.eval().requires_grad_(False), processor


@torch.no_grad()
def fill(module: nn.Module, std: float) -> None:
    """Random weights, the same ones every time: normal matrices, neutral norms, no biases."""
    block = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)) * std
    for name, parameter in module.named_parameters():
        if parameter.ndim < 2:
            neutral = 1.0 if name.endswith("weight") and "language_model" not in name else 0.0
            parameter.fill_(neutral)
            continue
        start = zlib.crc32(name.encode()) % (len(block) // 2)
        row = block[start:].to(parameter.dtype)
        flat = parameter.view(-1)
        for begin in range(0, len(flat), len(row)):
            part = flat[begin : begin + len(row)]
            part.copy_(row[: len(part)])


def with_adapter(model: PaliGemmaForConditionalGeneration, size: str) -> PeftModel:
    """The base with a random adapter of the authors' shape, unmerged."""
    settings = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=ADAPTED)
    wrapped = get_peft_model(model, settings)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            fill_one(name, parameter, 0.01 if size == "3b" else 0.1)
    return wrapped.eval().requires_grad_(False)


@torch.no_grad()
def fill_one(name: str, parameter: torch.Tensor, std: float) -> None:
    """Random numbers that depend on the name alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def blocks_of(size: str, width: int, biases: tuple[float, float, float]) -> FSBlocks:
    """Random FS blocks (float32) whose logits are shifted by `biases`."""
    settings = FSHeadSettings(SIZES[size].fs_widths, 4, 0.5)
    blocks = FSBlocks(3, width, settings)
    for name, parameter in blocks.named_parameters():
        if parameter.ndim > 1:
            fill_one(name, parameter, 1 / math.sqrt(parameter.shape[-1]))
        elif name.endswith("bias"):
            # PyTorch draws them anew each time: no two of these would be alike
            parameter.data.zero_()
    set_biases(blocks, biases)
    return blocks.eval().requires_grad_(False)


@torch.no_grad()
def set_biases(blocks: FSBlocks, biases: tuple[float, float, float]) -> None:
    """Which way each block's votes fall."""
    for block, bias in zip(blocks, biases, strict=True):
        block.classifier[5].bias.fill_(bias)


def settings_of(size: str, layers: tuple[int, ...], rule: str = "two_of_three") -> CheckpointConfig:
    """A checkpoint's settings around these layers."""
    height, width = SIZES[size].picture
    return bare_config(
        f"random-{size}",
        MontageSettings(4, 2, height // 2, width // 4),
        prompt="<image> evaluate en {instruction}",
        words=AnswerWords(("success",), ("fail",)),
        fs_blocks="fs_blocks.safetensors",
        hooked_layers=layers,
        fs_head=FSHeadSettings(SIZES[size].fs_widths, 4, 0.5),
        vote_weights=VoteWeights((1.0, 1.0, 1.0), 2.0),
        abstain_rule=rule,
    )


def loaded(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    config: CheckpointConfig,
    blocks: FSBlocks,
) -> LoadedCheckpoint:
    """As `load_checkpoint` leaves it; an adapter must be merged by now."""
    use_fused_attention(model.model.language_model)
    return LoadedCheckpoint(config, model.eval(), processor, blocks)


def episode_of(config: CheckpointConfig, seed: int, instruction: str = INSTRUCTION) -> Episode:
    """Keyframes of noise over random colours, as large as the montage's cells."""
    rng = np.random.default_rng(seed)
    m = config.montage
    frames = []
    for t in range(m.num_keyframes):
        colours = rng.integers(0, 256, (m.num_pov, 1, 1, 3))
        noise = rng.integers(-60, 60, (m.num_pov, m.cell_height, m.cell_width, 3))
        views = np.clip(colours + noise, 0, 255).astype(np.uint8)
        frames.append(Keyframe(t * 10**9, tuple(views)))
    return Episode(uuid.UUID(int=seed), instruction, tuple(frames), 0, m.num_keyframes * 10**9)
