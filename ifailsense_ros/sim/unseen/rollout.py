"""One episode from its seed: start, both experts, a fair coin. States only, no pictures.

A start is used only if *both* opposite tasks succeed from it, each without the other; a coin that
knows nothing of the start says which of the two performances is the episode, and the other task is
its designated negative. So what is performed is independent of everything that can be seen in the
first frame (DESIGN section 9, rule 1): no rejection can lean to one side. In the pairs stream every
second coin of a scene is the one before turned over, with the same phrasing: each sentence is then
as often wrong as right (rule 3).
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..oracle import Outcome
from .arm import CONTROL_S, SAMPLE_EVERY, Arm
from .experts import Performance, perform
from .instructions import TEST_PHRASINGS, TRAIN_PHRASINGS, instruction_for
from .scenes import SCENES, SceneStart, draw_start
from .tasks import PAIRS, Task, contrast, judge_scene

_SEED_ROOT = 20_261_122  # the desk's seeds start otherwise: the worlds share none
_COIN = 77
SPLITS = {"train": 0, "validation": 1, "dev": 2, "test": 3}
STREAMS = {"pairs": 0, "failures": 1}
"""What an episode is made for; the streams share no scene."""
MAX_ATTEMPTS = 60


@dataclass(frozen=True)
class Seed:
    """What an episode is made of.

    Attributes:
        split: one of `SPLITS`.
        index: of the episode in its split.
        stream: one of `STREAMS`.
        base: the user's own number, 0 unless asked for.
    """

    split: str
    index: int
    stream: str = "pairs"
    base: int = 0

    def generators(self, attempt: int, edit: int | None = None) -> list[np.random.Generator]:
        """For the start, either task's motion, and the choice; with ``edit`` for a failure."""
        parts = [_SEED_ROOT, self.base, STREAMS[self.stream], SPLITS[self.split], self.index]
        root = np.random.SeedSequence([*parts, attempt, *([] if edit is None else [edit])])
        return [np.random.default_rng(seed) for seed in root.spawn(4)]


@dataclass(frozen=True)
class Rollout:
    """A performed episode.

    Attributes:
        seed, attempt: what it was made of.
        start: what was there before the arm moved.
        task: what was performed; ``negative`` is the opposite.
        phrasing: of both instructions.
        performance: motion and samples.
        outcomes: the oracle's word on both tasks, by name.
        rejected: why earlier attempts were not used, counted.
    """

    seed: Seed
    attempt: int
    start: SceneStart
    task: Task
    negative: Task
    phrasing: int
    performance: Performance
    outcomes: dict[str, Outcome]
    rejected: dict[str, int] = field(default_factory=dict)

    @property
    def instruction(self) -> str:
        return instruction_for(self.task, self.phrasing)

    @property
    def negative_instruction(self) -> str:
        return instruction_for(self.negative, self.phrasing)

    @property
    def contrast(self) -> tuple[str, ...]:
        return contrast(self.task, self.negative)

    @property
    def stamps_ns(self) -> np.ndarray:
        """Stamps of the samples since the episode's start, int64 (m,), nanoseconds."""
        step = round(CONTROL_S * SAMPLE_EVERY * 1e9)
        return np.arange(len(self.performance.samples), dtype=np.int64) * step

    @property
    def duration_s(self) -> float:
        return float(self.stamps_ns[-1]) * 1e-9


class Stage:
    """The scenes that are set up so far; each is loaded when it is first needed."""

    def __init__(self) -> None:
        self._arms: dict[str, Arm] = {}

    def arm(self, scene: str) -> Arm:
        """The scene with its arm."""
        if scene not in self._arms:
            self._arms[scene] = Arm(scene)
        return self._arms[scene]


def _choice(seed: Seed, scene: str, attempt: int) -> tuple[int, int]:
    """Which of a scene's tasks is performed, and the phrasing."""
    turn = seed.index // len(SCENES)
    if seed.stream == "pairs":
        parts = [_SEED_ROOT, seed.base, SPLITS[seed.split], tuple(SCENES).index(scene), turn // 2]
        rng = np.random.default_rng([*parts, _COIN])
        turned = turn % 2
    else:
        rng, turned = seed.generators(attempt)[3], 0
    phrasings = TEST_PHRASINGS if seed.split == "test" else TRAIN_PHRASINGS
    return int(rng.integers(2)) ^ turned, int(rng.choice(phrasings))


def scene_of(index: int) -> str:
    """Scenes take turns with the index."""
    return tuple(SCENES)[index % len(SCENES)]


def _why_not(task: Task, outcomes: Mapping[str, Outcome]) -> str | None:
    """The reason why a performance of a task cannot be used, or None."""
    (other,) = (name for name in outcomes if name != task.name)
    if outcomes[task.name] is not Outcome.TRUE:
        return f"expert_failed {task.name}"
    return None if outcomes[other] is Outcome.FALSE else f"opposite_not_false {task.name}"


def simulate(stage: Stage, seed: Seed, scene: str | None = None, first: int = 0) -> Rollout:
    """The episode of a seed: the first attempt that passes every rule.

    Args:
        stage: scenes.
        seed: what to make it of.
        scene: where; None: as `scene_of` the index says.
        first: attempt to begin with.

    Raises:
        ValueError: for an unknown split or stream, or a negative index.
        RuntimeError: if no attempt passes, which means the world is broken.
    """
    if seed.split not in SPLITS or seed.stream not in STREAMS or seed.index < 0:
        raise ValueError(f"no episode {seed}; splits: {', '.join(SPLITS)}")
    scene = scene_of(seed.index) if scene is None else scene
    arm = stage.arm(scene)
    rejected: collections.Counter[str] = collections.Counter()
    for attempt in range(first, first + MAX_ATTEMPTS):
        of_start, *of_motions = seed.generators(attempt)[:3]
        start = draw_start(SCENES[scene], of_start)
        done: list[tuple[Performance, dict[str, Outcome]]] = []
        for task, of_motion in zip(PAIRS[scene], of_motions, strict=True):
            performance = perform(arm, task, start, of_motion)
            outcomes = judge_scene(scene, performance.start, performance.end)
            reason = _why_not(task, outcomes)
            if reason is not None:
                rejected[reason] += 1
                break
            done.append((performance, outcomes))
        if len(done) < len(PAIRS[scene]):
            continue
        chosen, phrasing = _choice(seed, scene, attempt)
        task, negative = PAIRS[scene][chosen], PAIRS[scene][1 - chosen]
        return Rollout(
            seed, attempt, start, task, negative, phrasing, *done[chosen], dict(rejected)
        )
    raise RuntimeError(f"{scene}, {seed}: {MAX_ATTEMPTS} attempts, {dict(rejected)}")
