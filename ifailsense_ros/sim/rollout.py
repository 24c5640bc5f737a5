"""One episode from its seed: scene, pair of tasks, expert, oracle. States only, no pictures.

Order of the draws (DESIGN section 9, rules 1 and 2): the scene; then an unordered pair of tasks
that are feasible in it; then a fair coin for which of the two is performed; then the motion.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .experts import plan_for
from .instructions import TEST_PHRASINGS, TRAIN_PHRASINGS, instruction_for
from .robot import SAMPLE_S, Waypoint, World
from .scene import Scene, draw_scene
from .tasks import (
    CATEGORIES,
    Outcome,
    Task,
    contrast,
    draw_pair,
    feasible_tasks,
    judge_all,
    state_of_scene,
)

# Every seed starts with this constant, then split, index, attempt: splits never share a seed.
_SEED_ROOT = 20_251_122
SPLITS = {"train": 0, "validation": 1, "dev": 2, "test": 3}
MAX_ATTEMPTS = 200

EditPlan = Callable[[list[Waypoint]], list[Waypoint]]


@dataclass(frozen=True)
class Setup:
    """What is fixed before the arm moves."""

    split: str
    index: int
    attempt: int
    scene: Scene
    feasible: tuple[str, ...]
    task: Task
    negative: Task
    phrasing: int

    @property
    def instruction(self) -> str:
        return instruction_for(self.task, self.phrasing)

    @property
    def negative_instruction(self) -> str:
        return instruction_for(self.negative, self.phrasing)

    @property
    def contrast(self) -> tuple[str, ...]:
        return contrast(self.task, self.negative)


@dataclass(frozen=True)
class Rollout:
    """A performed episode.

    Attributes:
        setup: what was drawn.
        states: qpos samples at 10 Hz, float32 (n, nq).
        outcomes: the oracle's word on every task, by name.
        rejected: why earlier attempts of this index were not used, counted.
    """

    setup: Setup
    states: np.ndarray
    outcomes: dict[str, Outcome]
    rejected: dict[str, int] = field(default_factory=dict)

    @property
    def stamps_ns(self) -> np.ndarray:
        """Stamps of the states since the episode's start, int64 (n,), nanoseconds."""
        return np.arange(len(self.states), dtype=np.int64) * round(SAMPLE_S * 1e9)

    @property
    def duration_s(self) -> float:
        return float(self.stamps_ns[-1]) * 1e-9


def episode_seed(
    split: str, index: int, attempt: int, edit: int | None = None
) -> np.random.SeedSequence:
    """The seed of one attempt; with ``edit`` that of a failure edited into it."""
    parts = [_SEED_ROOT, SPLITS[split], index, attempt]
    return np.random.SeedSequence(parts if edit is None else [*parts, edit])


def _generators(split: str, index: int, attempt: int) -> list[np.random.Generator]:
    root = episode_seed(split, index, attempt)
    return [np.random.default_rng(seed) for seed in root.spawn(3)]


def _set_up(split: str, index: int, attempt: int, level: int) -> Setup | None:
    of_scene, of_pair, _ = _generators(split, index, attempt)
    scene = draw_scene(of_scene, level)
    feasible = feasible_tasks_of(scene)
    pair = draw_pair(of_pair, CATEGORIES[index % len(CATEGORIES)], feasible)
    if pair is None:
        return None
    phrasings = TEST_PHRASINGS if split == "test" else TRAIN_PHRASINGS
    return Setup(split, index, attempt, scene, feasible, *pair, int(of_pair.choice(phrasings)))


def feasible_tasks_of(scene: Scene) -> tuple[str, ...]:
    """The tasks that are feasible from a scene's start state."""
    return feasible_tasks(state_of_scene(scene))


def perform(world: World, setup: Setup, edit: EditPlan | None = None) -> Rollout:
    """Carry out a setup in ``world``, the expert's plan changed by ``edit`` if given."""
    world.reset(setup.scene)
    start = world.state()
    motion = _generators(setup.split, setup.index, setup.attempt)[2]
    plan = plan_for(setup.task, world, motion)
    states = world.run(edit(plan) if edit else plan)
    return Rollout(setup, states, judge_all(start, world.state_at(states[-1])))


def _reject_reason(rollout: Rollout) -> str | None:
    performed = rollout.outcomes[rollout.setup.task.name]
    negative = rollout.outcomes[rollout.setup.negative.name]
    if performed is Outcome.FALSE:
        return "expert_failed"
    if Outcome.DISPUTED in (performed, negative):
        return "disputed"
    return "negative_came_true" if negative is Outcome.TRUE else None


def simulate(world: World, split: str, index: int, level: int = 1) -> Rollout:
    """The episode ``index`` of ``split``: the first attempt that passes every rule.

    Raises:
        ValueError: for an unknown split or a negative index.
        RuntimeError: if no attempt passes, which means the world is broken.
    """
    if split not in SPLITS or index < 0:
        raise ValueError(f"no episode {index} of split {split!r}; splits: {', '.join(SPLITS)}")
    rejected: collections.Counter[str] = collections.Counter()
    for attempt in range(MAX_ATTEMPTS):
        setup = _set_up(split, index, attempt, level)
        if setup is None:
            rejected["no_feasible_pair"] += 1
            continue
        rollout = perform(world, setup)
        reason = _reject_reason(rollout)
        if reason is None:
            return Rollout(setup, rollout.states, rollout.outcomes, dict(rejected))
        rejected[reason] += 1
    raise RuntimeError(f"episode {index} of {split}: {MAX_ATTEMPTS} attempts, {dict(rejected)}")
