"""The oracle: which tasks came true between two simulator states, three-valued.

Every task has a threshold above which it came true, one below which it did not, and a dead band
between them, in which the answer is DISPUTED and the episode is not used. Needs numpy only.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass

from .layout import (
    BAY,
    BLOCK_HALF,
    CABINET_FLOOR,
    CABINET_HALF,
    CABINET_X,
    COLOURS,
    DOOR_REACH,
    DRAWER_FLOOR,
    DRAWER_STROKE,
)
from .scene import Scene
from .tasks import TASKS, Task

# Thresholds: (at most this is FALSE, at least this is TRUE); between them it is DISPUTED.
LIFT_BAND = (0.02, 0.08)
ROTATE_BAND = (math.radians(25), math.radians(50))
PUSH_BAND = (0.03, 0.08)
MOVED_BAND = (0.015, 0.030)  # drawer and door: FALSE below, whatever the place they end at
SWITCH_BAND = (-0.012, 0.012)  # off at or below, on at or above
DRAWER_DONE = 0.025  # from either end of the stroke
DOOR_DONE = 0.025
ROTATE_DRIFT = 0.06  # farther than this, a turned block counts as disputed
UPRIGHT = 0.95  # cosine of a block's tilt below which turning, pushing, stacking are disputed
AIRBORNE = 0.05  # a block that rose by this on the way was carried and not pushed

# Where a block lies (`support`): tolerances in metres.
_STACK_RISE = 2 * BLOCK_HALF[2]
_STACK_TOLERANCE = 0.006
_STACK_DRIFT = 0.030
_TABLE_Z = (BLOCK_HALF[2] - 0.010, BLOCK_HALF[2] + 0.012)
_SLIDER_Z = CABINET_FLOOR + BLOCK_HALF[2] + 0.015
_DRAWER_Z = DRAWER_FLOOR + BLOCK_HALF[2] + 0.017


class Outcome(enum.IntEnum):
    """Whether a task came true between two states."""

    FALSE = -1
    DISPUTED = 0
    TRUE = 1


@dataclass(frozen=True)
class BlockState:
    """Pose of a block: centre (m), yaw (rad), cosine of the tilt of its upper face."""

    x: float
    y: float
    z: float
    yaw: float
    upright: float = 1.0


@dataclass(frozen=True)
class WorldState:
    """What the oracle looks at: blocks by colour, drawer opening, door and switch positions (m),
    whether the LED is on."""

    blocks: dict[str, BlockState]
    drawer: float
    door: float
    switch: float
    led: bool


def state_of_scene(scene: Scene) -> WorldState:
    """The state a scene starts in."""
    blocks = {c: BlockState(*pose) for c, pose in scene.blocks.items()}
    return WorldState(blocks, scene.drawer, scene.door, scene.switch, scene.led)


def wrap_angle(angle: float) -> float:
    """The same angle in [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def carrier(colour: str, state: WorldState) -> str:
    """The colour of the block on which this one lies, or ""."""
    a = state.blocks[colour]
    for other, b in state.blocks.items():
        above = abs(a.z - b.z - _STACK_RISE) <= _STACK_TOLERANCE
        if other != colour and above and math.hypot(a.x - b.x, a.y - b.y) <= _STACK_DRIFT:
            return other if a.upright >= UPRIGHT else ""
    return ""


def support(colour: str, state: WorldState) -> str:
    """What a block rests on: ``table``, ``drawer``, ``slider`` (the cabinet's floor), ``stack``
    (another block), or "" for none of them: in the air, leaning, on the door."""
    block = state.blocks[colour]
    over_bay = BAY[0] + 0.01 < block.x < BAY[1] and abs(block.y) < BAY[2]
    if block.z <= _DRAWER_Z:
        return "drawer"
    if carrier(colour, state):
        return "stack"
    if abs(block.x - CABINET_X) <= CABINET_HALF[0] and abs(block.y) <= CABINET_HALF[1]:
        return "slider" if block.z <= _SLIDER_Z else ""
    return "table" if _TABLE_Z[0] <= block.z <= _TABLE_Z[1] and not over_bay else ""


# --- one question for each kind of task


def _banded(value: float, band: tuple[float, float]) -> Outcome:
    low, high = band
    if value >= high:
        return Outcome.TRUE
    return Outcome.FALSE if value <= low else Outcome.DISPUTED


def _ends(travel: float, rest: float, done: float) -> Outcome:
    """For drawer and door: ``travel`` towards the goal so far, ``rest`` still missing (m)."""
    if travel <= MOVED_BAND[0]:
        return Outcome.FALSE
    if travel >= MOVED_BAND[1] and rest <= done:
        return Outcome.TRUE
    return Outcome.DISPUTED


def _moved_along(task: Task, start: WorldState, end: WorldState) -> Outcome:
    """Drawer and sliding door."""
    if task.object == "drawer":
        sign = 1.0 if task.verb == "open" else -1.0
        goal = DRAWER_STROKE if task.verb == "open" else 0.0
        return _ends(sign * (end.drawer - start.drawer), sign * (goal - end.drawer), DRAWER_DONE)
    sign = -1.0 if task.direction == "left" else 1.0
    return _ends(sign * (end.door - start.door), DOOR_REACH - sign * end.door, DOOR_DONE)


def _switched(task: Task, start: WorldState, end: WorldState) -> Outcome:
    """Lightbulb and LED: the other state than before, the one asked for."""
    wanted = task.verb == "turn_on"
    if task.object == "led":
        return Outcome.TRUE if start.led != wanted and end.led == wanted else Outcome.FALSE
    sign = 1.0 if wanted else -1.0
    before, after = (_banded(sign * s.switch, SWITCH_BAND) for s in (start, end))
    return after if before is Outcome.FALSE else Outcome.FALSE


def _lifted(task: Task, start: WorldState, end: WorldState) -> Outcome:
    if support(task.colour, start) != task.place or support(task.colour, end):
        return Outcome.FALSE
    return _banded(end.blocks[task.colour].z - start.blocks[task.colour].z, LIFT_BAND)


def _turned_or_pushed(
    task: Task, start: WorldState, end: WorldState, carried: frozenset[str]
) -> Outcome:
    """On the table before and after; leaning or drifting away makes a TRUE disputed."""
    a, b = start.blocks[task.colour], end.blocks[task.colour]
    elsewhere = support(task.colour, end) not in ("table", "")
    if support(task.colour, start) != "table" or elsewhere or b.z - a.z >= LIFT_BAND[1]:
        return Outcome.FALSE
    settled = abs(b.z - a.z) <= LIFT_BAND[0] and b.upright >= UPRIGHT
    sign = -1.0 if task.direction == "left" else 1.0
    if task.verb == "push":
        outcome = _banded(sign * (b.y - a.y), PUSH_BAND)
        settled = settled and task.colour not in carried
    else:
        outcome = _banded(-sign * wrap_angle(b.yaw - a.yaw), ROTATE_BAND)
        settled = settled and math.hypot(b.x - a.x, b.y - a.y) <= ROTATE_DRIFT
    if outcome is Outcome.TRUE and not settled:
        return Outcome.DISPUTED
    return outcome


def _arrived(colour: str, goal: str, start: WorldState, end: WorldState) -> Outcome:
    """Whether a block came to rest on ``goal``; neither there nor clearly elsewhere: DISPUTED."""
    where = support(colour, end)
    if where == goal:
        return Outcome.TRUE
    held = end.blocks[colour].z - start.blocks[colour].z >= LIFT_BAND[1]
    return Outcome.FALSE if where or held else Outcome.DISPUTED


def _any_block(outcomes: Iterable[Outcome]) -> Outcome:
    return max(outcomes, default=Outcome.FALSE)


def _brought(task: Task, start: WorldState, end: WorldState, carried: frozenset[str]) -> Outcome:
    """Any block into drawer or cabinet: carried for ``place``, pushed off the table's edge for
    ``push``."""
    outcomes = []
    for colour in COLOURS:
        before = support(colour, start)
        if before == task.place or (task.verb == "push" and before != "table"):
            continue
        if (colour in carried) == (task.verb == "place"):
            outcomes.append(_arrived(colour, task.place, start, end))
    return _any_block(outcomes)


def _stacked(task: Task, start: WorldState, end: WorldState) -> Outcome:
    """Any block onto another (``stack``), any upper block down onto the table (``unstack``)."""
    outcomes = []
    for colour in COLOURS:
        upper = support(colour, start) == "stack"
        if task.verb == "stack" and not upper:
            outcomes.append(_arrived(colour, "stack", start, end))
        if task.verb == "unstack" and upper:
            where = support(colour, end)
            now = {"table": Outcome.TRUE, "stack": Outcome.FALSE}
            outcomes.append(now.get(where, Outcome.DISPUTED))
    return _any_block(outcomes)


def judge(
    task: Task, start: WorldState, end: WorldState, carried: frozenset[str] = frozenset()
) -> Outcome:
    """Whether ``task`` came true between two simulator states; DISPUTED inside the dead bands.

    ``carried`` are the colours of blocks that were in the air on the way (`carried_blocks`): it
    tells pushing from carrying, which can end alike.
    """
    if task.category == "opening_closing":
        return _moved_along(task, start, end)
    if task.category == "lighting":
        return _switched(task, start, end)
    if task.verb == "lift":
        return _lifted(task, start, end)
    if task.colour:
        return _turned_or_pushed(task, start, end, carried)
    if task.place:
        return _brought(task, start, end, carried)
    return _stacked(task, start, end)


def carried_blocks(path: Iterable[WorldState]) -> frozenset[str]:
    """Colours of the blocks that rose by ``AIRBORNE`` above where they started, anywhere on the
    way; the first state is the start."""
    states = list(path)
    return frozenset(
        colour
        for colour in COLOURS
        if max(s.blocks[colour].z for s in states) - states[0].blocks[colour].z >= AIRBORNE
    )


def judge_all(
    start: WorldState, end: WorldState, carried: frozenset[str] = frozenset()
) -> dict[str, Outcome]:
    """The oracle's word on every task, by name."""
    return {name: judge(task, start, end, carried) for name, task in TASKS.items()}
