"""Ways people put an instruction: "please ...", "could you ...?"; the same is asked for in all.

A model whose words come from one data set's bare sentences must have met them there.
"""

from __future__ import annotations

import numpy as np

FRAMES = (
    "please {instruction}",
    "{instruction} please",
    "now {instruction}",
    "{instruction} now",
    "robot {instruction}",
    "can you {instruction}",
    "could you {instruction}",
    "could you please {instruction}",
    "would you {instruction} for me",
    "i want you to {instruction}",
    "i would like you to {instruction}",
    "you should {instruction}",
    "you need to {instruction}",
    "your task is to {instruction}",
    "go ahead and {instruction}",
    "next {instruction}",
)
"""In small letters and without marks, as `core.prompt.PLAIN` spells them."""


def framed(text: str, share: float, rng: np.random.Generator) -> str:
    """The instruction in one of `FRAMES` with probability `share`, else as it is.

    Draws nothing where `share` is 0.
    """
    if not share or rng.random() >= share:
        return text
    return FRAMES[int(rng.integers(len(FRAMES)))].format(instruction=text)
