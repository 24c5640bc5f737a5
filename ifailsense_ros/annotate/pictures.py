"""The keyframes of an episode as one picture for people, larger than what a detector sees."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ifailsense_ros.core.episode import POV_NAMES, Keyframe
from ifailsense_ros.core.errors import DataError
from ifailsense_ros.core.montage import text_lines
from ifailsense_ros.data.records import EpisodeRecord

KEYFRAMES = 6
_CELL = 320
_GAP = 3
_PAPER = (250, 250, 250)
_QUALITY = 88


def picture_of(record: EpisodeRecord, keyframes: int = KEYFRAMES) -> bytes:
    """JPEG of an episode: rows = PoV, columns = time, with the time under each column.

    Args:
        record: of a reader.
        keyframes: columns, where there are as many time steps.

    Raises:
        DataError: its pictures cannot be read.
    """
    count = min(keyframes, len(record.stamps_ns))
    if count < 1:
        raise DataError(f"{record.source} {record.key}: has no pictures")
    ok, data = cv2.imencode(
        ".jpg",
        cv2.cvtColor(drawn(record.keyframes(count)), cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, _QUALITY],
    )
    assert ok
    return data.tobytes()


def drawn(keyframes: Sequence[Keyframe]) -> np.ndarray:
    """uint8 RGB: each view in a cell of its own row's height, its proportions kept."""
    rows = []
    for pov in range(len(keyframes[0].views)):
        cells = [_cell(k.views[pov]) for k in keyframes]
        height = max(cell.shape[0] for cell in cells)
        row = np.hstack([_padded(cell, height) for cell in cells])
        name = text_lines([POV_NAMES[pov]], 90, size=0.5)
        row[: name.shape[0], : name.shape[1]] = name[:, : row.shape[1]]
        rows.append(row)
    first = keyframes[0].stamp_ns
    times = [
        f"{(k.stamp_ns - first) / 1e9:+.1f} s" if i else "first" for i, k in enumerate(keyframes)
    ]
    rows.append(np.hstack([text_lines([text], _CELL + _GAP, size=0.6) for text in times]))
    return np.vstack(rows)


def _cell(view: np.ndarray) -> np.ndarray:
    height = max(1, round(view.shape[0] * _CELL / view.shape[1]))
    shrinks = view.shape[1] > _CELL
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(view, (_CELL, min(height, 2 * _CELL)), interpolation=how)


def _padded(cell: np.ndarray, height: int) -> np.ndarray:
    made = np.full((height + _GAP, _CELL + _GAP, 3), _PAPER, np.uint8)
    made[: cell.shape[0], :_CELL] = cell
    return made
