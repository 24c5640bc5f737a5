"""Metrics of the paper (Sec. V-B) and what a robot needs beside them; UNKNOWN counts as wrong.

The positive class is success, as in the paper's Table I. Failure recall and precision look at the
same table from the other side, because a missed failure is what hurts on a robot.

Pairs of one scene are not independent (an episode is asked about twice, a failure lies beside its
twin), so intervals come from a bootstrap that draws whole scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from scipy.stats import binomtest

from ifailsense_ros.core.verdict import Outcome

RESAMPLES = 2000
SEED = 0
"""Of the bootstrap: fixed, so that the same predictions always give the same interval."""


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


_CELLS = tuple(f.name for f in fields(Confusion))
_NAMES = {
    (True, Outcome.SUCCESS): "true_success",
    (True, Outcome.FAILURE): "false_alarm",
    (True, Outcome.UNKNOWN): "unknown_of_success",
    (False, Outcome.SUCCESS): "missed_failure",
    (False, Outcome.FAILURE): "true_failure",
    (False, Outcome.UNKNOWN): "unknown_of_failure",
}


def confusion(truths: Sequence[bool], outcomes: Sequence[int]) -> Confusion:
    """Count verdicts against truths.

    Args:
        truths: True where the instruction was carried out.
        outcomes: the verdicts (numbers of `Outcome`), same length.

    Raises:
        ValueError: lengths differ.
    """
    return Confusion(*(int(n) for n in _table(truths, outcomes).sum(0)))


def _table(truths: Sequence[bool], outcomes: Sequence[int]) -> np.ndarray:
    """int (n, 6): the cell of each row as a one among zeros."""
    if len(truths) != len(outcomes):
        raise ValueError(f"{len(truths)} truths but {len(outcomes)} verdicts")
    cells = [
        _CELLS.index(_NAMES[bool(t), Outcome(o)]) for t, o in zip(truths, outcomes, strict=True)
    ]
    return np.eye(len(_CELLS), dtype=np.int64)[cells]


def _ratios(counts: np.ndarray) -> dict[str, np.ndarray]:
    """All figures of tables of counts (..., 6); NaN where a denominator is zero."""
    c = {name: counts[..., i].astype(float) for i, name in enumerate(_CELLS)}
    right = c["true_success"] + c["true_failure"]
    total = counts.sum(-1).astype(float)
    successes = c["true_success"] + c["false_alarm"] + c["unknown_of_success"]
    failures = c["true_failure"] + c["missed_failure"] + c["unknown_of_failure"]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = c["true_success"] / (c["true_success"] + c["missed_failure"])
        recall = c["true_success"] / successes
        return {
            "accuracy": right / total,
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall),
            "failure_recall": c["true_failure"] / failures,
            "failure_precision": c["true_failure"] / (c["true_failure"] + c["false_alarm"]),
            "false_alarms": c["false_alarm"] / successes,
            "unknown": (c["unknown_of_success"] + c["unknown_of_failure"]) / total,
        }


_ALL = list(range(len(_CELLS)))
_OF_SUCCESS = [_CELLS.index(c) for c in ("true_success", "false_alarm", "unknown_of_success")]
_OF_FAILURE = [_CELLS.index(c) for c in ("true_failure", "missed_failure", "unknown_of_failure")]
_CALLED_SUCCESS = [_CELLS.index(c) for c in ("true_success", "missed_failure")]
_BELOW = {
    "accuracy": _ALL,
    "precision": _CALLED_SUCCESS,
    "recall": _OF_SUCCESS,
    "f1": sorted({*_OF_SUCCESS, *_CALLED_SUCCESS}),
    "failure_recall": _OF_FAILURE,
    "failure_precision": [_CELLS.index(c) for c in ("true_failure", "false_alarm")],
    "false_alarms": _OF_SUCCESS,
    "unknown": _ALL,
}
"""Cells that a figure's denominator adds up."""


def summary(
    truths: Sequence[bool],
    outcomes: Sequence[int],
    clusters: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
) -> dict:
    """Accuracy, precision, recall, F1, failure recall and precision, false alarms, each with its
    95 % interval (`NAME_95`).

    A ratio without a denominator is None. UNKNOWN is wrong in accuracy, recall and failure recall;
    it is no claim, so it does not enter the two precisions and is no false alarm.

    Args:
        truths: True where the instruction was carried out.
        outcomes: the verdicts.
        clusters: name of each row's scene; None: every row is one of its own.
        resamples: of the bootstrap.

    Raises:
        ValueError: lengths differ.
    """
    table = _table(truths, outcomes)
    counts = table.sum(0)
    found = {name: float(value) for name, value in _ratios(counts).items()}
    places = np.arange(len(table)) if clusters is None else _numbered(clusters, len(table))
    per_cluster = np.zeros((int(places.max(initial=-1)) + 1, len(_CELLS)), np.int64)
    np.add.at(per_cluster, places, table)
    intervals = _intervals(per_cluster, resamples)
    out: dict = {"n": int(counts.sum()), "scenes": len(per_cluster)}
    for name, value in found.items():
        known = not np.isnan(value)
        out[name] = round(value, 4) if known else None
        out[f"{name}_95"] = intervals.get(name) if known else None
    out["confusion"] = dict(zip(_CELLS, (int(n) for n in counts), strict=True))
    return out


def _numbered(clusters: Sequence[str], rows: int) -> np.ndarray:
    if len(clusters) != rows:
        raise ValueError(f"{rows} truths but {len(clusters)} scenes")
    return np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]


def _intervals(per_cluster: np.ndarray, resamples: int) -> dict[str, list[float]]:
    """95 % percentile intervals of all figures over resampled scenes.

    Where no resample differs (nothing was wrong at all, say) the bootstrap has nothing to say; then
    it is Wilson's interval with one draw a scene that the figure is about.
    """
    n = len(per_cluster)
    if n == 0:
        return {}
    rng = np.random.default_rng(SEED)
    draws = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    sampled = _ratios(draws @ per_cluster)
    found = {}
    for name, values in sampled.items():
        values = values[~np.isnan(values)]
        if not len(values):
            continue
        low, high = np.quantile(values, [0.025, 0.975])
        if low == high and low in (0.0, 1.0):
            draws_of_it = int(np.count_nonzero(per_cluster[:, _BELOW[name]].sum(1)))
            ci = binomtest(round(low * draws_of_it), draws_of_it).proportion_ci(method="wilson")
            low, high = ci.low, ci.high
        found[name] = [round(float(low), 4), round(float(high), 4)]
    return found


def compare(
    right_a: Sequence[bool],
    right_b: Sequence[bool],
    clusters: Sequence[str],
    *,
    resamples: int = RESAMPLES,
) -> dict:
    """Two methods on the same pairs: is one more accurate?

    Args:
        right_a, right_b: whether each was right, row by row on the same pairs.
        clusters: scene of each row.
        resamples: of bootstrap and permutation test.

    Returns:
        `difference` of accuracies (a - b) with its 95 % interval; `only_a`, `only_b`: pairs that
        only one got right; `p`: two-sided, of a permutation test that swaps the methods scene by
        scene.

    Raises:
        ValueError: lengths differ.
    """
    a, b = np.asarray(right_a, float), np.asarray(right_b, float)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} pairs of one method but {len(b)} of the other")
    places = _numbered(clusters, len(a))
    count = int(places.max(initial=-1)) + 1
    sums = [np.bincount(places, weights=x, minlength=count) for x in (a, b)]
    sizes = np.bincount(places, minlength=count)
    rng = np.random.default_rng(SEED)
    draws = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    differences = (draws @ (sums[0] - sums[1])) / (draws @ sizes)
    # Under "no difference" the methods' names may be swapped scene by scene: a random sign each.
    found = np.abs((sums[0] - sums[1]).sum())
    signs = rng.choice((-1.0, 1.0), size=(resamples, count))
    as_large = np.count_nonzero(np.abs(signs @ (sums[0] - sums[1])) >= found - 1e-9)
    low, high = np.quantile(differences, [0.025, 0.975])
    return {
        "n": len(a),
        "difference": round(float(a.mean() - b.mean()), 4),
        "difference_95": [round(float(low), 4), round(float(high), 4)],
        "only_a": int(((a > 0) & (b == 0)).sum()),
        "only_b": int(((b > 0) & (a == 0)).sum()),
        "p": round((1 + as_large) / (1 + resamples), 4),
    }
