"""What `train/calibrate.py` fits: temperatures, and the statistics of the guard."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from ifailsense_ros.core.calibration import (
    GuardSettings,
    Temperatures,
    ranks_within,
    threshold,
    vote_log_odds,
)
from ifailsense_ros.core.guard import Guard

GUARD_RATE = 0.005
"""Share of montages like the validation ones that the guard may refuse."""
_DIRECTIONS = 64


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature > 0 of least log-loss.

    Against Platt's targets, (n + 1) / (n + 2) for 1 and 1 / (n + 2) for 0 with the n of the class:
    a voter without a mistake on n samples must not be called infinitely sure.

    Args:
        logits: (n,); NaN where the voter had no say.
        labels: (n,) bool.
    """
    has_say = np.isfinite(logits)
    z, y = logits[has_say], labels[has_say]
    if not len(z):
        return 1.0
    targets = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))

    def loss(log_temperature: float) -> float:
        s = z / math.exp(log_temperature)
        return float(np.mean(np.logaddexp(0.0, s) - targets * s))

    return math.exp(minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded").x)


def fit_temperatures(
    logits: np.ndarray, labels: np.ndarray, weights: Sequence[float]
) -> Temperatures:
    """Of every voter (n, K + 1), the VLM last, and then of the vote that they make together."""
    each = [fit_temperature(column, labels) for column in logits.T]
    odds = vote_log_odds(logits / each, weights)
    return Temperatures(tuple(each[:-1]), each[-1], fit_temperature(odds, labels))


def scaled(logits: np.ndarray, temperatures: Temperatures) -> np.ndarray:
    """Logits (n, K + 1), divided by the voters' temperatures."""
    return logits / [*temperatures.fs, temperatures.vlm]


def fit_guard(cells: np.ndarray) -> Guard | None:
    """Statistics of training cells (m, N, T, d); None where they are all alike (a blind control).

    The directions are rounded as the file keeps them, so that thresholds fit what is loaded.
    """
    parts = []
    for n in range(cells.shape[1]):
        x = cells[:, n].reshape(-1, cells.shape[-1]).astype(np.float64)
        mean = x.mean(0)
        values, vectors = np.linalg.eigh((x - mean).T @ (x - mean) / len(x))
        values, vectors = values[::-1], vectors[:, ::-1]
        if values[0] < 1e-8:
            return None
        k = max(1, min(_DIRECTIONS, x.shape[1] // 2, len(x) // 4))
        least = 1e-6 * values[0]
        rest = max(float(values[k:].mean()), least)
        parts.append((mean, vectors[:, :k].T, np.maximum(values[:k], least), rest))
    mean, basis, variance, rest = (np.array(part) for part in zip(*parts, strict=True))
    single = (a.astype(np.float32) for a in (mean, basis.astype(np.float16), variance, rest))
    return Guard(*single)


def guard_settings(guard: Guard, cells: np.ndarray, montages: int) -> GuardSettings:
    """The threshold that montages like these, which the guard was not fitted on, rarely pass.

    Args:
        guard: fitted.
        cells: (m, N, T, d) of validation montages.
        montages: that the guard was fitted on.
    """
    n = len(cells)
    rate = max(GUARD_RATE, 1 / (n + 1))
    return GuardSettings(
        threshold=threshold(guard.distances(cells), rate),
        rate=ranks_within(rate, n) / (n + 1),
        montages=montages,
    )
