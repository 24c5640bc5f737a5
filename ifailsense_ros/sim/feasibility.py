"""Which tasks can be performed in a state: room for the fingers, free ways, free places.

On the table everything is a rectangle seen from above. The colour-free tasks (placing, stacking,
pushing into the drawer) list the ways in which they can be done; the expert draws one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .layout import (
    BLOCK_HALF,
    BLOCK_X,
    BLOCK_Y,
    CABINET_HALF,
    CABINET_WALL,
    CABINET_X,
    COLOURS,
    DOOR_REACH,
    DRAWER_HALF_Y,
    DRAWER_SLOT_Y,
    DRAWER_STROKE,
    EDGE_X,
)
from .oracle import MOVED_BAND, WorldState, carrier, support
from .scene import cabinet_gap
from .tasks import TASKS, Task

# Amounts that experts draw from (metres, radians).
LIFT_RANGE = (0.12, 0.20)
ROTATE_RANGE = (math.radians(60), math.radians(85))
PUSH_RANGE = (0.12, 0.17)
PUSH_LIMIT = 0.250  # a block's |y| after a push, so that it stays in the picture

UNSTACK_DISTANCE = 0.115  # least way (m) of an unstacked block: it must be seen to lie apart
_DRAWER_OPEN = 0.12  # least opening into which a block fits
_MARGIN = 0.005
_CABINET_FRONT = CABINET_X + CABINET_HALF[0] + CABINET_WALL
PUSH_OFF_STANDOFF = 0.016  # between the fingers and a block before it is pushed into the drawer


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


_CABINET = _Rect(
    CABINET_X, 0.0, 0.0, CABINET_HALF[0] + CABINET_WALL, CABINET_HALF[1] + CABINET_WALL
)


def _overlap(a: _Rect, b: _Rect) -> bool:
    """Separating axis test of two rectangles."""
    far = math.hypot(a.half_x, a.half_y) + math.hypot(b.half_x, b.half_y)
    if math.hypot(a.x - b.x, a.y - b.y) > far:
        return False
    corners_a, corners_b = a.corners(), b.corners()
    for axis in np.vstack([a.axes(), b.axes()]):
        pa, pb = corners_a @ axis, corners_b @ axis
        if pa.max() < pb.min() or pb.max() < pa.min():
            return False
    return True


def _block_rect(x: float, y: float, yaw: float) -> _Rect:
    return _Rect(x, y, yaw, BLOCK_HALF[0] + _MARGIN, BLOCK_HALF[1] + _MARGIN)


def _finger_rects(x: float, y: float, yaw: float) -> list[_Rect]:
    """Where the open fingers stand around a block that is grasped across its width."""
    side = np.array([-math.sin(yaw), math.cos(yaw)]) * 0.048
    return [_Rect(x + s * side[0], y + s * side[1], yaw, 0.016, 0.012) for s in (-1, 1)]


def _hand_rect(x: float, y: float, yaw: float) -> _Rect:
    """Where the hand is above its fingers: low enough to hit the upper block of a stack."""
    return _Rect(x, y, yaw, 0.032, 0.097)


def extents(yaw: float) -> tuple[float, float]:
    """Half the length (m) of a block along x and along y when it lies with this yaw."""
    c, s = abs(math.cos(yaw)), abs(math.sin(yaw))
    hx, hy = BLOCK_HALF[:2]
    return hx * c + hy * s, hx * s + hy * c


def _is_free(places: list[_Rect], state: WorldState, *without: str) -> bool:
    """Whether nothing on the table (other than the blocks ``without``) is in these places."""
    obstacles = [
        _block_rect(b.x, b.y, b.yaw)
        for c, b in state.blocks.items()
        if c not in without and support(c, state) in ("table", "stack")
    ]
    obstacles.append(_CABINET)
    return not any(_overlap(place, other) for place in places for other in obstacles)


def _is_hand_free(places: list[_Rect], state: WorldState) -> bool:
    """Whether a hand that reaches down to the table there hits no stack."""
    stacks = [
        _block_rect(b.x, b.y, b.yaw)
        for c, b in state.blocks.items()
        if support(c, state) == "stack"
    ]
    return not any(_overlap(place, stack) for place in places for stack in stacks)


# --- what can be grasped, and where a block can go


def is_loose(colour: str, state: WorldState) -> bool:
    """Whether a block is part of no stack."""
    below = {carrier(c, state) for c in COLOURS}
    return not carrier(colour, state) and colour not in below


def can_grasp(colour: str, state: WorldState) -> bool:
    """Whether the fingers fit around a loose block, wherever it lies."""
    block, where = state.blocks[colour], support(colour, state)
    if not is_loose(colour, state) or not where:
        return False
    if where == "table":
        at = block.x, block.y, block.yaw
        return _is_free(_finger_rects(*at), state, colour) and _is_hand_free(
            [_hand_rect(*at)], state
        )
    if where == "slider":
        return free_of_door(block.y, state.door)
    return block.x - extents(block.yaw)[0] >= EDGE_X + 0.002


def free_of_door(y: float, door: float) -> bool:
    """Whether the hand can reach the cabinet's floor at ``y``."""
    gaps = (cabinet_gap(door, side) for side in (-1, 1))
    return any(low - 0.004 <= y <= high + 0.004 for low, high in gaps)


def slider_places(state: WorldState) -> list[tuple[float, float]]:
    """Ranges of y (m) in the cabinet in which a block can be put down."""
    inside = [b.y for c, b in state.blocks.items() if support(c, state) == "slider"]
    gaps = (cabinet_gap(state.door, side) for side in (-1, 1))
    return [(a, b) for a, b in gaps if a <= b and not any(a - 0.10 < y < b + 0.10 for y in inside)]


def drawer_places(state: WorldState) -> list[float]:
    """The y (m) of the free slots of the drawer; none unless it is open far enough."""
    if state.drawer < _DRAWER_OPEN:
        return []
    inside = [b.y for c, b in state.blocks.items() if support(c, state) == "drawer"]
    slots = (-DRAWER_SLOT_Y, DRAWER_SLOT_Y)
    return [slot for slot in slots if all(abs(slot - y) > 0.08 for y in inside)]


def table_places(colour: str, yaw: float, state: WorldState) -> list[tuple[float, float]]:
    """Free places (x, y) on the table for a block with this yaw, on a grid, away from its own."""
    own = state.blocks[colour]
    out = []
    for x in np.linspace(*BLOCK_X, 4):
        for y in np.linspace(*BLOCK_Y, 14):
            spot = float(x), float(y)
            if math.hypot(x - own.x, y - own.y) < UNSTACK_DISTANCE:
                continue
            if _is_free([_block_rect(*spot, yaw), *_finger_rects(*spot, yaw)], state, colour):
                out.append(spot)
    return out


# --- the ways of the colour-free tasks


def placing_ways(task: Task, state: WorldState) -> list[str]:
    """Colours of the blocks that ``place_in_*`` can take."""
    places = drawer_places(state) if task.place == "drawer" else slider_places(state)
    if not places:
        return []
    return [c for c in COLOURS if support(c, state) != task.place and can_grasp(c, state)]


def stacking_ways(state: WorldState) -> list[tuple[str, str]]:
    """(block, block to put it on): any that can be grasped on any that nothing lies on, on the
    table; where there is a stack already, on its top."""
    loaded = {carrier(c, state) for c in COLOURS}
    tops = [c for c in COLOURS if support(c, state) == "stack" and c not in loaded]
    goals = tops or [c for c in COLOURS if support(c, state) == "table" and c not in loaded]
    return [(a, b) for a in COLOURS for b in goals if a != b and can_grasp(a, state)]


def unstacking_ways(state: WorldState) -> list[str]:
    """Colours of the blocks on top of a stack for which there is room on the table."""
    loaded = {carrier(c, state) for c in COLOURS}
    return [
        c
        for c in COLOURS
        if support(c, state) == "stack"
        and c not in loaded
        and table_places(c, state.blocks[c].yaw, state)
    ]


def push_off_ways(state: WorldState) -> list[str]:
    """Colours of the blocks that can be pushed off the table's edge into the empty drawer."""
    empty = all(support(c, state) != "drawer" for c in COLOURS)
    if not empty or state.drawer < _DRAWER_OPEN:
        return []
    return [c for c in COLOURS if is_loose(c, state) and _can_push_off(c, state)]


def _can_push_off(colour: str, state: WorldState) -> bool:
    block = state.blocks[colour]
    along_x, along_y = extents(block.yaw)
    behind = block.x - along_x - PUSH_OFF_STANDOFF
    if support(colour, state) != "table" or behind - 0.013 < _CABINET_FRONT:
        return False
    if abs(block.y) + along_y > DRAWER_HALF_Y - 0.010:
        return False
    ahead = (block.x + EDGE_X) / 2
    sweep = _Rect(ahead, block.y, 0.0, EDGE_X - ahead + along_x, along_y + _MARGIN)
    hand = _hand_rect((behind + EDGE_X) / 2, block.y, 0.0)
    hand = replace(hand, half_x=hand.half_x + (EDGE_X - behind) / 2)
    landing = _Rect(behind, block.y, 0.0, 0.012, 0.045)
    return _is_free([sweep, landing], state, colour) and _is_hand_free([hand], state)


# --- tasks


def push_reach(task: Task, state: WorldState) -> float:
    """How far (m) a block can be pushed left or right with nothing in its way; 0.0 if less than
    ``PUSH_RANGE`` asks for."""
    block = state.blocks[task.colour]
    sign = -1.0 if task.direction == "left" else 1.0
    x, y = block.x, block.y
    along_x, along_y = extents(block.yaw)
    landing = _Rect(x, y - sign * (along_y + 0.030), 0.0, 0.016, 0.026)
    for length in np.linspace(*PUSH_RANGE[::-1], 6):
        sweep = _Rect(x, y + sign * (length + 0.02) / 2, 0.0, along_x, along_y + length / 2 + 0.01)
        hand = _hand_rect(x, y - sign * (along_y + 0.030 - length / 2), 0.0)
        hand = replace(hand, half_y=hand.half_y + length / 2)
        free = _is_free([sweep, landing], state, task.colour) and _is_hand_free([hand], state)
        if free and sign * y + length <= PUSH_LIMIT:
            return float(length)
    return 0.0


def _can_turn(task: Task, state: WorldState) -> bool:
    """Whether there is room to grasp a block, turn it and put it down, by any amount drawn."""
    block = state.blocks[task.colour]
    sign = -1.0 if task.direction == "left" else 1.0
    yaws = [block.yaw, *(block.yaw - sign * a for a in np.linspace(*ROTATE_RANGE, 3))]
    fingers = [rect for yaw in yaws for rect in _finger_rects(block.x, block.y, yaw)]
    turned = [_block_rect(block.x, block.y, yaw) for yaw in yaws[1:]]
    hands = [_hand_rect(block.x, block.y, yaw) for yaw in yaws]
    return _is_free(fingers + turned, state, task.colour) and _is_hand_free(hands, state)


def is_feasible(task: Task, state: WorldState) -> bool:
    """Whether the oracle's threshold can be reached from ``state`` with a clear path."""
    if task.object == "drawer":
        rest = DRAWER_STROKE - state.drawer if task.verb == "open" else state.drawer
        return rest >= MOVED_BAND[1]
    sign = -1.0 if task.direction == "left" else 1.0
    if task.object == "slider":
        return DOOR_REACH - sign * state.door >= MOVED_BAND[1]
    if task.object == "led":
        return state.led != (task.verb == "turn_on")
    if task.object == "lightbulb":
        return (state.switch > 0) != (task.verb == "turn_on")
    if task.name == "push_into_drawer":
        return bool(push_off_ways(state))
    if task.category == "placing":
        if task.place:
            return bool(placing_ways(task, state))
        return bool(stacking_ways(state) if task.verb == "stack" else unstacking_ways(state))
    if task.verb == "lift":
        return support(task.colour, state) == task.place and can_grasp(task.colour, state)
    if support(task.colour, state) != "table" or not is_loose(task.colour, state):
        return False
    if task.verb == "push":
        return push_reach(task, state) > 0.0
    return _can_turn(task, state)


def feasible_tasks(state: WorldState) -> tuple[str, ...]:
    """Names of the tasks that are feasible from ``state``, in table order."""
    return tuple(name for name, task in TASKS.items() if is_feasible(task, state))
