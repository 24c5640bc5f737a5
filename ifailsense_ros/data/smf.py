"""Semantic misalignment failures: expert episodes paired with wrong instructions (paper, IV-A).

D = {tau, g, y}: half positive (g = g*), half negative (g of another task of the same category).
A negative must have been feasible in the scene and must not have come true in the episode; where
neither is known (no simulator, no oracle) every other task of the category counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class ExpertEpisode:
    """What pairing needs to know of one expert episode.

    Attributes:
        index: row in the data set.
        task: the task that was carried out.
        category: its task category (lifting, pushing, ...).
        instruction: g*, the phrasing recorded with the episode.
        negative_task: the designated negative; None leaves the draw to the pairing.
        negative_instruction: its phrasing.
        contrast: the attributes in which the designated negative differs (colour, direction, ...).
        wrong_tasks: tasks of the category that were feasible and did not come true; None where
            that is not known.
        unfinished: it ends before its task came true. Nothing was carried out then: `task` and
            `instruction` are "", the task it was about is the designated negative, and it has no
            right instruction.
        source: where it was recorded, as its rows say (`desk`, `metaworld`, ...).
    """

    index: int
    task: str
    category: str
    instruction: str
    negative_task: str | None = None
    negative_instruction: str | None = None
    contrast: tuple[str, ...] = ()
    wrong_tasks: tuple[str, ...] | None = None
    unfinished: bool = False
    source: str = ""


@dataclass(frozen=True)
class Sample:
    """One (tau, g, y) of the data set.

    Attributes:
        index: row of the episode tau.
        instruction: g.
        success: y.
        task: the task g asks for.
        category: task category.
        contrast: for both members of a pair, how the negative differs from the truth.
    """

    index: int
    instruction: str
    success: bool
    task: str
    category: str
    contrast: tuple[str, ...] = ()


@dataclass
class Phrasings:
    """The instructions known for each task, in order of first use."""

    by_task: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, episodes: Iterable[ExpertEpisode]) -> Phrasings:
        """Collect the phrasings that occur in a set of episodes."""
        found: dict[str, dict[str, None]] = defaultdict(dict)
        for e in episodes:
            if not e.unfinished:
                found[e.task][e.instruction] = None
            if e.negative_task is not None and e.negative_instruction is not None:
                found[e.negative_task][e.negative_instruction] = None
        return cls({task: list(texts) for task, texts in sorted(found.items())})

    def draw(self, task: str, rng: np.random.Generator) -> str:
        """One phrasing of a task, uniformly."""
        texts = self.by_task[task]
        return texts[int(rng.integers(len(texts)))]

    @property
    def texts(self) -> list[str]:
        """Every phrasing of every task."""
        return [t for texts in self.by_task.values() for t in texts]


def category_table(episodes: Iterable[ExpertEpisode]) -> dict[str, tuple[str, ...]]:
    """Category -> its tasks, as they occur in the episodes."""
    tasks: dict[str, set[str]] = defaultdict(set)
    for e in episodes:
        if not e.unfinished:
            tasks[e.category].add(e.task)
        if e.negative_task is not None:
            tasks[e.category].add(e.negative_task)
    return {c: tuple(sorted(t)) for c, t in tasks.items()}


def draw_negative_task(
    episode: ExpertEpisode,
    categories: Mapping[str, Sequence[str]],
    rng: np.random.Generator,
    hard: float = 0.5,
) -> str:
    """A wrong task of the same category.

    With probability `hard` the designated negative (mostly one attribute away from the truth),
    else any wrong task of the category, so that both easy and hard contrasts are seen.

    Raises:
        ValueError: the category has no other task that can serve as a negative.
    """
    if episode.negative_task is not None and rng.random() < hard:
        return episode.negative_task
    wrong = episode.wrong_tasks
    if wrong is None:
        wrong = tuple(t for t in categories[episode.category] if t != episode.task)
    if not wrong:
        if episode.negative_task is None:
            raise ValueError(
                f"episode {episode.index}: category {episode.category!r} has no task beside "
                f"{episode.task!r} to make a negative from"
            )
        return episode.negative_task
    return wrong[int(rng.integers(len(wrong)))]


def fixed_pairs(
    episodes: Sequence[ExpertEpisode],
    categories: Mapping[str, Sequence[str]],
    phrasings: Phrasings,
    seed: int = 0,
) -> list[Sample]:
    """Each episode once as positive and once as negative (DESIGN 9.3), in a reproducible order.

    The designated negative is taken where there is one; else one is drawn from `seed`. Unfinished
    episodes have no positive.
    """
    samples: list[Sample] = []
    for e in episodes:
        rng = np.random.default_rng((seed, e.index))
        if e.negative_task is not None and e.negative_instruction is not None:
            task, text = e.negative_task, e.negative_instruction
        else:
            task = draw_negative_task(e, categories, rng)
            text = phrasings.draw(task, rng)
        common = {"index": e.index, "category": e.category, "contrast": e.contrast}
        if not e.unfinished:
            samples.append(Sample(instruction=e.instruction, success=True, task=e.task, **common))
        samples.append(Sample(instruction=text, success=False, task=task, **common))
    return samples
