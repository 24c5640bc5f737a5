"""Metrics of the paper (Sec. V-B) and what a robot needs beside them; UNKNOWN counts as wrong.

The positive class is success, as in the paper's Table I. Failure recall and precision look at the
same table from the other side, because a missed failure is what hurts on a robot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from scipy.stats import binomtest

from ifailsense_ros.core.verdict import Outcome


@dataclass(frozen=True)
class Confusion:
    """Counts of (truth, verdict); UNKNOWN is kept apart, and is wrong in accuracy and recall."""

    true_success: int = 0
    missed_failure: int = 0
    true_failure: int = 0
    false_alarm: int = 0
    unknown_of_success: int = 0
    unknown_of_failure: int = 0

    @property
    def total(self) -> int:
        """Number of judged episodes."""
        return sum(asdict(self).values())

    @property
    def correct(self) -> int:
        """Number of right verdicts."""
        return self.true_success + self.true_failure


def confusion(truths: Sequence[bool], outcomes: Sequence[Outcome]) -> Confusion:
    """Count verdicts against truths.

    Args:
        truths: True where the instruction was carried out.
        outcomes: the verdicts, same length.

    Raises:
        ValueError: lengths differ.
    """
    if len(truths) != len(outcomes):
        raise ValueError(f"{len(truths)} truths but {len(outcomes)} verdicts")
    names = {
        (True, Outcome.SUCCESS): "true_success",
        (True, Outcome.FAILURE): "false_alarm",
        (True, Outcome.UNKNOWN): "unknown_of_success",
        (False, Outcome.SUCCESS): "missed_failure",
        (False, Outcome.FAILURE): "true_failure",
        (False, Outcome.UNKNOWN): "unknown_of_failure",
    }
    counts = dict.fromkeys(names.values(), 0)
    for truth, outcome in zip(truths, outcomes, strict=True):
        counts[names[bool(truth), Outcome(outcome)]] += 1
    return Confusion(**counts)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def summary(truths: Sequence[bool], outcomes: Sequence[Outcome]) -> dict:
    """Accuracy with its 95 % Wilson interval, precision, recall, F1, failure recall and precision.

    A ratio without a denominator is None. UNKNOWN is wrong in accuracy, recall and failure recall;
    it is no claim, so it does not enter the two precisions.
    """
    c = confusion(truths, outcomes)
    successes = c.true_success + c.false_alarm + c.unknown_of_success
    failures = c.true_failure + c.missed_failure + c.unknown_of_failure
    precision = _ratio(c.true_success, c.true_success + c.missed_failure)
    recall = _ratio(c.true_success, successes)
    f1 = 2 * precision * recall / (precision + recall) if precision and recall else None
    interval = None
    if c.total:
        ci = binomtest(c.correct, c.total).proportion_ci(method="wilson")
        interval = [round(float(ci.low), 4), round(float(ci.high), 4)]
    ratios = {
        "accuracy": _ratio(c.correct, c.total),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "failure_recall": _ratio(c.true_failure, failures),
        "failure_precision": _ratio(c.true_failure, c.true_failure + c.false_alarm),
        "unknown": _ratio(c.unknown_of_success + c.unknown_of_failure, c.total),
    }
    rounded = {k: None if v is None else round(v, 4) for k, v in ratios.items()}
    return {"n": c.total, **rounded, "accuracy_95": interval, "confusion": asdict(c)}
