"""How a scene looks: colours, light, camera, things that do not matter, in three named levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Exocentric camera, opposite the robot.
CAMERA_POSITION = (1.075, 0.0, 0.665)
CAMERA_TARGET = (0.510, 0.0, 0.0)
CAMERA_FOV = 40.0

LEVELS = ("fixed", "mild", "strong")
TABLE_TEXTURES = ("plain", "checker", "shaded", "grain")
DISTRACTORS = 2
DISTRACTOR_SHAPES = ("cylinder", "box", "ball")

COLOURS_OF_THINGS = {
    "table": (0.86, 0.80, 0.70),
    "floor": (0.45, 0.47, 0.50),
    "cabinet": (0.50, 0.51, 0.54),
    "slot": (0.10, 0.10, 0.12),
    "door": (0.96, 0.72, 0.10),
    "drawer": (0.10, 0.58, 0.55),
    "panel": (0.30, 0.30, 0.34),
}
# Of how much the strong level changes a thing's colour; what must be told apart changes less.
_STRONG_TINT = {"table": 0.22, "floor": 0.30, "cabinet": 0.15, "slot": 0.05}
_STRONG_TINT_OTHERS = 0.09


@dataclass(frozen=True)
class Distractor:
    """A thing of no use at the table's rim: shape, x, y (m) and colour (RGB in 0..1)."""

    shape: str
    x: float
    y: float
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """Colours (RGB in 0..1), light and camera of one scene."""

    colours: dict[str, tuple[float, float, float]]
    table_texture: str
    light_position: tuple[float, float, float]
    light_diffuse: float
    ambient: float
    camera_position: tuple[float, float, float]
    camera_target: tuple[float, float, float]
    camera_fov: float
    distractors: tuple[Distractor, ...]


def level_name(level: str | int) -> str:
    """The name of a look level given by name or by its number 0..2.

    Raises:
        ValueError: for anything else.
    """
    text = str(level)
    if text in LEVELS:
        return text
    if text.isdigit() and int(text) < len(LEVELS):
        return LEVELS[int(text)]
    raise ValueError(f"look level must be one of {', '.join(LEVELS)} (or 0, 1, 2), not {level!r}")


def _colours(rng: np.random.Generator, level: str) -> dict[str, tuple[float, float, float]]:
    colours = {}
    for name, base in COLOURS_OF_THINGS.items():
        brightness = rng.uniform(-1.0, 1.0)
        tint = rng.uniform(-1.0, 1.0, 3)
        if level == "mild":
            change = 0.05 * brightness + 0.03 * tint
        elif level == "strong":
            amount = _STRONG_TINT.get(name, _STRONG_TINT_OTHERS)
            change = amount * (0.6 * brightness + 0.6 * tint)
        else:
            change = np.zeros(3)
        colours[name] = tuple(np.clip(np.array(base) + change, 0.0, 1.0).tolist())
    return colours


def _distractors(rng: np.random.Generator, level: str) -> tuple[Distractor, ...]:
    if level == "fixed":
        return ()
    most = 1 if level == "mild" else DISTRACTORS
    out = []
    for number in range(int(rng.integers(most + 1))):
        # Behind the cabinet, on either side of the robot's base, where nothing is hidden.
        y = (-0.19, 0.19)[number] + rng.uniform(-0.05, 0.05)
        shape, colour = "cylinder", tuple(np.repeat(rng.uniform(0.25, 0.7), 3).tolist())
        if level == "strong":
            shape = DISTRACTOR_SHAPES[int(rng.integers(len(DISTRACTOR_SHAPES)))]
            colour = tuple(rng.uniform(0.1, 0.9, 3).tolist())
        out.append(Distractor(shape, float(rng.uniform(0.14, 0.18)), float(y), colour))
    return tuple(out)


def draw_look(rng: np.random.Generator, level: str | int = "mild") -> Look:
    """The look of a scene.

    Args:
        rng: source of randomness.
        level: ``fixed`` (0) is one look; ``mild`` (1) jitters colours (up to 8 percent), light and
            camera (1.5 cm, field of view 1 degree) and may add one grey thing at the rim;
            ``strong`` (2) draws the table's colour and texture, colours, light and camera (4 cm, 2
            degrees) widely and adds up to two coloured things.

    Raises:
        ValueError: for another level.
    """
    level = level_name(level)
    strong = level == "strong"
    amount = {"fixed": 0.0, "mild": 1.0, "strong": 2.7}[level]
    light = np.array([0.9, -0.3, 1.9]) + amount * rng.uniform(-0.35, 0.35, 3)
    camera = np.array(CAMERA_POSITION) + amount * rng.uniform(-0.015, 0.015, 3)
    texture = TABLE_TEXTURES[int(rng.integers(len(TABLE_TEXTURES)))] if strong else "plain"
    return Look(
        colours=_colours(rng, level),
        table_texture=texture,
        light_position=tuple(light.tolist()),
        light_diffuse=0.45 + min(amount, 2.0) * float(rng.uniform(-0.08, 0.08)),
        ambient=0.40 + min(amount, 2.0) * float(rng.uniform(-0.05, 0.05)),
        camera_position=tuple(camera.tolist()),
        camera_target=CAMERA_TARGET,
        camera_fov=CAMERA_FOV + min(amount, 2.0) * float(rng.uniform(-1.0, 1.0)),
        distractors=_distractors(rng, level),
    )
