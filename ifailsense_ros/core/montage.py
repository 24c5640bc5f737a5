"""Montage: the keyframes of an episode as one picture, rows = PoV, columns = time.

The paper's picture in R^{3 x (H N) x (W T)} (Sec. IV-A).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ifailsense_ros.core.episode import POV_NAMES, Episode
from ifailsense_ros.core.verdict import Outcome, Verdict, Vote


@dataclass(frozen=True)
class MontageGeometry:
    """Size of a checkpoint's montage.

    Attributes:
        num_pov: N, rows.
        num_keyframes: T, columns.
        cell_height: pixels of one view.
        cell_width: pixels of one view.

    Raises:
        ValueError: one of them is below 1.
    """

    num_pov: int
    num_keyframes: int
    cell_height: int
    cell_width: int

    def __post_init__(self) -> None:
        for name in ("num_pov", "num_keyframes", "cell_height", "cell_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"montage geometry: {name} is {getattr(self, name)}, must be >= 1")

    @property
    def height(self) -> int:
        """Of the whole montage, pixels."""
        return self.num_pov * self.cell_height

    @property
    def width(self) -> int:
        """Of the whole montage, pixels."""
        return self.num_keyframes * self.cell_width


def fit_cell(image: np.ndarray, geometry: MontageGeometry) -> np.ndarray:
    """Bring one view to the model's cell. The paper squashes: the aspect ratio is not kept.

    Args:
        image: uint8 RGB (H, W, 3).
        geometry: whose cell is wanted.

    Returns:
        uint8 RGB (cell_height, cell_width, 3), contiguous; the image itself if it already is.

    Raises:
        ValueError: not uint8, not three channels, or empty.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"a view must be uint8 RGB (H, W, 3) and not empty, got {image.dtype} {image.shape}"
        )
    height, width = image.shape[:2]
    cell = (geometry.cell_height, geometry.cell_width)
    if (height, width) == cell:
        return np.ascontiguousarray(image)
    # INTER_AREA averages when shrinking (no aliasing), but is blocky when growing. Where one side
    # shrinks and the other grows, each is done by its own rule.
    shrunk = (min(height, cell[0]), min(width, cell[1]))
    if shrunk != (height, width):
        image = cv2.resize(image, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if shrunk != cell:
        image = cv2.resize(image, cell[::-1], interpolation=cv2.INTER_LINEAR)
    return image


def compose(episode: Episode, geometry: MontageGeometry) -> np.ndarray:
    """The montage of an episode.

    Args:
        episode: T keyframes of N views; views that already have cell size are taken as they are.
        geometry: of the checkpoint.

    Returns:
        uint8 RGB (N * cell_height, T * cell_width, 3).

    Raises:
        ValueError: the episode has another T or N, or a view is no image.
    """
    if len(episode.keyframes) != geometry.num_keyframes:
        raise ValueError(
            f"the episode has {len(episode.keyframes)} keyframes, the montage has "
            f"{geometry.num_keyframes} columns"
        )
    montage = np.empty((geometry.height, geometry.width, 3), np.uint8)
    for column, keyframe in enumerate(episode.keyframes):
        if len(keyframe.views) != geometry.num_pov:
            raise ValueError(
                f"keyframe {column} has {len(keyframe.views)} views, the montage has "
                f"{geometry.num_pov} rows"
            )
        left = column * geometry.cell_width
        for row, view in enumerate(keyframe.views):
            top = row * geometry.cell_height
            montage[top : top + geometry.cell_height, left : left + geometry.cell_width] = fit_cell(
                view, geometry
            )
    return montage


_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK = (25, 25, 25)
_PAPER = (250, 250, 250)
_COLOURS = {
    Outcome.SUCCESS: (24, 122, 52),
    Outcome.FAILURE: (190, 30, 30),
    Outcome.UNKNOWN: (105, 105, 105),
}
_MIN_WIDTH = 560
_MARGIN = 10
_LINE = 22


def annotate(
    montage: np.ndarray,
    verdict: Verdict,
    geometry: MontageGeometry,
    *,
    truth: str | None = None,
    scale: int = 2,
) -> np.ndarray:
    """The montage enlarged, with the verdict drawn in: what people look at.

    Args:
        montage: uint8 RGB (N * cell_height, C * cell_width, 3). C may be less than T: an UNKNOWN
            episode has what keyframes there were, none at all being (0, 0, 3).
        verdict: what to draw: verdict, p, instruction, votes, reason, keyframe times.
        geometry: of the montage.
        truth: what really happened, where it is known.
        scale: pixels per montage pixel, >= 1.

    Returns:
        uint8 RGB, a new picture.

    Raises:
        ValueError: scale < 1.
    """
    if scale < 1:
        raise ValueError(f"scale is {scale}, must be >= 1")
    judgement = verdict.judgement
    colour = _COLOURS[judgement.outcome]
    width = max(montage.shape[1] * scale, _MIN_WIDTH) + 2 * _MARGIN
    parts = [_banner(verdict, colour, width)]
    parts.append(text_lines([f'"{verdict.instruction}"'], width, size=0.6))
    if montage.size:
        parts.append(_grid(montage, verdict, geometry, scale, width))
    lines = []
    if judgement.votes:
        lines.append("votes   " + "  |  ".join(_vote_text(v) for v in judgement.votes))
    if judgement.detail:
        lines.append(f"reason   {judgement.reason.name}: {judgement.detail}")
    if truth is not None:
        lines.append(f"truth   {truth}")
    if verdict.model_id:
        lines.append(f"model   {verdict.model_id}   latency {verdict.latency_ns / 1e9:.2f} s")
    parts.append(text_lines(lines, width, size=0.45))
    picture = np.vstack(parts)
    cv2.rectangle(picture, (0, 0), (width - 1, picture.shape[0] - 1), colour, 3)
    return picture


def _banner(verdict: Verdict, colour: tuple[int, int, int], width: int) -> np.ndarray:
    banner = np.full((36, width, 3), colour, np.uint8)
    judgement = verdict.judgement
    text = judgement.outcome.name
    if judgement.outcome is Outcome.UNKNOWN:
        text += f"  {judgement.reason.name}"
    else:
        text += f"  p(success) = {judgement.p_success:.2f}"
    cv2.putText(banner, text, (_MARGIN, 25), _FONT, 0.7, _PAPER, 2, cv2.LINE_AA)
    return banner


def _grid(
    montage: np.ndarray, verdict: Verdict, geometry: MontageGeometry, scale: int, width: int
) -> np.ndarray:
    """The enlarged montage with thin lines between cells, PoV names and keyframe times."""
    cells = cv2.resize(montage, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    cell_h, cell_w = geometry.cell_height * scale, geometry.cell_width * scale
    for left in range(cell_w, cells.shape[1], cell_w):
        cells[:, left - 1 : left + 1] = _PAPER
    for top in range(cell_h, cells.shape[0], cell_h):
        cells[top - 1 : top + 1] = _PAPER
    for row, name in zip(range(0, cells.shape[0], cell_h), POV_NAMES, strict=False):
        (text_w, text_h), _ = cv2.getTextSize(name, _FONT, 0.4, 1)
        cells[row + 2 : row + text_h + 10, 2 : text_w + 10] = _PAPER
        cv2.putText(cells, name, (6, row + text_h + 6), _FONT, 0.4, _INK, 1, cv2.LINE_AA)
    part = np.full((cells.shape[0] + _LINE, width, 3), _PAPER, np.uint8)
    left = (width - cells.shape[1]) // 2
    part[: cells.shape[0], left : left + cells.shape[1]] = cells
    stamps = verdict.keyframe_stamps_ns
    for column, stamp in enumerate(stamps):
        text = f"{(stamp - stamps[0]) / 1e9:+.1f} s" if column else "first"
        (text_w, _), _ = cv2.getTextSize(text, _FONT, 0.42, 1)
        x = left + column * cell_w + (cell_w - text_w) // 2
        cv2.putText(part, text, (x, part.shape[0] - 7), _FONT, 0.42, _INK, 1, cv2.LINE_AA)
    return part


def text_lines(lines: list[str], width: int, *, size: float) -> np.ndarray:
    """Lines of text as a picture, wrapped at blanks to its width.

    Args:
        lines: one or more.
        width: of the picture, pixels.
        size: of the letters, as OpenCV counts it (0.45 is 10 pixels high).

    Returns:
        uint8 RGB (H, width, 3).
    """
    wrapped = [w for line in lines for w in _wrap(line, width - 2 * _MARGIN, size)]
    part = np.full((_LINE * len(wrapped) + 8, width, 3), _PAPER, np.uint8)
    for i, line in enumerate(wrapped):
        at = (_MARGIN, _LINE * (i + 1) - 2)
        cv2.putText(part, line, at, _FONT, size, _INK, 1, cv2.LINE_AA)
    return part


def _wrap(text: str, width: int, size: float) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and cv2.getTextSize(longer, _FONT, size, 1)[0][0] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _vote_text(vote: Vote) -> str:
    text = f"{vote.source} {vote.value.name.lower()}"
    return text if math.isnan(vote.p_success) else f"{text} {vote.p_success:.2f}"
