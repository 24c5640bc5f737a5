"""Made-up episodes for baselines."""

from __future__ import annotations

import uuid

import numpy as np

from ifailsense_ros.core.episode import Episode, Keyframe


def make_episode(
    instruction: str = "lift the red block", seed: int = 0, keyframes: int = 4, pov: int = 2
) -> Episode:
    """Random keyframes of 32 x 32 pixels."""
    rng = np.random.default_rng(seed)
    frames = tuple(
        Keyframe(i * 10**9, tuple(rng.integers(0, 256, (pov, 32, 32, 3), dtype=np.uint8)))
        for i in range(keyframes)
    )
    return Episode(uuid.UUID(int=seed), instruction, frames, 0, keyframes * 10**9)
