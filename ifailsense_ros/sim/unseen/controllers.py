"""What moves the hand towards a task, one action a control step: Meta-World's policies and ours.

A controller is called with nothing and answers with the hand's way (units of `arm.REACH`, each
clipped to 1) and the grip, -1 open .. 1 closed: float64 (4,). It never says whether it is done;
the oracle does.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .arm import Arm
from .scenes import SceneStart
from .tasks import BINS, Task

Controller = Callable[[], np.ndarray]

_GAIN = 20.0  # of our own controllers: full speed until 5 cm before the target
_OPEN, _CLOSED = -1.0, 1.0


@dataclass(frozen=True)
class Scripted:
    """One of Meta-World's scripted policies, told what it looks for in our scene.

    Attributes:
        policy: as in ``sawyer_drawer_open_v3_policy``.
        sees: what it takes for the object's position (m).
        goal: what it takes for the goal (m).
    """

    policy: str
    sees: Callable[[Arm], np.ndarray]
    goal: Callable[[SceneStart], np.ndarray] | None = None

    def __call__(self, arm: Arm, task: Task, start: SceneStart) -> Controller:
        module = importlib.import_module(f"metaworld.policies.sawyer_{self.policy}_v3_policy")
        (kind,) = (made for name, made in vars(module).items() if name.endswith("V3Policy"))
        policy = kind()

        def control() -> np.ndarray:
            seen = np.zeros(39)  # laid out as Meta-World's, as far as its policies look
            seen[:3] = arm.hand
            seen[3] = arm.opening
            seen[4:7] = self.sees(arm)
            if self.goal is not None:
                seen[-3:] = self.goal(start)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns of every action that will be clipped
                return np.asarray(policy.get_action(seen), dtype=float)

        return control


def _towards(arm: Arm, place: np.ndarray, grip: float) -> np.ndarray:
    return np.array([*(_GAIN * (place - arm.hand)), grip])


class Carry:
    """Grasp the scene's free object from above, carry it to a goal, set it down, let go.

    Args:
        goal: where to (m), of which x and y count.
        grasp: height of the hand above the object's origin when it grasps (m).
        carry: height of the hand on the way (m).
        down: height of the hand when it lets go (m).
    """

    _HOVER = 0.14
    _CLOSING_STEPS = 16

    def __init__(self, arm: Arm, goal: np.ndarray, grasp: float, carry: float, down: float) -> None:
        self._arm, self._goal = arm, np.array(goal[:2])
        self._grasp, self._carry, self._down = grasp, carry, down
        self._closing = 0
        self._lifted = self._arrived = False

    def __call__(self) -> np.ndarray:
        arm = self._arm
        hand, thing = arm.hand, arm.data.body(arm.spec.obj).xpos
        if self._closing < self._CLOSING_STEPS:
            return self._reach(hand, thing)
        self._lifted = self._lifted or hand[2] > self._carry - 0.01
        self._arrived = self._arrived or np.linalg.norm(hand[:2] - self._goal) < 0.015
        if not self._lifted:
            return _towards(arm, np.array([*hand[:2], self._carry + 0.01]), _CLOSED)
        if not self._arrived:
            return _towards(arm, np.array([*self._goal, self._carry]), _CLOSED)
        grip = _OPEN if hand[2] < self._down + 0.008 else _CLOSED
        return _towards(arm, np.array([*self._goal, self._down]), grip)

    def _reach(self, hand: np.ndarray, thing: np.ndarray) -> np.ndarray:
        if not self._closing and np.linalg.norm((hand - thing)[:2]) > 0.012:
            # First over it, then down: a hand that comes in aslant knocks it over.
            high = max(thing[2] + self._grasp + self._HOVER, hand[2] - 0.05)
            return _towards(self._arm, np.array([*thing[:2], high]), _OPEN)
        place = np.array([*thing[:2], thing[2] + self._grasp])
        if self._closing or abs(hand[2] - place[2]) < 0.012:
            self._closing += 1
            return _towards(self._arm, place, _CLOSED)
        return _towards(self._arm, place, _OPEN)


class Push:
    """Land behind the scene's free object with closed fingers and push it along a line.

    Args:
        way: where the object shall be brought to, from where it lies (m).
        height: of the hand while it pushes (m).
    """

    _BEHIND = 0.06
    _HOVER = 0.12

    def __init__(self, arm: Arm, start: np.ndarray, way: np.ndarray, height: float) -> None:
        self._arm, self._height = arm, height
        self._ahead = way[:2] / np.linalg.norm(way[:2])
        self._landing = start[:2] - self._BEHIND * self._ahead
        self._goal = start[:2] + way[:2]
        self._stage = 0

    def __call__(self) -> np.ndarray:
        hand = self._arm.hand
        if self._stage == 0 and np.linalg.norm(hand[:2] - self._landing) < 0.012:
            self._stage = 1
        if self._stage == 1 and hand[2] < self._height + 0.012:
            self._stage = 2
        place, high = self._landing, self._height
        if self._stage == 0:
            high += self._HOVER
        if self._stage == 2:
            thing = self._arm.data.body(self._arm.spec.obj).xpos[:2]
            # Behind the object as seen from the goal: a push off its middle turns it back.
            rest = self._goal - thing
            ahead = rest / max(float(np.linalg.norm(rest)), 1e-6)
            place = thing + 0.05 * ahead if rest @ self._ahead > 0 else hand[:2]
        return _towards(self._arm, np.array([*place, high]), _CLOSED)


class SwingDoor:
    """Go over the safe's door, down on one side of it, and swing it open or shut from there."""

    _HINGE = np.array([-0.185, -0.1])  # from the fixture
    _RADIUS = 0.24  # from the hinge, where the hand pushes
    _HIGH, _LOW = 0.43, 0.20
    _BESIDE = 0.075  # from the door's middle plane, before it is touched
    _AHEAD = 0.30  # rad that the target runs ahead

    def __init__(self, arm: Arm, start: SceneStart, opens: bool) -> None:
        self._arm = arm
        self._hinge = np.array(start.fixture[:2]) + self._HINGE
        self._sign = 1.0 if opens else -1.0
        self._stage = 0

    def _beside(self, angle: float, off: float) -> np.ndarray:
        out = np.array([np.cos(angle), -np.sin(angle)])
        swing = np.array([-np.sin(angle), -np.cos(angle)])  # the way the door opens
        return self._hinge + self._RADIUS * out - self._sign * off * swing

    def __call__(self) -> np.ndarray:
        arm = self._arm
        hand, angle = arm.hand, arm.state().value
        place = self._beside(angle, self._BESIDE)
        if self._stage == 0 and hand[2] > self._HIGH - 0.03:
            self._stage = 1
        if self._stage == 1 and np.linalg.norm(hand[:2] - place) < 0.02:
            self._stage = 2
        if self._stage == 2 and hand[2] < self._LOW + 0.02:
            self._stage = 3
        if self._stage == 0:
            return _towards(arm, np.array([*hand[:2], self._HIGH]), _CLOSED)
        if self._stage == 1:
            return _towards(arm, np.array([*place, self._HIGH]), _CLOSED)
        if self._stage == 3:
            place = self._beside(angle + self._sign * self._AHEAD, 0.0)
        return _towards(arm, np.array([*place, self._LOW]), _CLOSED)


def carry_away(way: float, **heights: float) -> Callable[[Arm, Task, SceneStart], Controller]:
    """A `Carry` that moves the object by ``way`` (m) along the scene's axis."""

    def made(arm: Arm, task: Task, start: SceneStart) -> Controller:
        goal = np.array(start.position) + task.sign * way * np.array(task.spec.axis)
        return Carry(arm, goal, **heights)

    return made


def push_away(way: float, height: float) -> Callable[[Arm, Task, SceneStart], Controller]:
    """A `Push` that moves the object by ``way`` (m) along the scene's axis."""

    def made(arm: Arm, task: Task, start: SceneStart) -> Controller:
        ahead = task.sign * way * np.array(task.spec.axis)
        return Push(arm, np.array(start.position), ahead, height)

    return made


def carry_to_bin(**heights: float) -> Callable[[Arm, Task, SceneStart], Controller]:
    """A `Carry` that puts the object into the bin of the task's colour."""
    return lambda arm, task, start: Carry(arm, np.array(BINS[task.colour]), **heights)


def swing(opens: bool) -> Callable[[Arm, Task, SceneStart], Controller]:
    """A `SwingDoor`."""
    return lambda arm, task, start: SwingDoor(arm, start, opens)
