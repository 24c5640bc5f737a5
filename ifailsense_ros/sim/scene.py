"""What one scene is before anybody acts: look, where the blocks are, drawer, door, lamps, posture.

Everything here is drawn before the task is (DESIGN section 9, rule 1), by one law whatever the
task's category, so that the first picture says nothing about which task will be performed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .layout import (
    BLOCK_GAP,
    BLOCK_HALF,
    BLOCK_X,
    BLOCK_Y,
    CABINET_FLOOR,
    CABINET_HALF,
    CABINET_X,
    COLOURS,
    DOOR_HALF,
    DOOR_START,
    DRAWER_FLOOR,
    DRAWER_SLOT_Y,
    DRAWER_START,
    EDGE_X,
    SWITCH_REACH,
)
from .look import Look, draw_look

# Box from which the hand's posture is drawn, both at the start and for the retreat at the end:
# the hand is then at the picture's upper rim and hides nothing that matters.
HOME_LOW = (0.30, -0.06, 0.31)
HOME_HIGH = (0.36, 0.06, 0.36)
HOME_YAW = 0.25

STACK_SHARE = 0.35  # of the scenes in which one block lies on another
PLACES = ("table", "drawer", "slider")
_PLACE_SHARES = (0.50, 0.25, 0.25)
_MOST_IN_A_CONTAINER = 2
_CONTAINER_YAW = 0.05  # rad; a block in drawer or cabinet lies along x, to that spread
GAP_MARGIN = 0.060  # from a block's centre to the cabinet's end or the door's rim, along y


@dataclass(frozen=True)
class HomePose:
    """A posture of the hand: position of the tool centre point and yaw, fingers down."""

    position: tuple[float, float, float]
    yaw: float


@dataclass(frozen=True)
class Scene:
    """A start state: everything that is fixed before a task is chosen.

    Attributes:
        look: colours, light, camera.
        blocks: colour -> x, y, z of the centre (m), yaw (rad).
        drawer: opening (m).
        door: position (m), left is negative.
        switch: position of the lever (m), positive is on.
        led: whether the LED is on.
        home: the hand's posture.
    """

    look: Look
    blocks: dict[str, tuple[float, float, float, float]]
    drawer: float
    door: float
    switch: float
    led: bool
    home: HomePose


def draw_home(rng: np.random.Generator) -> HomePose:
    """One posture of the hand, by the same law for every task, at the start and at the end."""
    position = rng.uniform(HOME_LOW, HOME_HIGH)
    return HomePose(tuple(position.tolist()), float(rng.uniform(-HOME_YAW, HOME_YAW)))


def cabinet_gap(door: float, side: int) -> tuple[float, float]:
    """From where to where (y, m) a block's centre can lie beside the door; ``side`` is -1 (left) or
    +1. Empty (first greater than second) where the door leaves too little room."""
    end = side * (CABINET_HALF[1] - GAP_MARGIN)
    rim = door + side * (DOOR_HALF + GAP_MARGIN)
    return (end, rim) if side < 0 else (rim, end)


def drawer_middle(drawer: float) -> float:
    """x (m) of the middle of the part of the drawer that is not under the table."""
    return EDGE_X + drawer / 2


def _draw_places(rng: np.random.Generator, colours: list[str]) -> dict[str, str]:
    places: dict[str, str] = {}
    for colour in colours:
        place = PLACES[int(rng.choice(len(PLACES), p=_PLACE_SHARES))]
        crowded = list(places.values()).count(place) >= _MOST_IN_A_CONTAINER
        places[colour] = "table" if crowded and place != "table" else place
    return places


def _draw_table_spots(rng: np.random.Generator, count: int) -> np.ndarray:
    """``count`` positions on the table, (count, 2), far enough apart."""
    while True:
        spots = np.column_stack([rng.uniform(*BLOCK_X, count), rng.uniform(*BLOCK_Y, count)])
        gaps = [
            math.hypot(*(spots[i] - spots[j])) for i in range(count) for j in range(i + 1, count)
        ]
        if min(gaps, default=BLOCK_GAP) >= BLOCK_GAP:
            return spots


def _draw_container_yaw(rng: np.random.Generator) -> float:
    jitter = float(np.clip(rng.normal(0.0, _CONTAINER_YAW), -0.10, 0.10))
    return jitter + math.pi * int(rng.integers(2))


def _draw_blocks(
    rng: np.random.Generator, drawer: float, door: float
) -> dict[str, tuple[float, float, float, float]]:
    order = [COLOURS[i] for i in rng.permutation(len(COLOURS))]
    stacked = rng.random() < STACK_SHARE
    upper = order.pop() if stacked else None
    places = _draw_places(rng, order)
    if upper is not None:
        places[order[-1]] = "table"  # it carries the upper one
    members = {place: [c for c in order if places[c] == place] for place in PLACES}

    blocks: dict[str, tuple[float, float, float, float]] = {}
    spots = _draw_table_spots(rng, len(members["table"]))
    for colour, (x, y) in zip(members["table"], spots, strict=True):
        blocks[colour] = (float(x), float(y), BLOCK_HALF[2], rng.uniform(-math.pi, math.pi))
    first = 1 if rng.integers(2) else -1
    for colour, side in zip(members["drawer"], (first, -first), strict=False):
        slack = drawer / 2 - BLOCK_HALF[0] - 0.008
        x = drawer_middle(drawer) + rng.uniform(-slack, slack)
        y = side * DRAWER_SLOT_Y + rng.uniform(-0.004, 0.004)
        blocks[colour] = (x, y, DRAWER_FLOOR + BLOCK_HALF[2], _draw_container_yaw(rng))
    first = 1 if rng.integers(2) else -1
    for colour, side in zip(members["slider"], (first, -first), strict=False):
        x = CABINET_X + rng.uniform(-0.005, 0.005)
        y = rng.uniform(*cabinet_gap(door, side))
        blocks[colour] = (x, y, CABINET_FLOOR + BLOCK_HALF[2], _draw_container_yaw(rng))
    if upper is not None:
        x, y, z, yaw = blocks[order[-1]]
        x, y = (v + rng.uniform(-0.004, 0.004) for v in (x, y))
        yaw = yaw + rng.uniform(-0.08, 0.08) + math.pi * int(rng.integers(2))
        blocks[upper] = (x, y, z + 2 * BLOCK_HALF[2], yaw)
    return {c: tuple(float(v) for v in blocks[c]) for c in COLOURS}


def draw_scene(rng: np.random.Generator, level: str | int = "mild") -> Scene:
    """One start state, drawn without regard to any task; ``level`` as in `look.draw_look` (it
    changes the look and nothing else)."""
    look = draw_look(np.random.default_rng(int(rng.integers(2**63))), level)
    drawer, door = float(rng.uniform(*DRAWER_START)), float(rng.uniform(*DOOR_START))
    blocks = _draw_blocks(rng, drawer, door)
    switch = float((1 if rng.integers(2) else -1) * (SWITCH_REACH - rng.uniform(0.0, 0.003)))
    return Scene(look, blocks, drawer, door, switch, bool(rng.integers(2)), draw_home(rng))
