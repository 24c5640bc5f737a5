"""Episode: one attempt at one instruction, as T keyframes of N PoV (paper, Sec. III-A)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import numpy as np

POV_NAMES = ("exo", "gripper")
"""Row order of the PoV in every keyframe and montage."""


@dataclass(frozen=True, eq=False)
class Keyframe:
    """One time step seen from every PoV.

    Attributes:
        stamp_ns: header stamp of the pair (the exocentric camera's), nanoseconds.
        views: N images, uint8 RGB (H, W, 3), in the order of `POV_NAMES`. Sizes may differ
            between PoV; the montage brings them to one cell size.
    """

    stamp_ns: int
    views: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class Episode:
    """An episode frozen for judgement. Every source of data becomes one of these.

    Attributes:
        episode_id: drawn by whoever started the episode.
        instruction: the language goal g that was to be carried out.
        keyframes: T keyframes, oldest first; first and last of the episode included.
        start_ns: stamp of START, nanoseconds.
        end_ns: stamp of END, nanoseconds.
    """

    episode_id: uuid.UUID
    instruction: str
    keyframes: tuple[Keyframe, ...]
    start_ns: int
    end_ns: int

    @property
    def keyframe_stamps_ns(self) -> tuple[int, ...]:
        """Stamps of the keyframes, oldest first, nanoseconds."""
        return tuple(k.stamp_ns for k in self.keyframes)

    @property
    def num_pov(self) -> int:
        """N, the number of PoV; 0 for an episode without keyframes."""
        return len(self.keyframes[0].views) if self.keyframes else 0
