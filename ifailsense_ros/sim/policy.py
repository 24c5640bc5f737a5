"""A robot that errs: what it does when it is asked, attempt after attempt, in one scene.

Each attempt is drawn from the key of the scene, the seed it is asked with and the number of the
attempt. The seed decides what the robot takes the instruction to mean: asked again with the same
one it means the same, with another one it may mean something else (re-grounding). How it moves is
drawn anew in every attempt. Nothing is filtered: a fault that does no harm stays a success, and an
expert that fails by itself is a failure.

An attempt starts from what the last one left; the robot goes home first, and puts back what it
holds. So an instruction may meet a state in which

- it holds already (drawer, door and lamps: what is asked for is a state that can be seen): the
  robot leaves things alone, goes to its posture and says that it is done;
- it cannot be carried out any more: the robot tries what it would do, or, where it knows no way
  (no place to put a block, a block out of reach), says that it could not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ifailsense_ros.data.failure_classes import WRONG_TARGET_OBJECT
from ifailsense_ros.data.records import EXPERT

from .edits import EDITS, NoPlaceError
from .experts import plan_for
from .failures import fails_so, wrong_targets
from .fault_rates import FaultRates
from .feasibility import feasible_tasks, is_feasible
from .instructions import PHRASINGS, instruction_for
from .oracle import Outcome, judge
from .robot import FINGERS_OPEN, SAMPLE_S, Waypoint, World
from .rollout import Setup
from .scene import HomePose, draw_home
from .tasks import TASKS, Task, tasks_of

_ROOT = 20_261_123
_MEANING, _MOTION, _HOME = range(3)
_IN_BETWEEN = 0.002  # of the fingers' way (m): what they could not close is held
_LOOK_S = 1.0  # at what is so already; an attempt must be long enough to be judged
_RISE = 0.11
_DROP = 0.003
# Where the hand can go, (low, high) in m.
_REACH = ((0.15, -0.42, -0.08), (0.86, 0.42, 0.60))


@dataclass(frozen=True)
class Attempt:
    """What became of an attempt.

    Attributes:
        kind: ``expert``, a control or a semantic failure; "" where there was no way.
        performed: name of the task that was carried out.
        done: the robot's own word: it carried its motion out to the end.
        success: the oracle's word on what was asked (`Robot.succeeded`).
        held: no grasp closed on nothing, and nothing was lost before it was let go.
        states: qpos samples at 10 Hz, float32 (n, nq).
        home_s: time it took to go home before, seconds.
    """

    kind: str
    performed: str
    done: bool
    success: bool
    held: bool
    states: np.ndarray
    home_s: float

    @property
    def duration_s(self) -> float:
        """Of the attempt without the way home, seconds."""
        return (len(self.states) - 1) * SAMPLE_S


def task_of(instruction: str) -> Task:
    """The task that a sentence asks for.

    Raises:
        KeyError: no sentence of this world.
    """
    return TASKS[_TASK_OF[" ".join(instruction.lower().split())]]


_TASK_OF = {
    instruction_for(task, phrasing): name
    for name, task in TASKS.items()
    for phrasing in range(len(PHRASINGS[task.family]))
}


def _order(rng: np.random.Generator, shares: Mapping[str, float]) -> list[str]:
    """All names of a positive share, the first drawn by the shares, the next by those left, ..."""
    names = [name for name, share in shares.items() if share > 0]
    waits = {name: rng.exponential() / shares[name] for name in names}
    return sorted(names, key=waits.__getitem__)


class Robot:
    """One world, one scene after another.

    Args:
        world: to act in.
        rates: how often it errs.
    """

    def __init__(self, world: World, rates: FaultRates) -> None:
        self.world = world
        self._rates = rates

    def lay_out(self, setup: Setup, key: Sequence[int]) -> None:
        """Put the scene of a setup on the desk.

        Args:
            setup: whose scene it is.
            key: what all draws of this scene's attempts come from.
        """
        self.world.reset(setup.scene)
        self._key = list(key)
        self._tries = 0
        self._home_s = 0.0
        self._at_home = True
        self._first = self.world.states[0]
        self._carried: frozenset[str] = frozenset()
        self._taken_at: Waypoint | None = None

    def attempt(self, asked: Task, seed: int) -> Iterator[np.ndarray]:
        """Do what one takes the instruction to mean, sample by sample (qpos at 10 Hz); whoever
        asks for no more has stopped it. `result` says what became of it.

        Args:
            asked: the task.
            seed: see above.
        """
        for _ in self.go_home():
            pass
        self.world.begin()
        self._tries += 1
        self._asked, self._done, self._held, self._at_home = asked, False, True, False
        plan = self._plan(asked, seed)
        if plan is None:
            return
        yield self.world.states[-1]
        yield from self.world.play(self._watched(plan))
        self._done = True

    def result(self) -> Attempt:
        """What became of the last attempt; once, after it ended or was stopped."""
        states = np.stack(self.world.states)
        self._note_carried()
        success = self.succeeded(self._asked, states)
        home_s, self._home_s = self._home_s, 0.0
        return Attempt(self._kind, self._performed, self._done, success, self._held, states, home_s)

    def succeeded(self, asked: Task, states: np.ndarray) -> bool:
        """Whether the oracle says that the instruction is carried out, by the attempt of these
        states or by all since the scene was laid out. In its dead bands it is not.
        """
        world = self.world
        end = world.state_at(states[-1])
        ways = (
            (world.state_at(states[0]), world.carried(states)),
            (world.state_at(self._first), self._carried),
        )
        return any(judge(asked, start, end, carried) is Outcome.TRUE for start, carried in ways)

    def go_home(self) -> Iterator[np.ndarray]:
        """Put back what is held, and go to a posture like the start's; sample by sample. Does
        nothing where the robot is home already.
        """
        if self._at_home:
            return
        self.world.begin()
        for sample in self.world.play(self._way_home()):
            yield sample
            self._home_s += SAMPLE_S
        self._note_carried()
        self._at_home = True

    def _note_carried(self) -> None:
        path = np.stack([self._first, *self.world.states])
        self._carried |= self.world.carried(path)

    # --- what it does -----------------------------------------------------------------------------

    def _rng(self, what: int, *more: int) -> np.random.Generator:
        return np.random.default_rng([_ROOT, *self._key, what, *more])

    def _plan(self, asked: Task, seed: int) -> list[Waypoint] | None:
        """The plan of an attempt, and its kind; None where there is no way."""
        state = self.world.state()
        meaning = self._rng(_MEANING, seed)
        motion = self._rng(_MOTION, seed, self._tries)
        self._kind, self._performed = "", ""
        slips = meaning.random() < self._rates.semantic_share
        kind, task = self._misunderstood(asked, meaning) if slips else (EXPERT, asked)
        seen = asked.category in ("opening_closing", "lighting")
        if task == asked and seen and not is_feasible(asked, state):
            home = draw_home(motion)
            self._kind, self._performed = EXPERT, asked.name
            look = Waypoint("wait", "pause", duration=_LOOK_S)
            return [look, Waypoint("move", "retreat", home.position, home.yaw, speed=0.3)]
        try:
            plan = plan_for(task, self.world, motion)
        except ValueError:
            return None
        if task == asked and (motion.random() < self._rates.control_share or slips):
            kind, plan = self._faulty(task, plan, motion)
        if not all(_is_in_reach(step) for step in plan):
            return None
        self._kind, self._performed = kind, task.name
        return plan

    def _misunderstood(self, asked: Task, rng: np.random.Generator) -> tuple[str, Task]:
        """The semantic failure, and what is done instead; the task itself where nothing else of
        its category can be done here.
        """
        feasible = feasible_tasks(self.world.state())
        for kind in _order(rng, self._rates.semantic):
            if kind == WRONG_TARGET_OBJECT:
                others = wrong_targets(asked, feasible) if fails_so(kind, asked) else []
            else:
                others = tasks_of(asked.category, feasible)
            others = [task for task in others if task != asked]
            if others:
                return kind, others[int(rng.integers(len(others)))]
        return EXPERT, asked

    def _faulty(
        self, task: Task, plan: list[Waypoint], rng: np.random.Generator
    ) -> tuple[str, list[Waypoint]]:
        for kind in _order(rng, self._rates.control):
            try:
                if fails_so(kind, task):
                    return kind, EDITS[kind](plan, self.world.hand, rng)
            except NoPlaceError:
                continue
        return EXPERT, plan

    def _watched(self, plan: Sequence[Waypoint]) -> Iterator[Waypoint]:
        """The plan's steps; looks at the fingers when one is done, and before they let go."""
        self._taken_at = None
        for step in plan:
            if step.tag == "release":
                self._feel()
                self._taken_at = None
            yield step
            if step.tag == "grasp":
                hand = self.world.hand
                self._taken_at = Waypoint("move", "place", hand.position, hand.yaw, 0.18)
                self._feel()
        self._feel()

    def _feel(self) -> None:
        if self._taken_at is not None and not self._holds():
            self._held = False

    def _holds(self) -> bool:
        told, opening = self.world.fingers
        return opening - told > _IN_BETWEEN

    def _way_home(self) -> Iterator[Waypoint]:
        world, back = self.world, self._taken_at
        self._taken_at = None
        if back is not None and self._holds():
            x, y, z = back.position
            height = max(world.hand.position[2], z + _RISE)
            yield Waypoint("move", "carry", (x, y, height), back.yaw, 0.3)
            yield Waypoint("move", "place", (x, y, z + _DROP), back.yaw, 0.18)
            yield Waypoint("grip", "release", fingers=FINGERS_OPEN, duration=0.3)
        hand = world.hand
        x, y, z = hand.position
        home: HomePose = draw_home(self._rng(_HOME, self._tries))
        # Straight up first: beside the hand there may be walls, handles and blocks.
        yield Waypoint("move", "leave", (x, y, max(z, home.position[2])), hand.yaw, 0.3)
        yield Waypoint("move", "retreat", home.position, home.yaw, 0.5, FINGERS_OPEN)
        yield Waypoint("wait", "pause", duration=0.3)


def _is_in_reach(step: Waypoint) -> bool:
    low, high = _REACH
    inside = zip(low, step.position, high, strict=True)
    return step.kind != "move" or all(a <= value <= b for a, value, b in inside)
