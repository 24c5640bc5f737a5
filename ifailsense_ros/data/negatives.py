"""Which wrong instruction an episode gets: what may serve, what is hard, what is still owed.

A negative must be a different task of the same category, must have been feasible, and must not
have come true; an outcome inside the oracle's dead band counts neither way (DESIGN 9.1 to 9.3).
Where a source has no oracle or no feasibility, what it does not know is taken as allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ifailsense_ros.data.contrast import contrast_of, is_hard

CAME_TRUE = "came_true"
DISPUTED = "disputed"
INFEASIBLE = "infeasible"
NOT_CARRIED_OUT = "not_carried_out"
NO_WRONG_TASK = "no_wrong_task"
SURPLUS = "surplus"
NO_TWIN = "no_twin"
EXTRA = "extra"
CUT_SHORT = "cut_short"

REASONS = {
    CAME_TRUE: "the oracle says that the wrong task came true as well",
    DISPUTED: "an outcome lies in the oracle's dead band",
    INFEASIBLE: "the wrong task was not possible at the start",
    NOT_CARRIED_OUT: "the oracle says that the recorded task did not come true",
    NO_WRONG_TASK: "no other task of the category can serve as the wrong one",
    SURPLUS: "left out so that its task is asked for equally often with either label",
    NO_TWIN: "a failure without a countable success of the same scene beside it, or the reverse",
    EXTRA: "drawn without the filters, for comparison only",
    CUT_SHORT: "an unfinished episode, for trainings that ask for it",
}
"""Why a pair does not count (manifest column `why_not_counted`)."""

HARD_SHARE = 0.7
"""Probability that a drawn negative is a hard one, where there is one (at least half must be)."""


def verdict_on(task: str, outcomes: Mapping[str, int], feasible: Sequence[str] | None) -> str:
    """Why a task cannot serve as the wrong one; "" if it can.

    Args:
        task: the wrong task.
        outcomes: the oracle's word on each task (1, 0, -1); tasks it does not know are allowed.
        feasible: tasks that were possible; None where that is not known.
    """
    outcome = outcomes.get(task, -1)
    if outcome > 0:
        return CAME_TRUE
    if outcome == 0:
        return DISPUTED
    return INFEASIBLE if feasible is not None and task not in feasible else ""


def verdict_on_positive(task: str, outcomes: Mapping[str, int]) -> str:
    """Why the recorded task cannot serve as the right one; "" if it can."""
    outcome = outcomes.get(task, 1)
    if outcome > 0:
        return ""
    return DISPUTED if outcome == 0 else NOT_CARRIED_OUT


@dataclass
class Quota:
    """How often each task is still owed as a negative, so that labels balance per task.

    Attributes:
        owed: task -> (times it is asked for with success) - (times with failure), so far.
    """

    owed: dict[str, int] = field(default_factory=dict)

    def draw(
        self, task: str, allowed: Sequence[str], rng: np.random.Generator
    ) -> tuple[str, tuple[str, ...]]:
        """A wrong task for an episode in which `task` was carried out, and its contrast.

        With probability `HARD_SHARE` a hard one, if there is any. Within those, tasks are drawn
        in proportion to what is owed; where nothing is, the least overdrawn one is taken.

        Args:
            task: what was carried out.
            allowed: the tasks that may serve, at least one.
            rng: seeded by the episode.
        """
        hard = [t for t in allowed if is_hard(contrast_of(task, t))]
        pool = hard if hard and rng.random() < HARD_SHARE else list(allowed)
        owed = np.array([self.owed.get(t, 0) for t in pool])
        if owed.max() > 0:
            weight = np.maximum(owed, 0)
            chosen = pool[int(rng.choice(len(pool), p=weight / weight.sum()))]
        else:
            best = np.flatnonzero(owed == owed.max())
            chosen = pool[int(rng.choice(best))]
        self.owed[chosen] = self.owed.get(chosen, 0) - 1
        return chosen, contrast_of(task, chosen)


def surplus(counts: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """How many pairs to leave out so that each task is asked for as often with either label.

    An episode is an arrow from the task carried out to the wrong one; a task balances when as many
    arrows leave it as arrive. Taking out the arrows along a path from a task with too many
    successes to one with too many failures mends both by one and nothing else; shortest paths
    first, until none is left. Arrows add up to a circulation then.

    Args:
        counts: (task carried out, wrong task) -> number of episodes.

    Returns:
        (task carried out, wrong task) -> how many of these episodes to leave out.
    """
    left = {pair: n for pair, n in counts.items() if n > 0}
    balance: dict[str, int] = {}
    for (right, wrong), n in left.items():
        balance[right] = balance.get(right, 0) + n
        balance[wrong] = balance.get(wrong, 0) - n
    out: dict[tuple[str, str], int] = {}
    for start in sorted(balance):
        while balance[start] > 0:
            path = _path(start, left, balance)
            for pair in path:
                left[pair] -= 1
                out[pair] = out.get(pair, 0) + 1
            balance[start] -= 1
            balance[path[-1][1]] += 1
    return out


def _path(
    start: str, left: Mapping[tuple[str, str], int], balance: Mapping[str, int]
) -> list[tuple[str, str]]:
    """The shortest path of arrows from `start` to a task with too many failures.

    There is one: a set of tasks that no arrow leaves has at least as many arriving.
    """
    came_by: dict[str, tuple[str, str] | None] = {start: None}
    queue = [start]
    for task in queue:
        if balance[task] < 0:
            path = []
            while (arrow := came_by[task]) is not None:
                path.append(arrow)
                task = arrow[0]
            return path[::-1]
        for pair in sorted(p for p, n in left.items() if p[0] == task and n > 0):
            if pair[1] not in came_by:
                came_by[pair[1]] = pair
                queue.append(pair[1])
    raise AssertionError("unbalanced without a way to mend it")


def label_z(positive: int, negative: int) -> float:
    """How many standard deviations of a fair coin the two counts are apart."""
    total = positive + negative
    return abs(positive - negative) / math.sqrt(total) if total else 0.0
