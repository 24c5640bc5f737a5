"""Which pairs a detector got wrong, how sure it was, and what the mistakes have in common."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import binomtest

from ifailsense_ros.core.verdict import Outcome, VoteValue
from ifailsense_ros.data.contrast import attributes_of
from ifailsense_ros.evaluate.predictions import Prediction
from ifailsense_ros.evaluate.results import Result

NONE = "-"
"""Value of an attribute that a pair does not have."""

NOTHING = "nothing"


def confidence(prediction: Prediction | Result) -> float:
    """How sure the detector was of its verdict, 0..1; 0 where it said UNKNOWN."""
    if prediction.outcome == Outcome.UNKNOWN:
        return 0.0
    p = prediction.p_success
    return p if prediction.outcome == Outcome.SUCCESS else 1.0 - p


def worst(predictions: Sequence[Prediction], count: int) -> list[Prediction]:
    """The most confident mistakes, the surest first. UNKNOWN is wrong but not sure: left out."""
    wrong = [p for p in predictions if not p.right and p.outcome != Outcome.UNKNOWN]
    return sorted(wrong, key=lambda p: (-confidence(p), p.pair_id))[:count]


def mistake_of(prediction: Prediction) -> str:
    """What kind of mistake a wrong verdict is."""
    if prediction.outcome == Outcome.UNKNOWN:
        return "no verdict"
    return "false alarm" if prediction.label else "missed failure"


def done(prediction: Prediction) -> str:
    """What was carried out."""
    if prediction.performed_task:
        return prediction.performed_task
    return f"{NOTHING} ({prediction.kind.replace('_', ' ')})"


def _part_of_name(part: str) -> Callable[[Prediction], str]:
    def value(prediction: Prediction) -> str:
        task = prediction.asked_task
        return NONE if " " in task else attributes_of(task)[part] or NONE

    return value


ATTRIBUTES: dict[str, Callable[[Prediction], str]] = {
    "label": lambda p: "success" if p.label else "failure",
    "kind": lambda p: p.kind,
    "category": lambda p: p.category or NONE,
    "contrast": lambda p: "+".join(p.contrast) or NONE,
    "asked task": lambda p: p.asked_task or NONE,
    "done": lambda p: p.performed_task or NOTHING,
    "done, asked": lambda p: f"{p.performed_task or NOTHING}, {p.asked_task or NONE}",
    "phrasing": lambda p: NONE if p.phrasing < 0 else str(p.phrasing),
    "colour": _part_of_name("colour"),
    "direction": _part_of_name("direction"),
    "place": _part_of_name("place"),
}
"""What pairs are grouped by: name -> value of a pair. Colour, direction and place are those of the
task that was asked for. Duration comes with the episodes (`shares`)."""


@dataclass(frozen=True)
class Share:
    """A group of pairs and how often the detector was wrong on it.

    Attributes:
        attribute, value: what the pairs have in common.
        pairs, mistakes: how many; UNKNOWN is a mistake.
        lift: error rate here, divided by that of all pairs.
        low, high: 95 percent interval of the error rate here (Wilson).
        clear: whether the interval leaves out the error rate of all pairs.
    """

    attribute: str
    value: str
    pairs: int
    mistakes: int
    lift: float
    low: float
    high: float
    clear: bool


def shares(
    predictions: Sequence[Prediction], durations_s: Mapping[str, float] | None = None
) -> list[Share]:
    """What mistakes share: every group with a mistake, by attribute, the highest lift first.

    Args:
        predictions: all pairs that count, right and wrong.
        durations_s: by pair id; they are cut into quarters.

    Returns:
        Nothing where there is no mistake.
    """
    wrong = sum(not p.right for p in predictions)
    if not wrong:
        return []
    base = wrong / len(predictions)
    named = dict(ATTRIBUTES)
    if durations_s:
        named["duration"] = _quarters(durations_s)
    found = []
    for attribute, value_of in named.items():
        groups: dict[str, list[bool]] = defaultdict(list)
        for p in predictions:
            groups[value_of(p)].append(not p.right)
        if len(groups) < 2:
            continue  # what all pairs share says nothing
        of_attribute = [_share(attribute, v, w, base) for v, w in groups.items() if any(w)]
        found += sorted(of_attribute, key=lambda s: (-s.lift, -s.mistakes, s.value))
    return found


def _share(attribute: str, value: str, wrongs: Sequence[bool], base: float) -> Share:
    mistakes, pairs = sum(wrongs), len(wrongs)
    interval = binomtest(mistakes, pairs).proportion_ci(method="wilson")
    low, high = float(interval.low), float(interval.high)
    clear = not low <= base <= high
    return Share(attribute, value, pairs, mistakes, mistakes / pairs / base, low, high, clear)


def _quarters(durations_s: Mapping[str, float]) -> Callable[[Prediction], str]:
    """Names the quarter of the durations that a pair's lies in."""
    cuts = np.quantile(list(durations_s.values()), (0.25, 0.5, 0.75))
    names = [f"up to {cuts[0]:.1f} s"]
    names += [f"{a:.1f} to {b:.1f} s" for a, b in pairwise(cuts)]
    names.append(f"above {cuts[2]:.1f} s")

    def value(prediction: Prediction) -> str:
        if prediction.pair_id not in durations_s:
            return NONE
        return names[int(np.searchsorted(cuts, durations_s[prediction.pair_id]))]

    return value


@dataclass(frozen=True)
class Voter:
    """One voter's part in the mistakes.

    Attributes:
        source: "fs:<layer>" or "vlm".
        error: share of all pairs on which it was wrong or silent.
        right_in_mistakes: in how many of the detector's mistakes it was right.
    """

    source: str
    error: float
    right_in_mistakes: int


def voters(predictions: Sequence[Prediction]) -> list[Voter]:
    """Every voter, in the order of the votes."""
    wrong: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    saved: Counter[str] = Counter()
    for p in predictions:
        wanted = VoteValue.SUCCESS if p.label else VoteValue.FAIL
        for source, vote in zip(p.sources, p.votes, strict=True):
            seen[source] += 1
            wrong[source] += vote != wanted
            saved[source] += vote == wanted and not p.right
    return [Voter(source, wrong[source] / seen[source], saved[source]) for source in seen]


def wrong_voters(prediction: Prediction) -> int:
    """How many voters were wrong or silent on a pair."""
    wanted = VoteValue.SUCCESS if prediction.label else VoteValue.FAIL
    return sum(vote != wanted for vote in prediction.votes)
