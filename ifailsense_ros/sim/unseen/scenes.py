"""The scenes: where things stand, which coordinate a task changes, how a start is drawn.

Every scene holds opposite tasks: one wants its *coordinate* to grow, the other wants it to
shrink, and it starts between, so that both can be done. A start is drawn before any task, and from
the same law for both. Metres and radians; x and y as in Meta-World, whose robot looks along +y.
Needs numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_HAND = ((-0.12, 0.44, 0.22), (0.12, 0.54, 0.34))

_ACROSS = (0.57, 0.82, 0.0)  # to the right in the picture of a camera of azimuth 145 degrees
_ALONG_X = (1.0, 0.0, 0.0)
_ALONG_Y = (0.0, 1.0, 0.0)


@dataclass(frozen=True)
class View:
    """A camera that looks at a point: azimuth and elevation in degrees, distance in metres."""

    lookat: tuple[float, float, float] = (0.0, 0.70, 0.10)
    azimuth: float = 145.0
    elevation: float = -30.0
    distance: float = 0.85


@dataclass(frozen=True)
class SceneSpec:
    """One scene of Meta-World.

    Attributes:
        name: ours.
        xml: Meta-World's, without ``sawyer_`` and ``.xml``.
        category: task category of its tasks.
        fixture: body that is put somewhere in ``fixture_low`` .. ``fixture_high``; "" if none.
        joint: joint whose position is the coordinate: its name, or ``body:`` and the name of the
            body it moves where Meta-World left it nameless; "" where an object lies free.
        sign: the coordinate is ``sign`` times the joint's position.
        obj: body that lies free on the table, "" where there is a joint.
        axis: direction along which a free object's coordinate is measured.
        start: range of the coordinate at the start: of the joint, or of a free object relative to
            the fixture (to the table's middle without one), measured along ``axis``.
        beside: range of a free object's place at right angles to the axis.
        rest: what a free object's (x, y) is relative to; z it is put at.
        stiction: friction that keeps a joint where it is left (N or Nm).
        view: exocentric camera.
        hand: box the hand starts in (m).
    """

    name: str
    xml: str
    category: str
    fixture: str = ""
    fixture_low: tuple[float, float, float] = (0.0, 0.0, 0.0)
    fixture_high: tuple[float, float, float] = (0.0, 0.0, 0.0)
    joint: str = ""
    sign: float = 1.0
    obj: str = ""
    axis: tuple[float, float, float] = _ALONG_Y
    start: tuple[float, float] = (0.0, 0.0)
    beside: tuple[float, float] = (0.0, 0.0)
    rest: tuple[float, float, float] = (0.0, 0.0, 0.0)
    stiction: float = 0.0
    view: View = View()
    hand: tuple[tuple[float, float, float], tuple[float, float, float]] = _HAND

    @property
    def free(self) -> bool:
        """Whether the thing that is moved lies free, on no joint."""
        return bool(self.obj)


@dataclass(frozen=True)
class SceneStart:
    """What is fixed before the arm moves.

    Attributes:
        scene: name of the scene.
        fixture: where its fixture stands (m).
        value: the coordinate (m or rad).
        position: where a free object lies (m); zeros where there is none.
        hand: where the hand starts (m).
        view: the camera, jittered.
    """

    scene: str
    fixture: tuple[float, float, float]
    value: float
    position: tuple[float, float, float]
    hand: tuple[float, float, float]
    view: View


_SPECS = (
    SceneSpec(
        "drawer",
        "drawer",
        "opening_closing",
        fixture="drawer",
        fixture_low=(-0.1, 0.9, 0.0),
        fixture_high=(0.1, 0.9, 0.0),
        joint="goal_slidey",
        sign=-1.0,
        start=(0.055, 0.105),
        stiction=1.0,
        view=View(lookat=(0.0, 0.72, 0.08), distance=0.75),
    ),
    SceneSpec(
        "door",
        "door_pull",
        "opening_closing",
        fixture="door",
        fixture_low=(0.0, 0.85, 0.15),
        fixture_high=(0.1, 0.95, 0.15),
        joint="doorjoint",
        sign=-1.0,
        start=(0.60, 0.95),
        stiction=0.3,
        view=View(lookat=(-0.05, 0.66, 0.12), azimuth=135.0, distance=1.0),
    ),
    SceneSpec(
        "window",
        "window_horizontal",
        "opening_closing",
        fixture="window",
        fixture_low=(-0.1, 0.75, 0.16),
        fixture_high=(0.0, 0.87, 0.16),
        joint="window_slide",
        start=(0.07, 0.13),
        view=View(lookat=(0.0, 0.76, 0.15), azimuth=120.0, distance=0.75),
    ),
    SceneSpec(
        "faucet",
        "faucet",
        "rotating",
        fixture="faucetBase",
        fixture_low=(-0.05, 0.8, 0.0),
        fixture_high=(0.05, 0.85, 0.0),
        joint="knob_Joint_1",
        start=(-0.25, 0.25),
        view=View(lookat=(0.0, 0.74, 0.10), azimuth=120.0, distance=0.60),
    ),
    SceneSpec(
        "lock",
        "door_lock",
        "rotating",
        fixture="door",
        fixture_low=(-0.1, 0.8, 0.15),
        fixture_high=(0.1, 0.85, 0.15),
        joint="body:lock_link",
        start=(0.6, 0.95),
        view=View(lookat=(0.0, 0.73, 0.17), azimuth=135.0, distance=0.70),
    ),
    SceneSpec(
        "handle",
        "handle_press",
        "pushing",
        fixture="box",
        fixture_low=(-0.1, 0.8, 0.0),
        fixture_high=(0.1, 0.9, 0.0),
        joint="body:handle_link",
        start=(-0.06, -0.04),
        stiction=2.0,
        view=View(lookat=(0.0, 0.71, 0.10), distance=0.62),
    ),
    SceneSpec(
        "handle_side",
        "handle_press_sideways",
        "pushing",
        fixture="box",
        fixture_low=(-0.35, 0.65, 0.0),
        fixture_high=(-0.25, 0.75, 0.0),
        joint="body:handle_link",
        start=(-0.06, -0.04),
        stiction=2.0,
        view=View(lookat=(-0.13, 0.67, 0.10), azimuth=150.0, distance=0.68),
        hand=((0.02, 0.44, 0.22), (0.16, 0.54, 0.34)),
    ),
    SceneSpec(
        "goal",
        "plate_slide",
        "pushing",
        fixture="puck_goal",
        fixture_low=(-0.05, 0.86, 0.0),
        fixture_high=(0.05, 0.9, 0.0),
        joint="goal_slidey",
        start=(0.09, 0.13),
        stiction=0.2,
        view=View(lookat=(0.0, 0.74, 0.05), distance=0.68),
    ),
    SceneSpec(
        "coffee",
        "coffee",
        "placing",
        fixture="coffee_machine",
        fixture_low=(-0.05, 0.93, 0.0),
        fixture_high=(0.05, 0.97, 0.0),
        obj="obj",
        start=(-0.32, -0.29),
        beside=(-0.04, 0.04),
        view=View(lookat=(0.0, 0.73, 0.12), distance=0.75),
    ),
    SceneSpec(
        "cylinder",
        "push_v3",
        "pushing",
        obj="obj",
        axis=_ACROSS,
        start=(-0.05, 0.05),
        beside=(-0.06, 0.06),
        rest=(0.0, 0.62, 0.02),
        view=View(lookat=(0.0, 0.63, 0.05), distance=0.60),
    ),
    SceneSpec(
        "bins",
        "bin_picking",
        "placing",
        obj="obj",
        axis=_ALONG_X,
        start=(-0.06, 0.06),
        beside=(-0.02, 0.02),
        rest=(0.0, 0.53, 0.02),
        view=View(lookat=(0.0, 0.66, 0.05), distance=0.65),
    ),
)

SCENES: dict[str, SceneSpec] = {spec.name: spec for spec in _SPECS}


def place_of(spec: SceneSpec, fixture: np.ndarray, along: float, beside: float) -> np.ndarray:
    """Where a free object with these coordinates lies (m), shape (3,)."""
    ahead = np.array(spec.axis)
    aside = np.array([ahead[1], -ahead[0], 0.0])
    return fixture * [1.0, 1.0, 0.0] + spec.rest + along * ahead + beside * aside


def draw_start(spec: SceneSpec, rng: np.random.Generator) -> SceneStart:
    """A start of a scene, before anything is known of the task."""
    fixture = rng.uniform(spec.fixture_low, spec.fixture_high)
    value = float(rng.uniform(*spec.start))
    beside = float(rng.uniform(*spec.beside))
    hand = rng.uniform(*spec.hand)
    view = spec.view
    jittered = View(
        lookat=tuple(float(c) for c in np.array(view.lookat) + rng.uniform(-0.015, 0.015, 3)),
        azimuth=view.azimuth + float(rng.uniform(-2.0, 2.0)),
        elevation=view.elevation + float(rng.uniform(-2.0, 2.0)),
        distance=view.distance * float(rng.uniform(0.97, 1.03)),
    )
    position = place_of(spec, fixture, value, beside) if spec.free else np.zeros(3)
    return SceneStart(
        scene=spec.name,
        fixture=tuple(float(c) for c in fixture),
        value=value,
        position=tuple(float(c) for c in position),
        hand=tuple(float(c) for c in hand),
        view=jittered,
    )
