"""ROC and precision-recall curves of p_success, ties taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.integrate import trapezoid


@dataclass(frozen=True)
class Curve:
    """A curve in the unit square.

    Attributes:
        x, y: (n,) float64, from the strictest threshold to the loosest.
        area: below it: AUC of an ROC curve, average precision of a precision-recall curve.
    """

    x: np.ndarray
    y: np.ndarray
    area: float


def _counts(
    scores: Sequence[float], positive: Sequence[bool]
) -> tuple[np.ndarray, np.ndarray] | None:
    """True and false positives at every threshold, from above the highest score downward.

    Args:
        scores: (n,) the higher, the more positive.
        positive: (n,) the truth.

    Returns:
        None where one of the classes is missing.

    Raises:
        ValueError: lengths differ, or a score is no number.
    """
    s, p = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if s.ndim != 1 or s.shape != p.shape or not np.isfinite(s).all():
        raise ValueError(f"{s.shape} scores, all of which must be numbers, and {p.shape} classes")
    if p.all() or not p.any():
        return None
    order = np.argsort(-s, kind="stable")
    s, p = s[order], p[order]
    # Samples with the same score pass the threshold together.
    ends = np.r_[np.flatnonzero(np.diff(s)), len(s) - 1]
    true = np.cumsum(p)[ends]
    return np.r_[0, true], np.r_[0, ends + 1 - true]


def roc(scores: Sequence[float], positive: Sequence[bool]) -> Curve | None:
    """True positive rate over false positive rate. Arguments, None and errors as in `_counts`."""
    counts = _counts(scores, positive)
    if counts is None:
        return None
    true, false = counts
    x, y = false / false[-1], true / true[-1]
    return Curve(x, y, float(trapezoid(y, x)))


def precision_recall(scores: Sequence[float], positive: Sequence[bool]) -> Curve | None:
    """Precision (y) over recall (x); the area is the average precision.

    The curve begins at the first threshold that something passes: at recall 0 there is no precision
    to speak of. Arguments, None and errors as in `_counts`.
    """
    counts = _counts(scores, positive)
    if counts is None:
        return None
    true, false = (count[1:] for count in counts)
    recall, precision = true / true[-1], true / (true + false)
    area = float(np.sum(np.diff(np.r_[0.0, recall]) * precision))
    return Curve(recall, precision, area)


def thinned(curve: Curve, most: int = 400) -> Curve:
    """The curve with fewer points for drawing, ends kept; the area stays that of the whole."""
    if len(curve.x) <= most:
        return curve
    kept = np.unique(np.linspace(0, len(curve.x) - 1, most).round().astype(int))
    return Curve(curve.x[kept], curve.y[kept], curve.area)
