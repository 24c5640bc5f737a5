"""What a trained control is not shown (DESIGN 9.5): the same episode with part of it taken away,
or labels that say nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.montage import MontageGeometry

ABLATIONS = (
    "none",
    "image_blind",
    "instruction_blind",
    "first_frame_only",
    "last_frame_only",
    "shuffled_labels",
)

# Words of the fixed prompts: a blind model needs no other vocabulary than a seeing one.
_BLIND_TEXT = "the robot"
# One patch of grey says as much as a whole montage of it, and is cheaper to train on.
_BLIND_SIZE = 14
_GREY = np.full((_BLIND_SIZE, _BLIND_SIZE, 3), 128, np.uint8)


@dataclass(frozen=True)
class Ablation:
    """Applied in training and in evaluation alike; "none" leaves everything as it is.

    Raises:
        ValueError: a name that is not one of `ABLATIONS`.
    """

    name: str = "none"

    def __post_init__(self) -> None:
        if self.name not in ABLATIONS:
            raise ValueError(f"ablation {self.name!r}: choose one of {', '.join(ABLATIONS)}")

    def geometry(self, full: MontageGeometry) -> MontageGeometry:
        """The montage the ablated model sees, where the whole one would be `full`."""
        if self.name == "image_blind":
            return MontageGeometry(1, 1, _BLIND_SIZE, _BLIND_SIZE)
        if self.name in ("first_frame_only", "last_frame_only"):
            return replace(full, num_keyframes=1)
        return full

    def text(self, instruction: str) -> str:
        """The instruction the ablated model reads."""
        return _BLIND_TEXT if self.name == "instruction_blind" else instruction

    def apply(self, episode: Episode) -> Episode:
        """The episode as the ablated model sees it."""
        keyframes = episode.keyframes
        if self.name == "image_blind":
            keyframes = (Keyframe(episode.start_ns, (_GREY,)),)
        elif self.name == "first_frame_only":
            keyframes = keyframes[:1]
        elif self.name == "last_frame_only":
            keyframes = keyframes[-1:]
        return replace(episode, keyframes=keyframes, instruction=self.text(episode.instruction))

    def label(self, episode: int, instruction: str, truth: bool) -> bool:
        """The label that training is told; validation and evaluation keep the true one.

        With ``shuffled_labels`` it is a coin, the same whenever the pair comes up again: what a
        model still gets right then, it did not learn from labels.

        Args:
            episode: its index in the training set.
            instruction: g.
            truth: y.
        """
        if self.name != "shuffled_labels":
            return truth
        text = f"{episode}/{instruction}".encode()
        return bool(hashlib.blake2b(text, digest_size=1).digest()[0] & 1)
