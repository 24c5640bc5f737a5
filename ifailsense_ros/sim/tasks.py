"""The 19 tasks: names (as in CALVIN), categories, attributes, feasibility, three-valued oracle.

Left and right are those of the exocentric picture (left = -y); ``rotate_*_left`` is
counter-clockwise in that picture, which looks at the table from above. Needs numpy only.
"""

from __future__ import annotations

import enum
import itertools
import math
from dataclasses import dataclass

import numpy as np

from .scene import BLOCK_HALF, COLOURS, DOOR_REACH, DRAWER_STROKE, Scene

CATEGORIES = ("lifting", "rotating", "pushing", "opening_closing")
ATTRIBUTES = ("verb", "object", "colour", "direction")

# Amounts that experts draw from (metres, radians).
LIFT_RANGE = (0.12, 0.20)
ROTATE_RANGE = (math.radians(60), math.radians(85))
PUSH_RANGE = (0.12, 0.17)
PUSH_LIMIT = 0.245  # a block's |y| after a push, so that it stays in the picture

# Oracle thresholds: (at most this is FALSE, at least this is TRUE); between them it is DISPUTED.
LIFT_BAND = (0.02, 0.08)
ROTATE_BAND = (math.radians(25), math.radians(50))
PUSH_BAND = (0.03, 0.08)
MOVED_BAND = (0.015, 0.030)  # drawer and door: FALSE below, whatever the place they end at
DRAWER_DONE = 0.02  # from either end of the stroke
DOOR_DONE = 0.025
ROTATE_DRIFT = 0.06  # farther than this, a turned block counts as disputed
UPRIGHT = 0.95  # cosine of a block's tilt below which turning and pushing are disputed


class Outcome(enum.IntEnum):
    """Whether a task came true between two states."""

    FALSE = -1
    DISPUTED = 0
    TRUE = 1


@dataclass(frozen=True)
class Task:
    """One thing that can be asked for; ``direction`` and ``colour`` are "" where there is none."""

    name: str
    category: str
    family: str
    verb: str
    object: str
    colour: str = ""
    direction: str = ""


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
    """What the oracle looks at: blocks by colour, drawer opening (m), door position (m)."""

    blocks: dict[str, BlockState]
    drawer: float
    door: float


def _all_tasks() -> dict[str, Task]:
    sides = ("left", "right")
    tasks = [Task(f"lift_{c}_block", "lifting", "lift", "lift", "block", c) for c in COLOURS]
    for verb, category in (("rotate", "rotating"), ("push", "pushing")):
        tasks += [
            Task(f"{verb}_{c}_block_{s}", category, verb, verb, "block", c, s)
            for c in COLOURS
            for s in sides
        ]
    tasks += [
        Task(f"{verb}_drawer", "opening_closing", f"{verb}_drawer", verb, "drawer")
        for verb in ("open", "close")
    ]
    tasks += [
        Task(f"move_slider_{s}", "opening_closing", "move_slider", "move", "slider", direction=s)
        for s in sides
    ]
    return {task.name: task for task in tasks}


TASKS: dict[str, Task] = _all_tasks()


def contrast(a: Task, b: Task) -> tuple[str, ...]:
    """The attributes in which two tasks differ, in the order of ``ATTRIBUTES``."""
    return tuple(name for name in ATTRIBUTES if getattr(a, name) != getattr(b, name))


def state_of_scene(scene: Scene) -> WorldState:
    """The state a scene starts in."""
    blocks = {c: BlockState(x, y, BLOCK_HALF[2], yaw) for c, (x, y, yaw) in scene.blocks.items()}
    return WorldState(blocks, scene.drawer, scene.door)


def wrap_angle(angle: float) -> float:
    """The same angle in [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


# --- oracle


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


def judge(task: Task, start: WorldState, end: WorldState) -> Outcome:
    """Whether ``task`` came true between two simulator states; DISPUTED inside the dead bands."""
    if task.object == "drawer":
        sign = 1.0 if task.verb == "open" else -1.0
        goal = DRAWER_STROKE if task.verb == "open" else 0.0
        return _ends(sign * (end.drawer - start.drawer), sign * (goal - end.drawer), DRAWER_DONE)
    sign = -1.0 if task.direction == "left" else 1.0
    if task.object == "slider":
        travel = sign * (end.door - start.door)
        return _ends(travel, sign * (sign * DOOR_REACH - end.door), DOOR_DONE)

    a, b = start.blocks[task.colour], end.blocks[task.colour]
    rise = b.z - a.z
    if task.verb == "lift":
        return _banded(rise, LIFT_BAND)
    if rise >= LIFT_BAND[1]:
        return Outcome.FALSE  # in the air: neither turned nor pushed on the table
    settled = abs(rise) <= LIFT_BAND[0] and b.upright >= UPRIGHT
    if task.verb == "push":
        outcome = _banded(sign * (b.y - a.y), PUSH_BAND)
    else:
        outcome = _banded(-sign * wrap_angle(b.yaw - a.yaw), ROTATE_BAND)
        settled = settled and math.hypot(b.x - a.x, b.y - a.y) <= ROTATE_DRIFT
    if outcome is Outcome.TRUE and not settled:
        return Outcome.DISPUTED
    return outcome


def judge_all(start: WorldState, end: WorldState) -> dict[str, Outcome]:
    """The oracle's word on every task."""
    return {name: judge(task, start, end) for name, task in TASKS.items()}


# --- feasibility: rectangles on the table


@dataclass(frozen=True)
class _Rect:
    x: float
    y: float
    yaw: float
    half_x: float
    half_y: float

    def axes(self) -> np.ndarray:
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return np.array([[c, s], [-s, c]])

    def corners(self) -> np.ndarray:
        signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
        return (signs * [self.half_x, self.half_y]) @ self.axes() + [self.x, self.y]


def _overlap(a: _Rect, b: _Rect) -> bool:
    """Separating axis test of two rectangles."""
    corners_a, corners_b = a.corners(), b.corners()
    for axis in np.vstack([a.axes(), b.axes()]):
        pa, pb = corners_a @ axis, corners_b @ axis
        if pa.max() < pb.min() or pb.max() < pa.min():
            return False
    return True


_MARGIN = 0.005


def _block_rect(x: float, y: float, yaw: float) -> _Rect:
    return _Rect(x, y, yaw, BLOCK_HALF[0] + _MARGIN, BLOCK_HALF[1] + _MARGIN)


def _finger_rects(x: float, y: float, yaw: float) -> list[_Rect]:
    """Where the open fingers stand around a block that is grasped across its width."""
    side = np.array([-math.sin(yaw), math.cos(yaw)]) * 0.048
    return [_Rect(x + s * side[0], y + s * side[1], yaw, 0.016, 0.012) for s in (-1, 1)]


def extents(yaw: float) -> tuple[float, float]:
    """Half the length (m) of a block along x and along y when it lies with this yaw."""
    c, s = abs(math.cos(yaw)), abs(math.sin(yaw))
    hx, hy = BLOCK_HALF[:2]
    return hx * c + hy * s, hx * s + hy * c


def _needed_space(task: Task, block: BlockState) -> list[_Rect]:
    """The places on the table that performing a block task takes up."""
    x, y, yaw = block.x, block.y, block.yaw
    sign = -1.0 if task.direction == "left" else 1.0
    if task.verb == "push":
        along_x, along_y = extents(yaw)
        length = PUSH_RANGE[0]
        sweep = _Rect(x, y + sign * (length + 0.02) / 2, 0.0, along_x, along_y + length / 2 + 0.01)
        landing = _Rect(x, y - sign * (along_y + 0.030), 0.0, 0.016, 0.026)
        return [sweep, landing]
    places = _finger_rects(x, y, yaw)
    if task.verb == "rotate":
        for amount in np.linspace(*ROTATE_RANGE, 3):
            turned = yaw - sign * float(amount)
            places += [_block_rect(x, y, turned), *_finger_rects(x, y, turned)]
    return places


def is_feasible(task: Task, state: WorldState) -> bool:
    """Whether the oracle's threshold can be reached from ``state`` with a clear path."""
    if task.object == "drawer":
        rest = DRAWER_STROKE - state.drawer if task.verb == "open" else state.drawer
        return rest >= MOVED_BAND[1]
    sign = -1.0 if task.direction == "left" else 1.0
    if task.object == "slider":
        return DOOR_REACH - sign * state.door >= MOVED_BAND[1]
    block = state.blocks[task.colour]
    if task.verb == "push" and sign * block.y + PUSH_RANGE[0] > PUSH_LIMIT:
        return False
    others = [_block_rect(b.x, b.y, b.yaw) for c, b in state.blocks.items() if c != task.colour]
    space = _needed_space(task, block)
    return not any(_overlap(place, other) for place in space for other in others)


def feasible_tasks(state: WorldState) -> tuple[str, ...]:
    """Names of the tasks that are feasible from ``state``, in table order."""
    return tuple(name for name, task in TASKS.items() if is_feasible(task, state))


# --- the pair of an episode


def draw_pair(
    rng: np.random.Generator, category: str, feasible: tuple[str, ...], hard_share: float = 0.7
) -> tuple[Task, Task] | None:
    """Which task an episode performs and which is its designated negative.

    With probability ``hard_share`` the pair differs in exactly one attribute (the attribute drawn
    first, evenly among those that occur), else it is any pair of the category; a fair coin then
    says which of the two is performed, so the start state says nothing about it.

    Returns:
        (performed, negative), or None if fewer than two tasks of the category are feasible.
    """
    tasks = [TASKS[name] for name in feasible if TASKS[name].category == category]
    pairs = list(itertools.combinations(tasks, 2))
    if not pairs:
        return None
    hard: dict[str, list[tuple[Task, Task]]] = {}
    for pair in pairs:
        differing = contrast(*pair)
        if len(differing) == 1:
            hard.setdefault(differing[0], []).append(pair)
    want_hard = rng.random() < hard_share
    if want_hard and hard:
        kinds = sorted(hard)
        pairs = hard[kinds[int(rng.integers(len(kinds)))]]
    a, b = pairs[int(rng.integers(len(pairs)))]
    return (a, b) if rng.random() < 0.5 else (b, a)
