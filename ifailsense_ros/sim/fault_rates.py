"""How often an imperfect robot errs, and how: shares of its attempts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ifailsense_ros.data.failure_classes import (
    CONTROL_FAILURES,
    SEMANTIC_FAILURES,
    SEMANTIC_MISALIGNMENT,
)

SEMANTIC = (*SEMANTIC_FAILURES, SEMANTIC_MISALIGNMENT)


@dataclass(frozen=True)
class FaultRates:
    """Shares of all attempts; they sum to one.

    Attributes:
        clean: the expert's own motion, for what was asked.
        control: the six control failures: right intention, wrong motion.
        semantic: another task of the category is carried out, or the same on another object.
    """

    clean: float
    control: Mapping[str, float]
    semantic: Mapping[str, float]

    def check(self) -> None:
        """See that nothing is missing.

        Raises:
            ValueError: naming what is wrong.
        """
        for name, kinds in (("control", CONTROL_FAILURES), ("semantic", SEMANTIC)):
            if set(getattr(self, name)) != set(kinds):
                raise ValueError(f"{name} must name {', '.join(kinds)}, and nothing else")
        shares = [self.clean, *self.control.values(), *self.semantic.values()]
        if min(shares) < 0 or not math.isclose(sum(shares), 1.0):
            raise ValueError(f"shares must be at least 0 and sum to 1, not {sum(shares):g}")

    @property
    def semantic_share(self) -> float:
        """Of attempts that mean another task than the one asked for."""
        return sum(self.semantic.values())

    @property
    def control_share(self) -> float:
        """Of attempts at the right task, those with a fault in the motion."""
        right = 1.0 - self.semantic_share
        return sum(self.control.values()) / right if right > 0 else 0.0
