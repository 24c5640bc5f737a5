"""What early warnings are worth: failures announced, how early, at what false alarm rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ifailsense_ros.evaluate.metrics import RESAMPLES, SEED
from ifailsense_ros.sim.tasks import CATEGORIES

FRACTIONS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of an attempt's time; the last one is its end."""

ALARM_RATES = (0.01, 0.05, 0.1, 0.2)
"""Shares of successful attempts that may be called failures."""

WAYS = {
    "early": "on the way and at the end, one threshold",
    "timed": "on the way and at the end, a threshold for each moment",
    "end": "at the end alone",
}
"""What is judged. The first is what a planner can do that does not know how long a motion takes."""


@dataclass(frozen=True)
class Look:
    """An attempt, and what the detector thought of it on its way.

    Attributes:
        seed, index: of the task.
        success: the oracle's word.
        duration_s: of the attempt.
        p_success: at each of `FRACTIONS`; NaN where it could not say.
    """

    seed: int
    index: int
    success: bool
    duration_s: float
    p_success: tuple[float, ...]


def figures(looks: Sequence[Look], resamples: int = RESAMPLES) -> dict:
    """What early warnings are worth.

    Returns:
        `attempts`, `failures`; under `at` by fraction how well p_success at that moment tells
        failures from successes (`auc`, `detected` at 5 % false alarms); under `announced` by false
        alarm rate and by one of `WAYS`: false alarms, failures announced, and the seconds before
        the end at which those announced were, in the mean and in the median. All with intervals
        over tasks (_95).

    Raises:
        ValueError: no failure, or no success.
    """
    rows = sorted(looks, key=lambda row: (row.seed, row.index))
    # What could not be said is no warning.
    said = np.nan_to_num(np.array([row.p_success for row in rows]), nan=1.0)
    good = np.array([row.success for row in rows])
    if good.all() or not good.any():
        raise ValueError("there must be failures and successes")
    left = np.array([[(1 - f) * row.duration_s for f in FRACTIONS] for row in rows])
    # Tasks take turns by category: whole turns, so that both halves have all categories.
    half = np.array([row.index // len(CATEGORIES) % 2 for row in rows])
    rng = np.random.default_rng(SEED)
    draws = rng.integers(len(rows), size=(resamples, len(rows)))
    out: dict = {"attempts": len(rows), "failures": int((~good).sum()), "at": {}, "announced": {}}
    for number, fraction in enumerate(FRACTIONS):
        p = said[:, [number]]
        found: dict = {}
        _put(found, "auc", draws, lambda some, p=p: _auc(p[some, 0], good[some]))
        warned = _crossed(p, good, half, 0.05)
        _put_announced(found, draws, warned, left[:, [number]], good)
        out["at"][f"{fraction:g}"] = found
    for rate in ALARM_RATES:
        out["announced"][f"{rate:g}"] = by_way = {}
        for way in WAYS:
            columns = slice(-1, None) if way == "end" else slice(None)
            warned = _crossed(said[:, columns], good, half, rate, one=way == "early")
            _put_announced(by_way.setdefault(way, {}), draws, warned, left[:, columns], good)
    return out


def thresholds(p: np.ndarray, good: np.ndarray, rate: float, *, one: bool) -> np.ndarray:
    """The highest thresholds for which at most a share of the successes is below them at any of its
    moments.

    Args:
        p: p_success, (attempts, moments).
        good: which attempts are successes; at least one.
        rate: the share.
        one: the same for all moments; else each moment's lies at the same rank of its successes.

    Returns:
        (moments,).
    """
    of_good = p[good]
    ranks = np.sort(of_good.min(1, keepdims=True) if one else of_good, axis=0)
    found = ranks[0]
    for rank in ranks:
        if (of_good < rank).any(1).mean() > rate:
            break
        found = rank
    return np.broadcast_to(found, p.shape[1:])


def _crossed(
    p: np.ndarray, good: np.ndarray, half: np.ndarray, rate: float, *, one: bool = True
) -> np.ndarray:
    """Which moments warn, (attempts, moments); each half with the thresholds of the other one."""
    warned = np.zeros(p.shape, bool)
    for number in (0, 1):
        others = half != number
        if good[others].any():
            warned[~others] = p[~others] < thresholds(p[others], good[others], rate, one=one)
    return warned


def _put_announced(
    out: dict, draws: np.ndarray, warned: np.ndarray, left: np.ndarray, good: np.ndarray
) -> None:
    announced = warned.any(1)
    first = left[np.arange(len(left)), warned.argmax(1)]
    shares = {
        "false_alarms": lambda some: _mean(announced[some][good[some]]),
        "detected": lambda some: _mean(announced[some][~good[some]]),
        "lead_s": lambda some: _mean(first[some][announced[some] & ~good[some]]),
        "median_lead_s": lambda some: _median(first[some][announced[some] & ~good[some]]),
    }
    for name, figure in shares.items():
        _put(out, name, draws, figure)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _auc(p: np.ndarray, good: np.ndarray) -> float:
    """How often a failure looks worse than a success; ties count half."""
    bad = np.sort(p[~good])
    if not len(bad) or not good.any():
        return math.nan
    below = np.searchsorted(bad, p[good], "left") + np.searchsorted(bad, p[good], "right")
    return float(below.mean() / (2 * len(bad)))


def _put(out: dict, name: str, draws: np.ndarray, figure: Callable[[np.ndarray], float]) -> None:
    value = figure(np.arange(draws.shape[1]))
    drawn = np.array([figure(some) for some in draws])
    drawn = drawn[~np.isnan(drawn)]
    if math.isnan(value) or not len(drawn):
        out[name] = out[f"{name}_95"] = None
        return
    out[name] = round(value, 4)
    out[f"{name}_95"] = [round(float(q), 4) for q in np.quantile(drawn, [0.025, 0.975])]
