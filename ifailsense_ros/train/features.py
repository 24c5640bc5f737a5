"""The frozen vision tower's output, computed once per montage and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.model.vlm import encode_pictures, vision_features


def amp() -> torch.autocast:
    """bfloat16 where the processor has it: on CPUs with avx512-bf16 it halves a step's time."""
    return torch.autocast("cpu", torch.bfloat16)


class FeatureCache:
    """Tower features (n, n_img, d_vision) float16, memory-mapped; resumable by blocks.

    Args:
        path: .npy file; progress is kept beside it.
        key: what the features depend on (data, geometry, encoder); another key starts anew.
    """

    def __init__(self, path: Path, key: dict) -> None:
        self._path = path
        self._progress = path.with_suffix(".json")
        self._key = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()

    def _state(self) -> dict:
        if self._progress.exists() and self._path.exists():
            state = json.loads(self._progress.read_text())
            if state.get("key") == self._key:
                return state
        return {"key": self._key, "done": 0}

    def get(
        self,
        model: PaliGemmaForConditionalGeneration,
        processor: PaliGemmaProcessor,
        montages: Iterable[np.ndarray],
        count: int,
        *,
        batch: int = 16,
    ) -> np.ndarray:
        """Read the features, computing what is missing.

        Args:
            montages: uint8 RGB pictures (h, w, 3), in order; only as many as needed are drawn.
            count: how many there are.
        """
        state = self._state()
        shape = (count, processor.image_seq_length, model.config.vision_config.hidden_size)
        if state["done"] >= count:
            return np.load(self._path, mmap_mode="r")
        mode = "r+" if state["done"] else "w+"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        out = np.lib.format.open_memmap(self._path, mode=mode, dtype=np.float16, shape=shape)
        pictures = iter(montages)
        for _ in range(state["done"]):
            next(pictures)
        with tqdm(total=count, initial=state["done"], desc=self._path.stem, mininterval=5) as bar:
            for start in range(state["done"], count, batch):
                block = [next(pictures) for _ in range(min(batch, count - start))]
                with torch.inference_mode(), amp():
                    hidden = vision_features(model, encode_pictures(processor, block))
                out[start : start + len(block)] = hidden.float().numpy().astype(np.float16)
                bar.update(len(block))
                if (start // batch) % 20 == 0 or start + len(block) == count:
                    out.flush()
                    part = self._progress.with_suffix(".part")
                    part.write_text(json.dumps({"key": self._key, "done": start + len(block)}))
                    os.replace(part, self._progress)
        return np.load(self._path, mmap_mode="r")
