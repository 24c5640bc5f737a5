"""The tasks of the unseen world and their three-valued oracle, as the desk's: on states, with dead
bands. Needs numpy only.

Left and right are those of the exocentric picture, as on the desk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..oracle import Outcome
from .scenes import SCENES, SceneSpec

UPRIGHT = 0.95  # cosine of a free object's tilt below which having moved it is disputed
ON_TABLE = 0.03  # a free object that ends higher than this above its start still hangs somewhere
BIN_HALF = (0.075, 0.065)  # half of a bin's inside (m): a centre within it is in the bin
BIN_RIM = 0.10  # half of the square outside which a cube is not in a bin
BINS = {"red": (-0.12, 0.70), "blue": (0.12, 0.70)}

ATTRIBUTES = ("verb", "object", "colour", "direction")


@dataclass(frozen=True)
class Task:
    """One thing that can be asked for.

    Attributes:
        name: unique in this world.
        scene: the scene it is done in.
        family: key of its phrasings.
        verb, object, colour, direction: attributes, "" where there is none.
        sign: whether it wants the scene's coordinate to grow (+1) or to shrink (-1).
        moved: the oracle's band on how far it moved (m or rad): FALSE at or below the first, TRUE
            from the second on.
        end: coordinate it must come within ``slack`` of to be TRUE; None where the way is all.
    """

    name: str
    scene: str
    family: str
    verb: str
    object: str
    sign: float
    moved: tuple[float, float]
    colour: str = ""
    direction: str = ""
    end: float | None = None
    slack: float = 0.0

    @property
    def category(self) -> str:
        """The scene's: a pair of tasks is always of one category."""
        return SCENES[self.scene].category

    @property
    def spec(self) -> SceneSpec:
        """Its scene."""
        return SCENES[self.scene]


@dataclass(frozen=True)
class State:
    """What the oracle looks at.

    Attributes:
        value: the scene's coordinate (m or rad).
        position: of the free object (m), zeros where there is none.
        upright: cosine of the free object's tilt.
    """

    value: float
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    upright: float = 1.0


def _family(verb: str, thing: str, direction: str) -> str:
    """Left and right are slots of a sentence, other directions have sentences of their own."""
    slot = direction in ("", "left", "right")
    return f"{verb}_{thing}" if slot else f"{verb}_{thing}_{direction}"


def _pair(
    scene: str,
    thing: str,
    up: tuple[str, str],
    down: tuple[str, str],
    moved: tuple[float, float],
    ends: tuple[float, float] | None = None,
    slack: float = 0.0,
) -> list[Task]:
    """Two opposite tasks named by verb and direction, the one that grows the coordinate first."""
    tasks = []
    for (verb, direction), sign in ((up, 1.0), (down, -1.0)):
        name = "_".join(part for part in (verb, thing, direction) if part)
        tasks.append(
            Task(
                name=name if scene != "handle_side" else f"{name}_sideways",
                scene=scene,
                family=_family(verb, thing, direction),
                verb=verb,
                object=thing,
                sign=sign,
                moved=moved,
                direction=direction,
                end=None if ends is None else ends[0 if sign > 0 else 1],
                slack=slack,
            )
        )
    return tasks


def _all_tasks() -> dict[str, Task]:
    degrees = math.radians
    slide = (0.015, 0.030)
    press = (("pull", "up"), ("press", "down"), (0.01, 0.02))
    tasks = [
        *_pair("drawer", "drawer", ("open", ""), ("close", ""), slide, (0.16, 0.0), 0.02),
        *_pair("door", "safe", ("open", ""), ("close", ""), (0.10, 0.30), (1.45, 0.0), 0.15),
        *_pair("window", "window", ("open", ""), ("close", ""), slide, (0.2, 0.0), 0.03),
        *_pair("faucet", "faucet", ("turn", "right"), ("turn", "left"), (degrees(10), degrees(50))),
        *_pair("lock", "lock", ("turn", "down"), ("turn", "up"), (0.1, 0.3), (1.57, 0.0), 0.2),
        *_pair("handle", "handle", *press, (0.0, -0.1), 0.015),
        *_pair("handle_side", "handle", *press, (0.0, -0.1), 0.015),
        *_pair("goal", "puck", ("slide", "in"), ("slide", "out"), (0.02, 0.05), (0.28, 0.0), 0.06),
        *_pair("coffee", "mug", ("move", "to"), ("move", "away"), (0.025, 0.06)),
        *_pair("cylinder", "cylinder", ("push", "right"), ("push", "left"), (0.03, 0.07)),
    ]
    tasks += [
        Task(
            name=f"place_cube_{colour}_bin",
            scene="bins",
            family="place_cube",
            verb="place",
            object="cube",
            sign=sign,
            moved=(0.0, 0.0),
            colour=colour,
        )
        for colour, sign in (("blue", 1.0), ("red", -1.0))
    ]
    return {task.name: task for task in tasks}


TASKS: dict[str, Task] = _all_tasks()

PAIRS: dict[str, tuple[Task, Task]] = {
    scene: tuple(t for t in TASKS.values() if t.scene == scene) for scene in SCENES
}
"""Scene -> its two opposite tasks."""


def contrast(a: Task, b: Task) -> tuple[str, ...]:
    """The attributes in which two tasks differ, in the order of `ATTRIBUTES`."""
    return tuple(name for name in ATTRIBUTES if getattr(a, name) != getattr(b, name))


def _in_bin(task: Task, start: State, end: State) -> Outcome:
    centre = BINS[task.colour]
    off = np.abs(np.array(end.position[:2]) - centre)
    lifted = end.position[2] - start.position[2] > ON_TABLE
    if not lifted and off[0] <= BIN_HALF[0] and off[1] <= BIN_HALF[1]:
        return Outcome.TRUE
    return Outcome.FALSE if max(off) >= BIN_RIM else Outcome.DISPUTED


def judge(task: Task, start: State, end: State) -> Outcome:
    """Whether ``task`` came true between two states of its scene; DISPUTED in the dead bands."""
    if task.verb == "place":
        return _in_bin(task, start, end)
    way = task.sign * (end.value - start.value)
    if way <= task.moved[0]:
        return Outcome.FALSE
    there = task.end is None or task.sign * (task.end - end.value) <= task.slack
    settled = not task.spec.free or (
        end.upright >= UPRIGHT and abs(end.position[2] - start.position[2]) <= ON_TABLE
    )
    if way >= task.moved[1] and there and settled:
        return Outcome.TRUE
    return Outcome.DISPUTED


def judge_scene(scene: str, start: State, end: State) -> dict[str, Outcome]:
    """The oracle's word on both tasks of a scene, by name."""
    return {task.name: judge(task, start, end) for task in PAIRS[scene]}
