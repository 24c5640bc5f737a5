"""What one scene looks like before anybody acts: look, block poses, drawer, door, arm posture.

Everything here is drawn before the task is (DESIGN section 9, rule 1), so that the first picture
says nothing about which task will be performed. Lengths in metres, angles in radians, world frame:
x away from the robot's base towards the exocentric camera, y to the right of its picture, z up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

COLOURS = ("red", "blue", "pink")

# Blocks: 100 x 44 x 44 mm.
BLOCK_HALF = (0.050, 0.022, 0.022)
BLOCK_X = (0.430, 0.575)
BLOCK_Y = (-0.105, 0.105)
BLOCK_GAP = 0.100  # least distance between two centres

# Drawer: 0 is closed, DRAWER_STROKE is open. Door: -DOOR_REACH is left, +DOOR_REACH is right.
DRAWER_STROKE = 0.14
DRAWER_START = (0.055, 0.085)
DOOR_REACH = 0.09
DOOR_START = (-0.025, 0.025)

# Box from which the hand's posture is drawn, both at the start and for the retreat at the end:
# the hand is then at the picture's upper rim and hides nothing that matters.
HOME_LOW = (0.30, -0.06, 0.31)
HOME_HIGH = (0.36, 0.06, 0.36)
HOME_YAW = 0.25

# Exocentric camera, opposite the robot.
CAMERA_POSITION = (1.04, 0.0, 0.68)
CAMERA_TARGET = (0.465, 0.0, 0.02)
CAMERA_FOV = 41.0

_COLOURS_OF_THINGS = {
    "table": (0.86, 0.80, 0.70),
    "floor": (0.45, 0.47, 0.50),
    "cabinet": (0.50, 0.51, 0.54),
    "slot": (0.10, 0.10, 0.12),
    "door": (0.96, 0.72, 0.10),
    "unit": (0.55, 0.47, 0.40),
    "drawer": (0.14, 0.68, 0.36),
}


@dataclass(frozen=True)
class Look:
    """Colours (RGB in 0..1), light and camera of one scene."""

    colours: dict[str, tuple[float, float, float]]
    light_position: tuple[float, float, float]
    light_diffuse: float
    ambient: float
    camera_position: tuple[float, float, float]
    camera_target: tuple[float, float, float]
    camera_fov: float
    distractor: tuple[float, float, float] | None  # x, y, grey level


@dataclass(frozen=True)
class HomePose:
    """A posture of the hand: position of the tool centre point and yaw, fingers down."""

    position: tuple[float, float, float]
    yaw: float


@dataclass(frozen=True)
class Scene:
    """A start state: everything that is fixed before a task is chosen."""

    look: Look
    blocks: dict[str, tuple[float, float, float]]  # colour -> x, y, yaw
    drawer: float
    door: float
    home: HomePose


def draw_home(rng: np.random.Generator) -> HomePose:
    """One posture of the hand, by the same law for every task, at the start and at the end."""
    position = rng.uniform(HOME_LOW, HOME_HIGH)
    return HomePose(tuple(position.tolist()), float(rng.uniform(-HOME_YAW, HOME_YAW)))


def draw_look(rng: np.random.Generator, level: int = 1) -> Look:
    """The look of a scene.

    Args:
        rng: source of randomness.
        level: 0 gives the one fixed look; 1 a mild jitter of colours, light and camera
            (position +-1.5 cm, field of view +-1 degree) and at most one far object.

    Raises:
        ValueError: for another level.
    """
    if level not in (0, 1):
        raise ValueError(f"look level must be 0 or 1, not {level!r}")
    amount = float(level)
    colours = {}
    for name, base in _COLOURS_OF_THINGS.items():
        brightness = rng.uniform(-0.05, 0.05)
        tint = rng.uniform(-0.03, 0.03, 3)
        colour = np.clip(np.array(base) + amount * (brightness + tint), 0.0, 1.0)
        colours[name] = tuple(colour.tolist())
    light = np.array([0.9, -0.3, 1.9]) + amount * rng.uniform(-0.35, 0.35, 3)
    camera = np.array(CAMERA_POSITION) + amount * rng.uniform(-0.015, 0.015, 3)
    has_distractor = bool(rng.integers(2)) and level > 0
    spot = (float(rng.uniform(0.16, 0.24)), float(rng.uniform(0.22, 0.30)))
    grey = float(rng.uniform(0.25, 0.7))
    return Look(
        colours=colours,
        light_position=tuple(light.tolist()),
        light_diffuse=0.45 + amount * float(rng.uniform(-0.08, 0.08)),
        ambient=0.40 + amount * float(rng.uniform(-0.05, 0.05)),
        camera_position=tuple(camera.tolist()),
        camera_target=CAMERA_TARGET,
        camera_fov=CAMERA_FOV + amount * float(rng.uniform(-1.0, 1.0)),
        distractor=(*spot, grey) if has_distractor else None,
    )


def draw_scene(rng: np.random.Generator, level: int = 1) -> Scene:
    """One start state, drawn without regard to any task."""
    look = draw_look(rng, level)
    while True:
        x = rng.uniform(*BLOCK_X, len(COLOURS))
        y = rng.uniform(*BLOCK_Y, len(COLOURS))
        gaps = [
            math.hypot(x[i] - x[j], y[i] - y[j])
            for i in range(len(COLOURS))
            for j in range(i + 1, len(COLOURS))
        ]
        if min(gaps) >= BLOCK_GAP:
            break
    yaw = rng.uniform(-math.pi, math.pi, len(COLOURS))
    blocks = {c: (float(x[i]), float(y[i]), float(yaw[i])) for i, c in enumerate(COLOURS)}
    return Scene(
        look=look,
        blocks=blocks,
        drawer=float(rng.uniform(*DRAWER_START)),
        door=float(rng.uniform(*DOOR_START)),
        home=draw_home(rng),
    )
