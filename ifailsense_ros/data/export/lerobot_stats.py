"""Statistics of a LeRobotDataset: per episode, and of all together, as LeRobot normalises by them.

Per feature min, max, mean, std and count. Pictures count in [0, 1] and by channel, from a sample
of their frames and pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Stats = dict[str, dict[str, np.ndarray]]
"""Feature -> name of the statistic -> value; pictures' have the shape (3, 1, 1), others' (1,)."""

_EVERY_PIXEL = 4


class PictureStats:
    """Channel statistics of the frames of one camera, gathered as they go by."""

    def __init__(self) -> None:
        self._low = np.full(3, np.inf)
        self._high = np.full(3, -np.inf)
        self._sum = np.zeros(3)
        self._squares = np.zeros(3)
        self._pixels = self._frames = 0

    def add(self, picture: np.ndarray) -> None:
        """Take a frame, uint8 RGB (H, W, 3)."""
        pixels = picture[::_EVERY_PIXEL, ::_EVERY_PIXEL].reshape(-1, 3) / 255
        self._low = np.minimum(self._low, pixels.min(0))
        self._high = np.maximum(self._high, pixels.max(0))
        self._sum += pixels.sum(0)
        self._squares += (pixels**2).sum(0)
        self._pixels += len(pixels)
        self._frames += 1

    def result(self) -> dict[str, np.ndarray]:
        """The statistics of the frames so far."""
        mean = self._sum / self._pixels
        variance = np.maximum(self._squares / self._pixels - mean**2, 0)
        values = {"min": self._low, "max": self._high, "mean": mean, "std": np.sqrt(variance)}
        stats = {name: value.reshape(3, 1, 1) for name, value in values.items()}
        return {**stats, "count": np.array([self._frames])}


def is_quantile(name: str) -> bool:
    """Whether a statistic is one of LeRobot's quantiles ("q01", "q50", "q99")."""
    return name.startswith("q") and name[1:].isdecimal()


def column_stats(values: np.ndarray) -> dict[str, np.ndarray]:
    """The statistics of a column of numbers or truth values."""
    numbers = values.astype(np.float64)
    return {
        "min": numbers.min(keepdims=True),
        "max": numbers.max(keepdims=True),
        "mean": numbers.mean(keepdims=True),
        "std": numbers.std(keepdims=True),
        "count": np.array([len(numbers)]),
    }


def flat_columns(stats: Stats) -> dict[str, Any]:
    """As columns of meta/episodes: stats/<feature>/<statistic>, nested lists."""
    return {
        f"stats/{feature}/{name}": value.tolist()
        for feature, values in stats.items()
        for name, value in values.items()
    }


class TotalStats:
    """The statistics of all episodes, from those of each."""

    def __init__(self) -> None:
        self._total: Stats = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Take an episode's, from the columns that `flat_columns` makes."""
        for feature in {name.split("/")[1] for name in row if name.startswith("stats/")}:
            start = f"stats/{feature}/"
            one = {
                name.removeprefix(start): np.asarray(value, np.float64)
                for name, value in row.items()
                if name.startswith(start) and value is not None
            }
            if any(name not in one for name in ("min", "max", "mean", "std", "count")):
                continue
            known = self._total.get(feature)
            self._total[feature] = one if known is None else _merged(known, one)

    def as_json(self) -> dict[str, dict[str, list]]:
        """The content of meta/stats.json."""
        return {
            feature: {
                name: (value.astype(np.int64) if name == "count" else value).tolist()
                for name, value in stats.items()
            }
            for feature, stats in sorted(self._total.items())
        }


def _merged(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    count = a["count"] + b["count"]
    share = float(b["count"][0] / count[0])
    apart = b["mean"] - a["mean"]
    variance = (1 - share) * a["std"] ** 2 + share * b["std"] ** 2
    variance += share * (1 - share) * apart**2
    # Those of all cannot be had from those of parts: LeRobot takes the outermost.
    quantiles = {
        name: (np.minimum if int(name[1:]) <= 50 else np.maximum)(a[name], b[name])
        for name in a.keys() & b.keys()
        if is_quantile(name)
    }
    return {
        **quantiles,
        "min": np.minimum(a["min"], b["min"]),
        "max": np.maximum(a["max"], b["max"]),
        "mean": a["mean"] + share * apart,
        "std": np.sqrt(variance),
        "count": count,
    }
