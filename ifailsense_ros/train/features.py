"""The frozen vision tower's output, computed once per shard of episodes and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.model.vlm import encode_pictures, vision_features


def amp() -> torch.autocast:
    """bfloat16 where the processor has it: on CPUs with avx512-bf16 it halves a step's time."""
    return torch.autocast("cpu", torch.bfloat16)


def tower_hash(model: PaliGemmaForConditionalGeneration) -> str:
    """Short hash of the vision tower's weights: cached features belong to one tower."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.model.vision_tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().to(torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()


def cached_features(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    shards: Sequence[tuple[str, Callable[[], Iterator[np.ndarray]]]],
    key: dict,
    folder: Path,
    *,
    batch: int = 16,
) -> np.ndarray:
    """Tower features of all montages, computing the shards that are not on disk yet.

    Args:
        shards: (content hash, function that yields the shard's montages, uint8 RGB).
        key: what else the features depend on (geometry, what is shown).
        folder: one file a shard; a file appears only when it is complete.

    Returns:
        float16 (n, n_img, d_vision).
    """
    folder.mkdir(parents=True, exist_ok=True)
    common = {**key, "tower": tower_hash(model)}
    parts = []
    for content, montages in tqdm(shards, desc="vision features", unit="shard", mininterval=5):
        text = json.dumps({**common, "shard": content}, sort_keys=True)
        path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.npy"
        if not path.exists():
            pictures = list(montages())
            blocks = []
            for start in range(0, len(pictures), batch):
                pixels = encode_pictures(processor, pictures[start : start + batch])
                with torch.inference_mode(), amp():
                    hidden = vision_features(model, pixels)
                blocks.append(hidden.float().numpy().astype(np.float16))
            part = path.with_suffix(f".{os.getpid()}.part")
            with part.open("wb") as f:
                np.save(f, np.concatenate(blocks))
            os.replace(part, path)
        parts.append(np.load(path))
    return np.concatenate(parts)
