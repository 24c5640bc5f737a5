"""Parts of a montage that stage 0 is shown alone: the tower has seen all, the model has not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.montage import MontageGeometry
from ifailsense_ros.model.tiny import PATCH

MONTAGE = "montage"
ENDS = "ends"
EXO_ENDS = "exo_ends"
GRIPPER = "gripper"
VIEWS = (MONTAGE, ENDS, EXO_ENDS, GRIPPER)
"""All of it; the first and the last keyframe; these of the exocentric camera alone; all keyframes
of the gripper camera alone (of the exocentric one, where there is no other)."""


def tokens_of_view(view: str, geometry: MontageGeometry) -> np.ndarray:
    """Which of the tower's tokens belong to a view, in order, int64 (n,); CLS always does.

    Args:
        view: one of `VIEWS`.
        geometry: of the montage that the tower sees, its sides multiples of the patch.

    Raises:
        ConfigError: no such view.
    """
    if view not in VIEWS:
        raise ConfigError(f"view {view!r}: choose from {', '.join(VIEWS)}")
    # A patch belongs to the cell that its centre lies in.
    rows, columns = (
        (np.arange(size // PATCH) * PATCH + PATCH // 2) // cell
        for size, cell in (
            (geometry.height, geometry.cell_height),
            (geometry.width, geometry.cell_width),
        )
    )
    shown = np.ones((len(rows), len(columns)), bool)
    if view in (ENDS, EXO_ENDS):
        shown &= (columns == 0) | (columns == geometry.num_keyframes - 1)
    if view == EXO_ENDS:
        shown &= (rows == 0)[:, None]
    if view == GRIPPER:
        shown &= (rows == geometry.num_pov - 1)[:, None]
    return np.flatnonzero(np.concatenate([[True], shown.ravel()]))


def shown_features(
    features: np.ndarray, episodes: Sequence[int], shown: np.ndarray | None
) -> np.ndarray:
    """Features of some episodes, of the tokens that are shown (None: all), float32 (B, n, d).

    Args:
        features: (episodes of the set, n_img, d_vision).
    """
    chosen = features[list(episodes)]
    return (chosen if shown is None else chosen[:, shown]).astype(np.float32)
