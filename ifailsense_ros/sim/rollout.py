"""One episode from its seed: scene, pair of tasks, expert, oracle. States only, no pictures.

Order of the draws (DESIGN section 9, rules 1 and 2): the scene, by one law for all categories; then
an unordered pair of tasks that are feasible in it, one of which is the task whose turn it is; then
a fair coin for which of the two is performed; then the motion. A scene without such a pair is given
up and the next attempt draws another.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .experts import plan_for
from .feasibility import feasible_tasks
from .instructions import instruction_for, phrasings_of
from .look import level_name
from .oracle import Outcome, judge_all, state_of_scene
from .robot import SAMPLE_S, Waypoint, World
from .scene import Scene, draw_scene
from .tasks import CATEGORIES, TASKS, Task, contrast, draw_pair, tasks_of

# Every seed starts with this constant, then base seed, split, index, attempt: no two splits share
# one.
_SEED_ROOT = 20_251_122
SPLITS = {"train": 0, "validation": 1, "dev": 2, "test": 3}
MAX_ATTEMPTS = 1000
ALL_TASKS = tuple(TASKS)

EditPlan = Callable[[list[Waypoint]], list[Waypoint]]


@dataclass(frozen=True)
class Setup:
    """What is fixed before the arm moves.

    ``seed`` is the base seed of the data set, ``level`` the name of the look level.
    """

    split: str
    index: int
    attempt: int
    scene: Scene
    feasible: tuple[str, ...]
    task: Task
    negative: Task
    phrasing: int
    seed: int = 0
    level: str = "mild"

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
        rejected: why earlier attempts of this index were not used ("expert_failed open_drawer":
            the reason, and the task that was performed, if any), counted.
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
    split: str, index: int, attempt: int, edit: int | None = None, *, seed: int = 0
) -> np.random.SeedSequence:
    """The seed of one attempt of a data set with base seed ``seed``; with ``edit`` that of a
    failure edited into it."""
    parts = [_SEED_ROOT, seed, SPLITS[split], index, attempt]
    return np.random.SeedSequence(parts if edit is None else [*parts, edit])


def _generators(split: str, index: int, attempt: int, seed: int) -> list[np.random.Generator]:
    root = episode_seed(split, index, attempt, seed=seed)
    return [np.random.default_rng(child) for child in root.spawn(3)]


def scene_of(
    split: str, index: int, attempt: int, level: str | int = "mild", *, seed: int = 0
) -> Scene:
    """The scene of one attempt: what is needed to render its recorded states again."""
    return draw_scene(_generators(split, index, attempt, seed)[0], level)


def target_of(index: int, tasks: Sequence[str] = ALL_TASKS) -> Task:
    """The task whose turn it is: categories take turns, and within a category its tasks."""
    categories = [category for category in CATEGORIES if tasks_of(category, tuple(tasks))]
    turn, which = divmod(index, len(categories))
    candidates = tasks_of(categories[which], tuple(tasks))
    return candidates[turn % len(candidates)]


def draw_setup(
    split: str,
    index: int,
    attempt: int,
    level: str | int = "mild",
    *,
    seed: int = 0,
    tasks: Sequence[str] = ALL_TASKS,
) -> Setup | None:
    """What one attempt is to be; None if its scene has no feasible pair with the task whose turn
    it is."""
    level = level_name(level)
    scene = scene_of(split, index, attempt, level, seed=seed)
    of_pair = _generators(split, index, attempt, seed)[1]
    feasible = feasible_tasks(state_of_scene(scene))
    pair = draw_pair(of_pair, target_of(index, tasks), feasible, tuple(tasks))
    if pair is None:
        return None
    phrasing = int(of_pair.choice(phrasings_of(split)))
    return Setup(split, index, attempt, scene, feasible, *pair, phrasing, seed, level)


def perform(world: World, setup: Setup, edit: EditPlan | None = None) -> Rollout:
    """Carry out a setup in ``world``, the expert's plan changed by ``edit`` if given."""
    world.reset(setup.scene)
    start = world.state()
    motion = _generators(setup.split, setup.index, setup.attempt, setup.seed)[2]
    plan = plan_for(setup.task, world, motion)
    states = world.run(edit(plan) if edit else plan)
    outcomes = judge_all(start, world.state_at(states[-1]), world.carried(states))
    return Rollout(setup, states, outcomes)


def _reject_reason(rollout: Rollout) -> str | None:
    performed = rollout.outcomes[rollout.setup.task.name]
    negative = rollout.outcomes[rollout.setup.negative.name]
    if performed is not Outcome.TRUE:
        return "expert_failed" if performed is Outcome.FALSE else "expert_disputed"
    if negative is not Outcome.FALSE:
        return "negative_came_true" if negative is Outcome.TRUE else "negative_disputed"
    return None


def simulate(
    world: World,
    split: str,
    index: int,
    level: str | int = "mild",
    *,
    seed: int = 0,
    tasks: Sequence[str] = ALL_TASKS,
    first_attempt: int = 0,
) -> Rollout:
    """The episode ``index`` of ``split``: the first attempt that passes every rule.

    Args:
        world: to perform it in; it has the episode's look afterwards.
        split: one of `SPLITS`.
        index: number of the episode.
        level: look level, see `look.draw_look`.
        seed: base seed of the data set.
        tasks: names of the tasks that may be performed. With one task of a category its negative
            comes from outside and is never performed: good for a look at a task, while as data
            the first picture can then tell.
        first_attempt: attempts before this one are not looked at.

    Raises:
        ValueError: for an unknown split, task or level, or a negative index or seed.
        RuntimeError: if no attempt passes, which means the world is broken.
    """
    if split not in SPLITS or index < 0 or seed < 0:
        raise ValueError(
            f"no episode {index} of split {split!r}, seed {seed}; splits: {', '.join(SPLITS)}"
        )
    unknown = sorted(set(tasks) - set(TASKS))
    if unknown or not tasks:
        raise ValueError(
            f"unknown tasks {', '.join(unknown) or '(none)'}; known: {', '.join(TASKS)}"
        )
    rejected: collections.Counter[str] = collections.Counter()
    for attempt in range(first_attempt, first_attempt + MAX_ATTEMPTS):
        setup = draw_setup(split, index, attempt, level, seed=seed, tasks=tasks)
        if setup is None:
            rejected["no_feasible_pair"] += 1
            continue
        rollout = perform(world, setup)
        reason = _reject_reason(rollout)
        if reason is None:
            return Rollout(setup, rollout.states, rollout.outcomes, dict(rejected))
        rejected[f"{reason} {setup.task.name}"] += 1
    raise RuntimeError(f"episode {index} of {split}: {MAX_ATTEMPTS} attempts, {dict(rejected)}")
