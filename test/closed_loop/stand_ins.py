"""A camera without OpenGL and a detector without a model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ifailsense_ros.core.verdict import Judgement, Outcome, Reason
from ifailsense_ros.evaluate.baselines.constant import ConstantDetector
from ifailsense_ros.evaluate.baselines.names import parse_name

RED_Z = 16
"""Where the height of the red block stands in a state."""


class GreyCamera:
    """Pictures of one grey level each; the wrist's is darker by 10."""

    def __init__(self) -> None:
        self.taken = 0

    def pictures(self, states) -> list[list[np.ndarray]]:
        """See `sim.render.Camera`."""
        self.taken += len(states)
        levels = [int(np.clip(100 + 400 * float(q[RED_Z]), 20, 250)) for q in states]
        return [
            [np.full((32, 32, 3), level - less, np.uint8) for level in levels] for less in (0, 10)
        ]


class RiseDetector:
    """Success is a last picture that is brighter than the first one; `unknown` says so."""

    def __init__(self, *, unknown: bool = False) -> None:
        constant = ConstantDetector(Outcome.SUCCESS, parse_name("baseline:always-success").montage)
        self.config = replace(constant.config, name="rise")
        self.model_id = "rise@0"
        self.asked: list = []
        self._unknown = unknown

    def judge(self, episode) -> Judgement:
        """See `core.detection.Detector`."""
        self.asked.append(episode)
        if self._unknown:
            return Judgement(Outcome.UNKNOWN, Reason.OUT_OF_DISTRIBUTION, "strange", math.nan)
        first, last = (int(episode.keyframes[i].views[0].mean()) for i in (0, -1))
        p = 1 / (1 + math.exp(-(last - first - 15)))
        return Judgement(Outcome.SUCCESS if p > 0.5 else Outcome.FAILURE, p_success=p)
