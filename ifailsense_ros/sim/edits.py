"""Faults as edits of an expert's plan, one function a control failure (AHA's classes).

An edit acts on the tags of the waypoints (listed in `experts`), so it does not depend on how many
tasks there are. It gets the plan, the posture of the hand at the start and a source of randomness,
and returns a new plan; whether that plan really fails is the oracle's to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np

from ifailsense_ros.data.failure_classes import (
    INADEQUATE_GRIP_RETENTION,
    INCOMPLETE_GRASP,
    INCORRECT_ROTATION,
    MISALIGNED_KEYFRAME,
    MISSING_ROTATION,
    WRONG_ACTION_SEQUENCE,
)

from .layout import BLOCK_HALF
from .robot import Waypoint
from .scene import HomePose

Plan = list[Waypoint]
Edit = Callable[[Plan, HomePose, np.random.Generator], Plan]

# How far (m) fingers stay from the sides of a block that they were to grip.
_GAP = (0.005, 0.012)
_OFFSET = (0.04, 0.08)  # a displaced waypoint, m
_SLIPS_AFTER = (0.0, 0.008)  # way (m) of a handle before the fingers slip off it
_SLIP_RISE = 0.06
_TOO_LITTLE, _WRONG_WAY = (0.12, 0.3), (-0.9, -0.4)  # shares of the turn that was meant
_UNALIGNED = math.radians(60)  # a hand turned less than this from the block still grips it

# Steps at an object, and steps at the place where a block is put.
_PICKING = ("approach", "reach", "lift")
_ACTING = ("push", "pull", "press")
_PLACING = ("carry", "place", "leave")


class NoPlaceError(ValueError):
    """The plan has no place for this fault."""


def tags_of(plan: Plan) -> set[str]:
    """The tags that occur in a plan."""
    return {step.tag for step in plan}


def _need(plan: Plan, tags: Collection[str], what: str) -> None:
    missing = set(tags) - tags_of(plan)
    if missing:
        raise NoPlaceError(f"{what}: the plan has no {' and no '.join(sorted(missing))}")


def _index(plan: Plan, tag: str) -> int:
    return next(i for i, step in enumerate(plan) if step.tag == tag)


def _moved(step: Waypoint, offset: np.ndarray) -> Waypoint:
    position = tuple((np.array(step.position) + offset).tolist())
    return replace(step, position=position) if step.kind == "move" else step


def _at(step: Waypoint, position: tuple[float, float, float]) -> Waypoint:
    return replace(step, position=tuple(float(v) for v in position))


def incomplete_grasp(plan: Plan, home: HomePose, rng: np.random.Generator) -> Plan:
    """The fingers do not close, or stop before they touch the block; the plan goes on."""
    _need(plan, ("approach", "grasp", "lift"), "nothing to grip")
    fingers = BLOCK_HALF[1] + float(rng.uniform(*_GAP))
    if rng.random() < 0.5:
        fingers = plan[_index(plan, "approach")].fingers  # as open as they came
    return [replace(s, fingers=fingers) if s.tag == "grasp" else s for s in plan]


def inadequate_grip_retention(plan: Plan, home: HomePose, rng: np.random.Generator) -> Plan:
    """The block falls from the hand on its way, or the fingers slip off the handle."""
    _need(plan, ("grasp",), "nothing to lose")
    share = float(rng.uniform(0.3, 0.7))
    if "pull" in tags_of(plan):
        return _slipped(plan, rng)
    held = [t for t in ("lift", "carry") if t in tags_of(plan)]
    if not held:
        raise NoPlaceError("nothing to lose: the plan lifts nothing")
    tag = held[int(rng.integers(len(held)))]
    return [replace(s, release_at=share) if s.tag == tag else s for s in plan]


def _slipped(plan: Plan, rng: np.random.Generator) -> Plan:
    """Open fingers still hook a handle, so they rise above it and move on without it."""
    at = _index(plan, "pull")
    pull = plan[at]
    before = np.array(plan[_index(plan, "reach")].position)
    way = np.array(pull.position) - before
    length = float(np.linalg.norm(way))
    slip = before + way * (rng.uniform(*_SLIPS_AFTER) / max(length, 1e-6))
    rise = np.array([0.0, 0.0, _SLIP_RISE])
    steps = [
        _at(pull, tuple(slip)),
        _at(replace(pull, fingers=plan[_index(plan, "release")].fingers), tuple(slip + rise)),
        _moved(pull, rise),
    ]
    return plan[:at] + steps + plan[at + 1 :]


def misaligned_keyframe(plan: Plan, home: HomePose, rng: np.random.Generator) -> Plan:
    """The waypoints at the object, or those where it is put, lie 4 to 8 cm beside or above it."""
    _need(plan, ("approach",), "nothing to miss")
    tags = tags_of(plan)
    groups = [(*_PICKING, *_ACTING, "leave") if tags & set(_ACTING) else _PICKING]
    if "carry" in tags:
        groups.append(_PLACING)
    moved = groups[int(rng.integers(len(groups)))]
    amount, angle = rng.uniform(*_OFFSET), rng.uniform(-math.pi, math.pi)
    beside = amount * np.array([math.cos(angle), math.sin(angle), 0.0])
    offset = np.array([0.0, 0.0, amount]) if rng.random() < 0.3 else beside
    return [_moved(step, offset) if step.tag in moved else step for step in plan]


def _turned(plan: Plan, tags: Collection[str], yaw: float) -> Plan:
    return [replace(s, yaw=float(yaw)) if s.kind == "move" and s.tag in tags else s for s in plan]


def _turned_by(plan: Plan, share: float) -> Plan:
    """The block is turned by a share of what was meant, and put down so."""
    start, end = plan[_index(plan, "lift")].yaw, plan[_index(plan, "turn")].yaw
    after = {s.tag for s in plan if s.kind == "move" and s.yaw == end}
    return _turned(plan, after, start + share * (end - start))


def incorrect_rotation(plan: Plan, home: HomePose, rng: np.random.Generator) -> Plan:
    """The block is turned much too little or the wrong way; or gripped along its length."""
    if "turn" in tags_of(plan):
        too_little = rng.random() < 0.5
        return _turned_by(plan, rng.uniform(*(_TOO_LITTLE if too_little else _WRONG_WAY)))
    _need(plan, ("reach", "lift"), "nothing to turn for")
    yaw = plan[_index(plan, "reach")].yaw
    quarter = math.pi / 2 + rng.uniform(-0.2, 0.2)
    return _turned(plan, _PICKING, min(yaw - quarter, yaw + quarter, key=abs))


def missing_rotation(plan: Plan, home: HomePose, rng: np.random.Generator) -> Plan:
    """The block is not turned; or the hand does not turn to the block it is to grip."""
    if "turn" in tags_of(plan):
        return _turned_by(plan, 0.0)
    _need(plan, ("reach", "lift"), "nothing to turn for")
    away = abs((plan[_index(plan, "reach")].yaw - home.yaw + math.pi / 2) % math.pi - math.pi / 2)
    if away < _UNALIGNED:
        raise NoPlaceError("nothing to turn for: the hand is aligned with the block as it is")
    return _turned(plan, _PICKING, home.yaw)


def wrong_action_sequence(plan: Plan, home: HomePose, rng: np.random.Generator) -> Plan:
    """Steps in the wrong order: grips too early or too late, lets go first, acts in the air."""
    tags = tags_of(plan)
    if tags & set(_ACTING):
        return _acting_too_late(plan)
    _need(plan, ("reach", "grasp", "lift"), "no order to break")
    orders = [_grasp_before_reach, _grasp_after_lift]
    if "release" in tags:
        orders.append(_release_before_moving)
    return orders[int(rng.integers(len(orders)))](plan)


def _acting_too_late(plan: Plan) -> Plan:
    """Reaches the object, leaves it, and only then pushes, pulls or presses, in the air."""
    act = next(step for step in plan if step.tag in _ACTING)
    height = plan[_index(plan, "approach")].position[2]
    reach, leave = plan[_index(plan, "reach")].position, plan[_index(plan, "leave")]
    late = [
        _at(leave, (reach[0], reach[1], height)),
        _at(act, (act.position[0], act.position[1], height)),
    ]
    out = [step for step in plan if step is not act and step.tag != "leave"]
    at = max(i for i, step in enumerate(out) if step.tag in ("reach", "grasp", "release")) + 1
    return [*out[:at], *late, *out[at:]]


def _grasp_before_reach(plan: Plan) -> Plan:
    """Closes first, and comes down onto the block with closed fingers."""
    reach, grasp = _index(plan, "reach"), _index(plan, "grasp")
    onto = np.array([0.0, 0.0, 1.5 * BLOCK_HALF[2]])
    out = [step for step in plan if step.tag not in ("reach", "grasp")]
    first = min(reach, grasp)
    return [*out[:first], plan[grasp], _moved(plan[reach], onto), *out[first:]]


def _grasp_after_lift(plan: Plan) -> Plan:
    """Rises first, and closes in the air."""
    grasp = plan[_index(plan, "grasp")]
    out = [step for step in plan if step.tag != "grasp"]
    at = _index(out, "lift") + 1
    return [*out[:at], grasp, *out[at:]]


def _release_before_moving(plan: Plan) -> Plan:
    """Lets go before it has carried or turned the block."""
    release = plan[_index(plan, "release")]
    out = [step for step in plan if step.tag != "release"]
    at = _index(out, "lift") + 1
    return [*out[:at], release, *out[at:]]


EDITS: dict[str, Edit] = {
    INCOMPLETE_GRASP: incomplete_grasp,
    INADEQUATE_GRIP_RETENTION: inadequate_grip_retention,
    MISALIGNED_KEYFRAME: misaligned_keyframe,
    INCORRECT_ROTATION: incorrect_rotation,
    MISSING_ROTATION: missing_rotation,
    WRONG_ACTION_SEQUENCE: wrong_action_sequence,
}
"""The six control failures; the seventh class, wrong target object, is no edit of a plan."""
