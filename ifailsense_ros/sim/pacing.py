"""How long a plan takes, and plans brought to a given length.

A failure must be as long as its twin, or its length alone would give it away (DESIGN section 9,
rule 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .robot import TICK_S, Waypoint, hold_ticks, move_ticks
from .scene import HomePose

# A plan is not made slower or faster than this to fit; what is left of the time is waited.
_SLOWEST, _FASTEST = 0.45, 1.9


def plan_ticks(plan: Sequence[Waypoint], home: HomePose) -> int:
    """Control periods that `World.run` takes for a plan from a posture of the hand."""
    position, yaw = home.position, home.yaw
    total = 0
    for step in plan:
        if step.kind == "move":
            total += move_ticks(step, position, yaw)
            position, yaw = step.position, step.yaw
        else:
            total += hold_ticks(step.duration)
    return total


def fit_ticks(plan: Sequence[Waypoint], ticks: int, home: HomePose) -> list[Waypoint]:
    """The plan with all its moves faster or slower by one factor, and a rest at its end.

    Args:
        plan: to be fitted.
        ticks: control periods it shall take.
        home: where the hand is at its start.

    Raises:
        ValueError: the plan cannot be made as short as that.
    """

    def at(factor: float) -> list[Waypoint]:
        return [replace(step, speed=step.speed * factor) for step in plan]

    slow, fast = _SLOWEST, _FASTEST
    if plan_ticks(at(fast), home) > ticks:
        raise ValueError(f"the plan is longer than {ticks * TICK_S:.1f} s even when hurried")
    if plan_ticks(at(slow), home) > ticks:
        for _ in range(30):
            middle = (slow + fast) / 2
            slow, fast = (slow, middle) if plan_ticks(at(middle), home) <= ticks else (middle, fast)
    else:
        fast = slow
    fitted = at(fast)
    rest = ticks - plan_ticks(fitted, home)
    if rest:
        fitted.append(Waypoint("wait", "hold", duration=rest * TICK_S))
    return fitted
