"""Scripted experts: for a task and a state, the plan (a list of waypoints) that performs it.

Speeds, approach offsets, pauses and amounts are drawn, by the same laws for every task; each plan
but a lift's ends with a retreat to a posture drawn like the start's, so that the hand hides little
in the last picture.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .robot import FINGERS_CLOSED, FINGERS_OPEN, Waypoint, World
from .scene import DOOR_REACH, DRAWER_STROKE, draw_home
from .tasks import (
    LIFT_RANGE,
    PUSH_LIMIT,
    PUSH_RANGE,
    ROTATE_RANGE,
    BlockState,
    Task,
    extents,
    wrap_angle,
)

_CLEAR = 0.11  # height (m) above an object at which the hand approaches and leaves
_CARRY = 0.065  # height at which a block is turned: above its neighbours
_HANDLE_FINGERS = 0.024


def _move(
    tag: str,
    position: tuple[float, float, float],
    yaw: float,
    speed: float = 0.34,
    fingers: float | None = None,
) -> Waypoint:
    return Waypoint("move", tag, tuple(float(v) for v in position), float(yaw), speed, fingers)


def _grip(tag: str, fingers: float) -> Waypoint:
    return Waypoint("grip", tag, fingers=fingers, duration=0.30)


def _near_zero(yaw: float) -> float:
    """The grasp yaw equal to ``yaw`` up to a half turn that bends the wrist least."""
    return (yaw + math.pi / 2) % math.pi - math.pi / 2


def _pick(rng: np.random.Generator, block: BlockState, yaw: float, rise: float) -> list[Waypoint]:
    along = rng.normal(0.0, 0.005)
    x, y = block.x + along * math.cos(block.yaw), block.y + along * math.sin(block.yaw)
    yaw = yaw + rng.normal(0.0, 0.03)
    return [
        _move("approach", (x, y, block.z + _CLEAR), yaw, fingers=FINGERS_OPEN),
        _move("reach", (x, y, block.z + 0.002), yaw, 0.20),
        _grip("grasp", FINGERS_CLOSED),
        _move("lift", (x, y, block.z + rise), yaw, 0.24),
    ]


def _lift(rng: np.random.Generator, block: BlockState) -> list[Waypoint]:
    plan = _pick(rng, block, _near_zero(block.yaw), rng.uniform(*LIFT_RANGE))
    return [*plan, Waypoint("wait", "hold", duration=float(rng.uniform(0.1, 0.5)))]


def _rotate(rng: np.random.Generator, block: BlockState, direction: str) -> list[Waypoint]:
    turn = (1.0 if direction == "left" else -1.0) * rng.uniform(*ROTATE_RANGE)
    base = _near_zero(block.yaw)
    start = min(
        (base - math.pi, base, base + math.pi), key=lambda yaw: max(abs(yaw), abs(yaw + turn))
    )
    plan = _pick(rng, block, start, _CARRY)
    x, y, z = plan[-1].position
    end = plan[-1].yaw + turn
    return [
        *plan,
        _move("turn", (x, y, z), end),
        _move("place", (x, y, block.z + 0.003), end, 0.20),
        _grip("release", FINGERS_OPEN),
        _move("leave", (x, y, block.z + _CLEAR), end, 0.30),
    ]


def _push(rng: np.random.Generator, block: BlockState, direction: str) -> list[Waypoint]:
    sign = -1.0 if direction == "left" else 1.0
    half = extents(block.yaw)[1]
    longest = min(PUSH_RANGE[1], PUSH_LIMIT - sign * block.y)
    length = rng.uniform(PUSH_RANGE[0], max(longest, PUSH_RANGE[0]))
    x = block.x + rng.normal(0.0, 0.002)
    before = block.y - sign * (half + 0.030)
    after = block.y - sign * (half + 0.006) + sign * length
    z = block.z - 0.002
    return [
        _move("approach", (x, before, z + _CLEAR), 0.0, fingers=FINGERS_CLOSED),
        _move("reach", (x, before, z), 0.0, 0.20),
        _move("push", (x, after, z), 0.0, 0.20),
        _move("back", (x, after - sign * 0.02, z), 0.0, 0.20),
        _move("leave", (x, after - sign * 0.03, z + _CLEAR), 0.0, 0.30),
    ]


def _pull(
    rng: np.random.Generator, handle: np.ndarray, change: tuple[float, float], yaw: float
) -> list[Waypoint]:
    """Grasp a handle, move it by ``change`` (x, y; m), let go."""
    x, y, z = handle
    goal = (x + change[0], y + change[1])
    slide = float(rng.normal(0.0, 0.004))
    x, y, goal = (x, y + slide, (goal[0], goal[1] + slide)) if change[0] else (x, y, goal)
    return [
        _move("approach", (x, y, z + _CLEAR), yaw, fingers=_HANDLE_FINGERS),
        _move("reach", (x, y, z), yaw, 0.20),
        _grip("grasp", FINGERS_CLOSED),
        _move("pull", (*goal, z), yaw, 0.17),
        _grip("release", _HANDLE_FINGERS),
        _move("leave", (*goal, z + _CLEAR), yaw, 0.30),
    ]


def _paced(rng: np.random.Generator, plan: list[Waypoint]) -> list[Waypoint]:
    """The plan at a drawn speed, with a pause before one drawn step in half of the cases."""
    factor = float(rng.uniform(0.85, 1.3))
    plan = [replace(step, speed=step.speed * factor) for step in plan]
    at = int(rng.integers(len(plan)))
    pause = Waypoint("wait", "pause", duration=float(rng.uniform(0.1, 0.4)))
    if rng.random() < 0.5:
        plan.insert(at, pause)
    return plan


def plan_for(task: Task, world: World, rng: np.random.Generator) -> list[Waypoint]:
    """The plan with which the expert performs ``task`` from the world's present state."""
    state = world.state()
    home = draw_home(rng)
    if task.object == "drawer":
        goal = DRAWER_STROKE + 0.002 if task.verb == "open" else -0.004
        handle = world.place_of("drawer_handle") + np.array([0.0, 0.0, 0.003])
        plan = _pull(rng, handle, (goal - state.drawer, 0.0), -math.pi / 2)
    elif task.object == "slider":
        goal = (-1.0 if task.direction == "left" else 1.0) * DOOR_REACH
        handle = world.place_of("door_handle") + np.array([0.0, 0.0, 0.008])
        plan = _pull(rng, handle, (0.0, goal - state.door), 0.0)
    else:
        block = state.blocks[task.colour]
        if task.verb == "lift":
            return _paced(rng, _lift(rng, block))
        expert = _rotate if task.verb == "rotate" else _push
        plan = expert(rng, block, task.direction)
    retreat = _move("retreat", home.position, wrap_angle(home.yaw), 0.5)
    return _paced(rng, [*plan, retreat])
