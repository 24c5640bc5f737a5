"""Who performs: a controller for each task, with pauses, speeds and a retreat drawn around it.

What was commanded is kept as a `Motion`, so that the same motion can be replayed, whole or
disturbed (`failures`). Whether a task is done is read from the state: no controller says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..oracle import Outcome
from .arm import REACH, SAMPLE_EVERY, Arm
from .controllers import Controller, Scripted, carry_away, carry_to_bin, push_away, swing
from .scenes import SceneStart
from .tasks import State, Task, judge

PHASES = ("wait", "act", "hold", "release", "retreat")
MAX_STEPS = 320
"""Of a controller (control steps); a task that is not done by then has failed."""

_STILL = 0.008  # m or rad: a thing that moved less than this was not touched yet
_SPEEDS = (0.45, 0.80)  # of Meta-World's full speed, 0.8 m/s
_LEAD = 0.06  # the hand's target runs at most this far ahead of the hand (m)
_RELEASE_STEPS = 14
_RETREAT_STEPS = (16, 18, 26)  # back off, rise, go away


@dataclass(frozen=True)
class Motion:
    """What was commanded, one row a control step.

    Attributes:
        targets: where the hand is drawn to (m), float64 (n, 3).
        grips: -1 open .. 1 closed, float64 (n,).
        phases: index into `PHASES`, int (n,).
        touched: first step at which the thing to be moved had moved.
    """

    targets: np.ndarray
    grips: np.ndarray
    phases: np.ndarray
    touched: int

    def __len__(self) -> int:
        return len(self.grips)

    def first(self, phase: str) -> int:
        """First step of a phase; the length if it does not occur."""
        found = np.flatnonzero(self.phases == PHASES.index(phase))
        return int(found[0]) if len(found) else len(self)


@dataclass(frozen=True)
class Performance:
    """A motion and what came of it.

    Attributes:
        motion: as commanded.
        samples: `Arm.sample` at 10 Hz, the first at the start, float32 (m, nq + 3).
        start, end: what the oracle looks at.
    """

    motion: Motion
    samples: np.ndarray
    start: State
    end: State


@dataclass(frozen=True)
class _Expert:
    """Who performs a task, and how the hand leaves.

    Attributes:
        controller: made anew for each episode.
        back: which way the hand leaves before it rises (m).
        grasps: whether something is held that must be let go of.
    """

    controller: Callable[[Arm, Task, SceneStart], Controller]
    back: tuple[float, float, float] = (0.0, 0.0, 0.0)
    grasps: bool = False


def _site(name: str, up: float = 0.0) -> Callable[[Arm], np.ndarray]:
    return lambda arm: arm.data.site(name).xpos + np.array([0.0, 0.0, up])


def _drawer(up: float) -> Callable[[Arm], np.ndarray]:
    return lambda arm: arm.data.body("drawer_link").xpos + np.array([0.0, -0.16, up])


def _puck(arm: Arm) -> np.ndarray:
    return arm.data.geom("puck").xpos.copy()


_TOWARDS_ROBOT = (0.0, -0.08, 0.0)
_EXPERTS: dict[str, _Expert] = {
    "open_drawer": _Expert(Scripted("drawer_open", _drawer(0.0))),
    "close_drawer": _Expert(Scripted("drawer_close", _drawer(0.05)), (0.0, -0.05, 0.0)),
    "open_safe": _Expert(swing(opens=True), (0.04, 0.0, 0.0)),
    "close_safe": _Expert(swing(opens=False), _TOWARDS_ROBOT),
    "open_window": _Expert(Scripted("window_open", _site("handleOpenStart")), _TOWARDS_ROBOT),
    "close_window": _Expert(Scripted("window_close", _site("handleCloseStart")), _TOWARDS_ROBOT),
    "turn_faucet_right": _Expert(Scripted("faucet_open", _site("handleStartOpen", -0.01))),
    "turn_faucet_left": _Expert(Scripted("faucet_close", _site("handleStartClose", -0.01))),
    "turn_lock_down": _Expert(Scripted("door_lock", _site("lockStartLock")), _TOWARDS_ROBOT),
    "turn_lock_up": _Expert(Scripted("door_unlock", _site("lockStartUnlock")), _TOWARDS_ROBOT),
    "press_handle_down": _Expert(Scripted("handle_press", _site("handleStart"))),
    "pull_handle_up": _Expert(Scripted("handle_pull", _site("handleRight")), (0.0, -0.10, 0.0)),
    "press_handle_down_sideways": _Expert(Scripted("handle_press_side", _site("handleStart"))),
    "pull_handle_up_sideways": _Expert(
        Scripted("handle_pull_side", _site("handleCenter")), (0.10, 0.0, 0.0)
    ),
    "slide_puck_in": _Expert(Scripted("plate_slide", _puck, lambda start: np.array(start.fixture))),
    "slide_puck_out": _Expert(Scripted("plate_slide_back", _puck)),
}
for _name in ("move_mug_to", "move_mug_away"):
    _EXPERTS[_name] = _Expert(carry_away(0.11, grasp=0.05, carry=0.13, down=0.052), grasps=True)
for _name in ("push_cylinder_left", "push_cylinder_right"):
    _EXPERTS[_name] = _Expert(push_away(0.12, height=0.04))
for _name in ("place_cube_red_bin", "place_cube_blue_bin"):
    _EXPERTS[_name] = _Expert(carry_to_bin(grasp=0.02, carry=0.18, down=0.08), grasps=True)


class _Recorder:
    """Steps an arm and keeps what it was told, and how it looked at 10 Hz."""

    def __init__(self, arm: Arm, start: State) -> None:
        self._arm, self._start = arm, start
        self._rows: list[tuple[np.ndarray, float, int]] = []
        self._samples = [arm.sample()]
        self._touched: int | None = None

    def step(self, target: np.ndarray, grip: float, phase: str) -> None:
        self._arm.step(target, grip)
        self._rows.append((self._arm.target, grip, PHASES.index(phase)))
        if self._touched is None and self._has_moved():
            self._touched = len(self._rows)
        if len(self._rows) % SAMPLE_EVERY == 0:
            self._samples.append(self._arm.sample())

    def _has_moved(self) -> bool:
        now = self._arm.state()
        way = np.linalg.norm(np.subtract(now.position, self._start.position))
        return way > _STILL or abs(now.value - self._start.value) > _STILL

    def performance(self) -> Performance:
        targets, grips, phases = zip(*self._rows, strict=True)
        touched = len(self._rows) if self._touched is None else self._touched
        motion = Motion(np.array(targets), np.array(grips), np.array(phases), touched)
        return Performance(motion, np.array(self._samples), self._start, self._arm.state())


def _ahead(arm: Arm, way: np.ndarray) -> np.ndarray:
    """The target moved by ``way``, but not far ahead of a hand that something holds back."""
    lead = arm.target + way - arm.hand
    far = float(np.linalg.norm(lead))
    return arm.hand + lead * min(1.0, _LEAD / max(far, 1e-9))


def perform(arm: Arm, task: Task, start: SceneStart, rng: np.random.Generator) -> Performance:
    """Carry out a task from a start; the caller asks the oracle whether it came true.

    The arm waits, acts until the task came true (or too long), holds on for a moment, lets go
    and leaves; waits, speeds and the place it leaves to are drawn.
    """
    expert = _EXPERTS[task.name]
    arm.reset(start)
    before = arm.state()
    record = _Recorder(arm, before)
    control = expert.controller(arm, task, start)
    speed = float(rng.uniform(*_SPEEDS)) * REACH
    waits, holds = int(rng.integers(0, 16)), int(rng.integers(6, 20))
    home = rng.uniform((-0.15, 0.42, 0.28), (0.15, 0.50, 0.36))
    for _ in range(waits):
        record.step(arm.target, -1.0, "wait")
    grip = -1.0
    for _ in range(MAX_STEPS):
        action = np.clip(control(), -1.0, 1.0)
        grip = float(action[3])
        done = judge(task, before, arm.state()) is Outcome.TRUE
        record.step(_ahead(arm, action[:3] * speed), grip, "hold" if done else "act")
        holds -= done
        if holds <= 0:
            break
    if expert.grasps:
        grip = -1.0
        for _ in range(_RELEASE_STEPS):
            record.step(arm.target, grip, "release")
    behind = arm.hand + expert.back
    above = np.array([*behind[:2], home[2]])
    for place, steps in zip((behind, above, home), _RETREAT_STEPS, strict=True):
        for _ in range(steps):
            way = place - arm.target
            far = float(np.linalg.norm(way))
            step = way * min(1.0, 1.4 * speed / max(far, 1e-9))
            record.step(arm.target + step, grip, "retreat")
    return record.performance()


def replay(arm: Arm, start: SceneStart, motion: Motion) -> Performance:
    """Command a motion step by step from a start, whatever it meets."""
    arm.reset(start)
    record = _Recorder(arm, arm.state())
    for target, grip, phase in zip(motion.targets, motion.grips, motion.phases, strict=True):
        record.step(target, float(grip), PHASES[phase])
    return record.performance()
