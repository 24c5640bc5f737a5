"""Scripted experts: for a task and a state, the plan (a list of waypoints) that performs it.

Speeds, approach offsets, pauses, amounts and, where any block will do, the block and the place are
drawn, by the same laws for every task. Each plan but a lift's ends with a retreat to a posture
drawn like the start's, so that the hand hides little in the last picture.

What edits of a plan (`edits`) can rely on is the tag of each waypoint:

======== ===================================================================================
approach move above the object (to the height at which the hand is clear of everything)
reach    move down to it: fingers around it, or closed beside or above it
grasp    grip: the fingers close on a block or a handle
lift     move straight up with the block
carry    move, the block in hand, above the place where it goes (turning as it goes)
turn     move: turn the block in the air about its own vertical axis (rotating only)
place    move down: put the block down
release  grip: the fingers open
push     move: closed or half-open fingers push a block or the switch's lever along the table
press    move down: closed fingers press the button
pull     move: the gripped handle of drawer or door, in either direction
leave    move away from the object (back a little and up, in one or two steps)
retreat  move to the posture of the end
hold     wait with the lifted block in the air (the end of a lift)
pause    wait, before any step, in half of the plans
======== ===================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from .feasibility import (
    LIFT_RANGE,
    PUSH_OFF_STANDOFF,
    PUSH_RANGE,
    ROTATE_RANGE,
    drawer_places,
    extents,
    placing_ways,
    push_off_ways,
    push_reach,
    slider_places,
    stacking_ways,
    table_places,
    unstacking_ways,
)
from .furniture import BUTTON_TOP
from .layout import (
    BLOCK_HALF,
    BUTTON,
    CABINET_FLOOR,
    CABINET_X,
    DOOR_REACH,
    DRAWER_FLOOR,
    DRAWER_STROKE,
    EDGE_X,
    SWITCH,
    SWITCH_REACH,
)
from .oracle import BlockState, WorldState, support, wrap_angle
from .robot import FINGERS_CLOSED, FINGERS_OPEN, Waypoint, World
from .scene import draw_home, drawer_middle
from .tasks import Task

Plan = list[Waypoint]
Point = tuple[float, float, float]
_Way = TypeVar("_Way")

_CLEAR = 0.11  # height (m) above an object at which the hand approaches and leaves
_TURN_HEIGHT = 0.065  # rise at which a block is turned: above its neighbours
_CARRY_HEIGHT = 0.155  # least z of a carried block: above the door's handle
_HANDLE_FINGERS = 0.024
_NARROW_FINGERS = 0.034  # opening (m per finger) inside drawer and cabinet
_PUSH_FINGERS = 0.018  # half open: a broad face to push a block straight ahead
_FINGER_TIP = 0.0095  # from the tool centre point down to the tips
_DROP = 0.003  # height (m) above its place at which a block is let go


def _move(
    tag: str, position: Point, yaw: float, speed: float = 0.34, fingers: float | None = None
) -> Waypoint:
    return Waypoint("move", tag, tuple(float(v) for v in position), float(yaw), speed, fingers)


def _grip(tag: str, fingers: float) -> Waypoint:
    return Waypoint("grip", tag, fingers=fingers, duration=0.30)


def _near_zero(yaw: float) -> float:
    """The grasp yaw equal to ``yaw`` up to a half turn that bends the wrist least."""
    return (yaw + math.pi / 2) % math.pi - math.pi / 2


def _pick(
    rng: np.random.Generator,
    block: BlockState,
    yaw: float,
    rise: float,
    along: float = 0.005,
    fingers: float = FINGERS_OPEN,
) -> tuple[Plan, float]:
    """Grasp a block and lift it; also where along the block (m) the hand has it."""
    offset = float(np.clip(rng.normal(0.0, along), -2 * along, 2 * along))
    x, y = block.x + offset * math.cos(block.yaw), block.y + offset * math.sin(block.yaw)
    yaw = yaw + rng.normal(0.0, 0.03)
    plan = [
        _move("approach", (x, y, block.z + _CLEAR), yaw, fingers=fingers),
        _move("reach", (x, y, block.z + 0.003), yaw, 0.20),
        _grip("grasp", FINGERS_CLOSED),
        _move("lift", (x, y, block.z + rise), yaw, 0.24),
    ]
    return plan, offset


def _fingers_at(where: str) -> float:
    return _NARROW_FINGERS if where in ("drawer", "slider") else FINGERS_OPEN


def _lift(rng: np.random.Generator, colour: str, state: WorldState) -> Plan:
    block, fingers = state.blocks[colour], _fingers_at(support(colour, state))
    rise = rng.uniform(*LIFT_RANGE)
    plan, _ = _pick(rng, block, _near_zero(block.yaw), rise, fingers=fingers)
    return [*plan, Waypoint("wait", "hold", duration=float(rng.uniform(0.1, 0.5)))]


def _rotate(rng: np.random.Generator, block: BlockState, direction: str) -> Plan:
    turn = (1.0 if direction == "left" else -1.0) * rng.uniform(*ROTATE_RANGE)
    base = _near_zero(block.yaw)
    start = min(
        (base - math.pi, base, base + math.pi), key=lambda yaw: max(abs(yaw), abs(yaw + turn))
    )
    plan, _ = _pick(rng, block, start, _TURN_HEIGHT)
    x, y, z = plan[-1].position
    end = plan[-1].yaw + turn
    return [
        *plan,
        _move("turn", (x, y, z), end),
        _move("place", (x, y, block.z + _DROP), end, 0.20),
        _grip("release", FINGERS_OPEN),
        _move("leave", (x, y, block.z + _CLEAR), end, 0.30),
    ]


def _bring(
    rng: np.random.Generator, colour: str, state: WorldState, place: Point, yaw: float, into: str
) -> Plan:
    """Pick a block up and put it down with its centre at ``place`` and the hand turned to ``yaw``,
    into the drawer, the cabinet (``into``) or onto something."""
    block, fingers = state.blocks[colour], _fingers_at(support(colour, state))
    x, y, z = place
    height = max(_CARRY_HEIGHT, z + 0.07) + rng.uniform(0.0, 0.03)
    grasp = _near_zero(block.yaw)
    rise = max(height - block.z, 0.06)
    plan, offset = _pick(rng, block, grasp, rise, along=0.003, fingers=fingers)
    # The hand is `offset` along the block from its centre, which turns with the hand.
    end = block.yaw + yaw - plan[-1].yaw
    x, y = x + offset * math.cos(end), y + offset * math.sin(end)
    return [
        *plan,
        _move("carry", (x, y, height), yaw, 0.36),
        _move("place", (x, y, z + _DROP), yaw, 0.18),
        _grip("release", _fingers_at(into)),
        _move("leave", (x, y, z + _CLEAR), yaw, 0.30),
    ]


def _one_of(rng: np.random.Generator, ways: Sequence[_Way]) -> _Way:
    if not ways:
        raise ValueError("the task is not feasible in this state")
    return ways[int(rng.integers(len(ways)))]


def _place(rng: np.random.Generator, task: Task, state: WorldState) -> Plan:
    colour = _one_of(rng, placing_ways(task, state))
    if task.place == "drawer":
        y = _one_of(rng, drawer_places(state)) + rng.uniform(-0.003, 0.003)
        x = drawer_middle(state.drawer) + rng.uniform(-0.004, 0.004)
        place = (x, y, DRAWER_FLOOR + BLOCK_HALF[2])
    else:
        y = rng.uniform(*_one_of(rng, slider_places(state)))
        x = CABINET_X + rng.uniform(-0.003, 0.003)
        place = (x, y, CABINET_FLOOR + BLOCK_HALF[2])
    return _bring(rng, colour, state, place, rng.normal(0.0, 0.02), task.place)


def _stack(rng: np.random.Generator, state: WorldState) -> Plan:
    colour, below = _one_of(rng, stacking_ways(state))
    goal = state.blocks[below]
    place = (goal.x, goal.y, goal.z + 2 * BLOCK_HALF[2])
    return _bring(rng, colour, state, place, _near_zero(goal.yaw), "stack")


def _unstack(rng: np.random.Generator, state: WorldState) -> Plan:
    colour = _one_of(rng, unstacking_ways(state))
    yaw = state.blocks[colour].yaw
    x, y = _one_of(rng, table_places(colour, yaw, state))
    return _bring(rng, colour, state, (x, y, BLOCK_HALF[2]), _near_zero(yaw), "table")


def _push(rng: np.random.Generator, task: Task, state: WorldState) -> Plan:
    block, sign = state.blocks[task.colour], -1.0 if task.direction == "left" else 1.0
    half = extents(block.yaw)[1]
    length = rng.uniform(PUSH_RANGE[0], max(push_reach(task, state), PUSH_RANGE[0]))
    x = block.x + rng.normal(0.0, 0.002)
    before = block.y - sign * (half + 0.030)
    after = block.y - sign * (half + 0.006) + sign * length
    z = block.z - 0.002
    return [
        _move("approach", (x, before, z + _CLEAR), 0.0, fingers=FINGERS_CLOSED),
        _move("reach", (x, before, z), 0.0, 0.20),
        _move("push", (x, after, z), 0.0, 0.20),
        _move("leave", (x, after - sign * 0.02, z), 0.0, 0.20),
        _move("leave", (x, after - sign * 0.03, z + _CLEAR), 0.0, 0.30),
    ]


def _push_off(rng: np.random.Generator, state: WorldState) -> Plan:
    """Push a block straight ahead until it has fallen off the table's edge into the drawer."""
    block = state.blocks[_one_of(rng, push_off_ways(state))]
    behind = block.x - extents(block.yaw)[0] - PUSH_OFF_STANDOFF
    # Far enough that a block that goes lengthwise does not stay leaning on the edge.
    after = EDGE_X + rng.uniform(0.035, 0.050)
    y = block.y + rng.normal(0.0, 0.002)
    z = block.z - 0.002
    return [
        _move("approach", (behind, y, z + _CLEAR), 0.0, fingers=_PUSH_FINGERS),
        _move("reach", (behind, y, z), 0.0, 0.20),
        _move("push", (after, y, z), 0.0, 0.20),
        _move("leave", (after - 0.03, y, z), 0.0, 0.20),
        _move("leave", (after - 0.05, y, z + _CLEAR), 0.0, 0.30),
    ]


def _pull(
    rng: np.random.Generator, handle: np.ndarray, change: tuple[float, float], yaw: float
) -> Plan:
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


def _switch(rng: np.random.Generator, turn_on: bool, lever: float) -> Plan:
    """Push the lever from behind to its other end."""
    sign = 1.0 if turn_on else -1.0
    x, y = SWITCH
    y = y + rng.normal(0.0, 0.003)
    z = 0.044
    before = x + lever - sign * 0.045
    after = x + sign * (SWITCH_REACH - 0.022) + sign * rng.uniform(0.0, 0.003)
    return [
        _move("approach", (before, y, z + _CLEAR), 0.0, fingers=FINGERS_CLOSED),
        _move("reach", (before, y, z), 0.0, 0.20),
        _move("push", (after, y, z), 0.0, 0.17),
        _move("leave", (after - sign * 0.02, y, z), 0.0, 0.20),
        _move("leave", (after - sign * 0.02, y, z + _CLEAR), 0.0, 0.30),
    ]


def _button(rng: np.random.Generator) -> Plan:
    x, y = np.array(BUTTON) + rng.normal(0.0, 0.004, 2)
    top = BUTTON_TOP + _FINGER_TIP
    depth = rng.uniform(0.016, 0.018)  # more than its travel: the arm lags behind
    return [
        _move("approach", (x, y, top + _CLEAR), 0.0, fingers=FINGERS_CLOSED),
        _move("reach", (x, y, top + 0.015), 0.0, 0.20),
        _move("press", (x, y, top - depth), 0.0, 0.10),
        _move("leave", (x, y, top + _CLEAR), 0.0, 0.30),
    ]


def _paced(rng: np.random.Generator, plan: Plan) -> Plan:
    """The plan at a drawn speed, with a pause before one drawn step in half of the cases."""
    factor = float(rng.uniform(0.85, 1.3))
    plan = [replace(step, speed=step.speed * factor) for step in plan]
    at = int(rng.integers(len(plan)))
    pause = Waypoint("wait", "pause", duration=float(rng.uniform(0.1, 0.4)))
    if rng.random() < 0.5:
        plan.insert(at, pause)
    return plan


def _performance(task: Task, world: World, rng: np.random.Generator) -> Plan:
    state = world.state()
    if task.object == "drawer":
        goal = DRAWER_STROKE + 0.002 if task.verb == "open" else -0.004
        handle = world.place_of("drawer_handle") + np.array([0.0, 0.0, 0.003])
        return _pull(rng, handle, (goal - state.drawer, 0.0), -math.pi / 2)
    if task.object == "slider":
        goal = (-1.0 if task.direction == "left" else 1.0) * DOOR_REACH
        handle = world.place_of("door_handle") + np.array([0.0, 0.0, 0.008])
        return _pull(rng, handle, (0.0, goal - state.door), 0.0)
    if task.object == "lightbulb":
        return _switch(rng, task.verb == "turn_on", state.switch)
    if task.object == "led":
        return _button(rng)
    if task.name == "push_into_drawer":
        return _push_off(rng, state)
    if task.verb == "place":
        return _place(rng, task, state)
    if task.verb in ("stack", "unstack"):
        return (_stack if task.verb == "stack" else _unstack)(rng, state)
    if task.verb == "push":
        return _push(rng, task, state)
    return _rotate(rng, state.blocks[task.colour], task.direction)


def plan_for(task: Task, world: World, rng: np.random.Generator) -> Plan:
    """The plan with which the expert performs ``task`` from the world's present state.

    Raises:
        ValueError: if a task that leaves the block open (placing, stacking, pushing into the
            drawer) is not feasible in that state.
    """
    home = draw_home(rng)
    if task.verb == "lift":
        return _paced(rng, _lift(rng, task.colour, world.state()))
    plan = _performance(task, world, rng)
    retreat = _move("retreat", home.position, wrap_angle(home.yaw), 0.5)
    return _paced(rng, [*plan, retreat])
