"""CALVIN: frames in .npz files, windows of them annotated with a task and a sentence.

The layout is that of the data set's README and of the code that annotated it (mees/calvin; see
docs/readers.md)::

    training/ and validation/
        episode_0000000.npz ...              one time step: rgb_static, rgb_gripper, ...
        ep_start_end_ids.npy                 first and last frame of each recording
        lang_annotations/auto_lang_ann.npy   language.ann, language.task, info.indx
"""

from __future__ import annotations

import zipfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.core.errors import DataError, text_of
from ifailsense_ros.data.readers.base import BaseReader
from ifailsense_ros.data.readers.safe_npy import load_pickled_npy
from ifailsense_ros.data.records import EXPERT, EpisodeRecord
from ifailsense_ros.data.task_categories import calvin_category

SPLITS = ("training", "validation")
FRAME_RATE_HZ = 30
"""CALVIN was recorded at its control rate; the files carry frame numbers and no stamps."""

_CAMERAS = ("rgb_static", "rgb_gripper")
_ANNOTATIONS = ("lang_annotations/auto_lang_ann.npy", "auto_lang_ann.npy")


@dataclass(frozen=True)
class _Window:
    """One annotated window: frames start..end-1, what was done, what was said."""

    start: int
    end: int
    task: str
    instruction: str


class CalvinReader(BaseReader):
    """The annotated windows of a CALVIN data set, all of them successes.

    A record's `group` is the recording its window was cut from: windows overlap, so the same
    frames occur in several records of a group.

    Args:
        path: the data set (with training/ and validation/ in it), or one of those folders.
        split: "training" or "validation" only; None: all that are there.
        keep_going: note what cannot be read in `problems` and go on.

    Raises:
        DataError: no such folder, or not CALVIN's layout.
    """

    source = "calvin"

    def __init__(
        self, path: str | Path, *, split: str | None = None, keep_going: bool = False
    ) -> None:
        super().__init__(path, keep_going=keep_going)
        folders = [self.path / name for name in SPLITS if (self.path / name).is_dir()]
        if not folders and any((self.path / name).is_file() for name in _ANNOTATIONS):
            folders = [self.path]
        if split is not None:
            folders = [folder for folder in folders if folder.resolve().name == split]
        if not folders:
            wanted = " or ".join(f"{name}/" for name in ((split,) if split else SPLITS))
            raise DataError(
                f"{self.path}: has no {wanted} and no {_ANNOTATIONS[0]}; give the folder of a "
                "CALVIN data set (task_D_D, ...)"
            )
        self._folders = folders

    def records(self) -> Iterator[EpisodeRecord]:
        """The annotated windows, in the order of the annotations."""
        for folder in self._folders:
            path = next((p for n in _ANNOTATIONS if (p := folder / n).is_file()), None)
            path = path or folder / _ANNOTATIONS[0]
            with self.noting(path):
                recordings = _read_recordings(folder / "ep_start_end_ids.npy")
                count, window_of = _open_annotations(path)
                for index in range(count):
                    with self.noting(f"{path}: annotation {index}"):
                        yield _record(folder, index, window_of(index), recordings)


def _record(
    folder: Path, index: int, window: _Window, recordings: list[tuple[int, int]]
) -> EpisodeRecord:
    frames = range(window.start, window.end)
    first, last = _recording_of(frames, recordings)
    for frame in (frames[0], frames[-1]):
        if not _frame_path(folder, frame).is_file():
            raise DataError(f"{_frame_path(folder, frame)}: is missing; copy the data set again")
    split = folder.resolve().name

    def read(steps: Sequence[int]) -> tuple[Keyframe, ...]:
        return tuple(
            Keyframe(_stamp_ns(frames[step]), _read_frame(_frame_path(folder, frames[step])))
            for step in steps
        )

    return EpisodeRecord(
        source=CalvinReader.source,
        key=f"{split}/{index:06d}/{window.start}-{window.end}",
        group=f"{split}/{first}-{last}",
        instruction=window.instruction,
        task=window.task,
        category=calvin_category(window.task),
        kind=EXPERT,
        success=True,
        stamps_ns=tuple(_stamp_ns(frame) for frame in frames),
        num_pov=len(_CAMERAS),
        read=read,
    )


def _stamp_ns(frame: int) -> int:
    return frame * 10**9 // FRAME_RATE_HZ


def _frame_path(folder: Path, frame: int) -> Path:
    return folder / f"episode_{frame:07d}.npz"


def _read_frame(path: Path) -> tuple[np.ndarray, ...]:
    """The pictures of one time step: static camera, gripper camera."""
    views: list[np.ndarray] = []
    if path.is_file() and not zipfile.is_zipfile(path):
        raise DataError(f"{path}: is no .npz file, or a truncated one; copy the data set again")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in _CAMERAS:
                if name not in arrays:
                    raise DataError(f"{path}: {name} is missing (there are: {arrays.files})")
                views.append(arrays[name])
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; copy the data set again") from None
    except DataError:
        raise
    except Exception as error:  # damaged bytes fail in any of many ways inside NumPy and zipfile
        field = _CAMERAS[len(views)] if len(views) < len(_CAMERAS) else "the file"
        raise DataError(
            f"{path}: {field} cannot be read ({text_of(error)}); copy the data set again"
        ) from error
    for name, view in zip(_CAMERAS, views, strict=True):
        if view.dtype != np.uint8 or view.ndim != 3 or view.shape[2] != 3 or not view.size:
            raise DataError(
                f"{path}: {name} is {view.dtype} of shape {view.shape}, not a uint8 RGB picture"
            )
    return tuple(views)


def _read_recordings(path: Path) -> list[tuple[int, int]]:
    """First and last frame of every recording, in ascending order."""
    try:
        pairs = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(
            f"{path}: is missing; without it, frames of one recording would get into several splits"
        ) from None
    except Exception as error:  # as above
        raise DataError(
            f"{path}: cannot be read ({text_of(error)}); copy the data set again"
        ) from error
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise DataError(
            f"{path}: is {pairs.dtype} of shape {pairs.shape}, not pairs of frame numbers"
        )
    return sorted((int(first), int(last)) for first, last in pairs)


def _recording_of(frames: range, recordings: list[tuple[int, int]]) -> tuple[int, int]:
    place = bisect_right(recordings, frames[0], key=lambda pair: pair[0]) - 1
    if place >= 0 and frames[-1] <= recordings[place][1]:
        return recordings[place]
    raise DataError(
        f"info.indx: frames {frames[0]} to {frames[-1]} are not in one recording of "
        "ep_start_end_ids.npy"
    )


def _open_annotations(path: Path) -> tuple[int, Any]:
    """Number of annotations, and a function that gives one of them by index."""
    content = load_pickled_npy(path)
    lists: dict[str, Any] = {}
    for field in ("language.ann", "language.task", "info.indx"):
        outer, inner = field.split(".")
        part = content.get(outer) if isinstance(content, dict) else None
        value = part.get(inner) if isinstance(part, dict) else None
        if not isinstance(value, (list, tuple, np.ndarray)):
            raise DataError(f"{path}: {field} is missing or no list; copy the data set again")
        lists[field] = value
    counts = {field: len(value) for field, value in lists.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"{path}: lists of different length {counts}; copy the data set again")

    def window(index: int) -> _Window:
        sentence, task = lists["language.ann"][index], lists["language.task"][index]
        for field, text in (("language.ann", sentence), ("language.task", task)):
            if not isinstance(text, str) or not text.strip():
                raise DataError(f"{field} is {text!r}, not a text")
        bounds = lists["info.indx"][index]
        try:
            start, end = (int(bound) for bound in bounds)
        except (TypeError, ValueError):
            raise DataError(f"info.indx is {bounds!r}, not a pair of frame numbers") from None
        if not 0 <= start < end:
            raise DataError(f"info.indx is {bounds!r}, not start before end")
        return _Window(start, end, str(task), str(sentence))

    return len(lists["language.ann"]), window
