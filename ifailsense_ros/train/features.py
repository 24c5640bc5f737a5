"""The frozen vision tower's output, computed once per shard of episodes and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.model.vlm import encode_pictures, vision_features
from ifailsense_ros.train.compute import accelerator, amp, uses_bf16


class Rows:
    """Arrays of equal row shape, one after the other, as one array that is read row by row.

    The arrays stay on disk: memory does not grow with their number, and several processes share
    what the system caches of them.

    Args:
        parts: (n_i, ...) each, e.g. memory-mapped; at least one.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *(len(p) for p in self._parts)])
        self.shape = (int(self._starts[-1]), *self._parts[0].shape[1:])
        self.dtype = self._parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """A copy of the rows, (len(rows), ...)."""
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        chosen = np.empty((len(rows), *self.shape[1:]), self.dtype)
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        for i, (part, row) in enumerate(zip(parts, rows, strict=True)):
            chosen[i] = self._parts[part][row - self._starts[part]]
        return chosen


def weights_hash(module: nn.Module, dtype: torch.dtype | None = None) -> str:
    """sha256 over a module's parameters and buffers.

    Args:
        dtype: that floating-point weights are rounded to first; None: as they are.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        tensor = tensor.detach().cpu()
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def cached_features(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    shards: Sequence[tuple[str, Callable[[], Iterator[np.ndarray]]]],
    key: dict,
    folder: Path,
    *,
    batch: int = 16,
) -> Rows:
    """Tower features of all montages, computing the shards that are not on disk yet.

    They are outputs of the tower, before the projector, which stage 1 may train. Processes share
    the work.

    Args:
        shards: (content hash, function that yields the shard's montages, uint8 RGB).
        key: what else the features depend on (geometry, what is shown).
        folder: one file a shard; a file appears only when it is complete.

    Returns:
        float16 (n, n_img, d_vision), on disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    here = accelerator()
    # Rounded as the committed encoder is: the same tower whatever precision it was loaded in.
    common = {**key, "tower": weights_hash(model.model.vision_tower, torch.float16)}
    if not uses_bf16():
        common["precision"] = "fp32"
    paths = []
    for content, _ in shards:
        text = json.dumps({**common, "shard": content}, sort_keys=True)
        paths.append(folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.npy")
    model.model.vision_tower.to(here.device)
    # Shared out before looking at what is there: another process may be done with its part by now.
    work = [(path, montages) for path, (_, montages) in zip(paths, shards, strict=True)]
    share = [w for w in work[here.process_index :: here.num_processes] if not w[0].exists()]
    for path, montages in tqdm(
        share, desc="vision features", unit="shard", mininterval=5, disable=not share
    ):
        pictures = list(montages())
        blocks = []
        for start in range(0, len(pictures), batch):
            pixels = encode_pictures(processor, pictures[start : start + batch])
            with torch.inference_mode(), amp():
                hidden = vision_features(model, pixels.to(here.device))
            blocks.append(hidden.float().cpu().numpy().astype(np.float16))
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as f:
            np.save(f, np.concatenate(blocks))
        os.replace(part, path)
    here.wait_for_everyone()
    return Rows([np.load(path, mmap_mode="r") for path in paths])
