"""A checkpoint of ours without the votes of its FS blocks (paper, Table I and Sec. VII)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ifailsense_ros.core.checkpoint import VoteWeights
from ifailsense_ros.model.checkpoint import LoadedCheckpoint
from ifailsense_ros.model.detector import FailSenseDetector
from ifailsense_ros.model.fs_block import FSBlocks


def lora_only(checkpoint: LoadedCheckpoint, suffix: str = "", **settings: Any) -> FailSenseDetector:
    """Stage 1 alone, the paper's "LoRA only": the FS blocks are not even computed.

    Args:
        checkpoint: with FS blocks or without.
        suffix: to add to the `model_id`.
        settings: of `FailSenseDetector`.
    """
    config = checkpoint.config
    weights = VoteWeights((), config.vote_weights.vlm or 1.0)
    without = replace(
        config, fs_blocks=None, hooked_layers=(), vote_weights=weights, calibration=None
    )
    width = checkpoint.model.config.get_text_config().hidden_size
    blocks = FSBlocks(0, width, config.fs_head).eval()
    return FailSenseDetector(
        replace(checkpoint, config=without, fs_blocks=blocks, calibration=None),
        f"{config.model_id}{suffix}+lora-only",
        **settings,
    )


def vlm_only(checkpoint: LoadedCheckpoint, suffix: str = "", **settings: Any) -> FailSenseDetector:
    """The full checkpoint in which the VLM alone has a say: the FS blocks' votes are shown, with
    omega = 0. Arguments as of `lora_only`.
    """
    config = checkpoint.config
    weights = VoteWeights((0.0,) * len(config.hooked_layers), config.vote_weights.vlm or 1.0)
    # Temperatures and guard were fitted to the vote of all.
    changed = replace(config, vote_weights=weights, calibration=None)
    return FailSenseDetector(
        replace(checkpoint, config=changed, calibration=None),
        f"{config.model_id}{suffix}+vlm-only",
        **settings,
    )
