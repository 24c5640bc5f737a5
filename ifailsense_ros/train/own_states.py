"""Hidden states of some samples only, and of both classes equally often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ifailsense_ros.train.features import Rows
from ifailsense_ros.train.hidden import HiddenStates


class _Picked(Rows):
    """Some rows of others, in any order and as often as wanted."""

    def __init__(self, rows: Rows, picks: np.ndarray) -> None:
        super().__init__([np.empty((0, *rows.shape[1:]), rows.dtype)])
        self._rows, self._picks = rows, picks
        self.shape = (len(picks), *rows.shape[1:])

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        return self._rows[self._picks[np.asarray(rows, dtype=np.int64)]]


def picked(data: HiddenStates, picks: np.ndarray) -> HiddenStates:
    """The states of some samples."""
    return HiddenStates(
        _Picked(data.states, picks),
        data.mask[picks],
        data.labels[picks],
        data.vlm[picks],
        data.categories[picks],
    )


def balanced(labels: np.ndarray) -> np.ndarray:
    """Rows such that both classes occur equally often: those of the rarer one again and again."""
    classes = [np.flatnonzero(labels), np.flatnonzero(~labels)]
    most = max(len(rows) for rows in classes)
    return np.concatenate([np.resize(rows, most) for rows in classes])
