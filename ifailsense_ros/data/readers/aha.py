"""Data of AHA and of its generator FailGen: keyframe folders, and questions about strips of them.

Two layouts, both from NVlabs/AHA (see docs/readers.md):

- FailGen's keyframes, a folder an episode, all of them failures::

      <task>_<failure>[_wp<i>]_episode<n>/<view>_<k>.png      view: front, wrist, overhead

- a JSON list of {id, image, conversations}: "... the robot arm performing <sub-task>. ..." is
  answered "Yes, ..." or "No, <reason>". The picture ``<episode>_combined_view_<k>.jpg`` is a strip
  of keyframes of which the first k + 2 have happened; or the keyframe folder lies beside it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.failure_classes import (
    INADEQUATE_GRIP_RETENTION,
    INCOMPLETE_GRASP,
    INCORRECT_ROTATION,
    MISALIGNED_KEYFRAME,
    MISSING_ROTATION,
    WRONG_ACTION_SEQUENCE,
    WRONG_TARGET_OBJECT,
)
from ifailsense_ros.data.readers.base import BaseReader, read_json, read_picture
from ifailsense_ros.data.records import EpisodeRecord
from ifailsense_ros.data.task_categories import verb_category

STEP_NS = 10**9
"""There are no stamps: keyframes count as one second apart."""

FAILURES = {
    "grasp": INCOMPLETE_GRASP,
    "slip": INADEQUATE_GRIP_RETENTION,
    **{f"translation_{axis}": MISALIGNED_KEYFRAME for axis in "xyz"},
    **{f"rotation_{axis}": INCORRECT_ROTATION for axis in "xyz"},
    "no_rotation": MISSING_ROTATION,
    "wrong_sequence": WRONG_ACTION_SEQUENCE,
    "wrong_object": WRONG_TARGET_OBJECT,
}
"""FailGen's failure types -> the seven classes of AHA's paper."""

# Longest first: "no_rotation" before anything that ends in "rotation".
_TYPES = "|".join(sorted(FAILURES, key=len, reverse=True))
_EPISODE = re.compile(rf"(?P<task>.+?)_(?P<failure>{_TYPES})(?:_wp\d+)?_episode\d+")
_VIEW = re.compile(r"(?P<view>[A-Za-z_]+)_(?P<step>\d+)\.(?:png|jpe?g)", re.IGNORECASE)
_STRIP = re.compile(r"(?P<episode>.+)_combined_view_(?P<step>\d+)")
# "performing" is left out in some.
_SUB_TASK = re.compile(r"the robot arm\s+(?:performing\s+)?(.+?)\.(?:\s|$)", re.DOTALL)
_GAP = 10  # black pixels between the cells of a strip
_DARK = 40  # mean grey level of a gap at most: JPEG lets its neighbours bleed in


def failure_class(name: str) -> str:
    """One of `FAILURE_CLASSES` for a failure type of FailGen's; "" if it is none."""
    return FAILURES.get(name.strip().lower(), "")


class AhaReader(BaseReader):
    """FailGen's keyframe folders, or AHA's questions where `path` is a JSON file.

    Args:
        path: folder with FailGen's episode folders in it, one of them, or a JSON file.
        views: viewpoints that become PoV, exocentric first, separated by commas.
        pictures: folder that the JSON's pictures are relative to; None: the JSON's own, and any
            folder in it.
        keep_going: note what cannot be read in `problems` and go on.

    Raises:
        ConfigError: no view.
        DataError: no such path.
    """

    source = "aha"

    def __init__(
        self,
        path: str | Path,
        *,
        views: str = "front,wrist",
        pictures: str | Path | None = None,
        keep_going: bool = False,
    ) -> None:
        super().__init__(path, keep_going=keep_going)
        self._views = tuple(view.strip() for view in views.split(",") if view.strip())
        if not self._views:
            raise ConfigError(f"views is {views!r}: name at least one viewpoint, as in front,wrist")
        self._pictures = self.path.parent if pictures is None else Path(pictures)
        if not self._pictures.is_dir():
            raise DataError(f"{self._pictures}: no such folder; give the one with the pictures")

    def records(self) -> Iterator[EpisodeRecord]:
        """The episodes in the order of their folders, or the questions in the order of the file."""
        if self.path.is_file():
            yield from self._questions()
            return
        folders = [self.path.resolve()]
        if not _EPISODE.fullmatch(folders[0].name):
            folders = sorted(p for p in self.path.iterdir() if p.is_dir())
        named = [(p, match) for p in folders if (match := _EPISODE.fullmatch(p.name))]
        if not named:
            raise DataError(
                f"{self.path}: no folder in it is named <task>_<failure>_episode<n> as FailGen "
                "does; give its output folder, or a JSON file"
            )
        for folder, match in named:
            with self.noting(folder):
                yield self._episode(folder, match)

    def _episode(self, folder: Path, named: re.Match[str]) -> EpisodeRecord:
        steps = _find_views(folder, self._views)
        task = named["task"].replace("_", " ")
        return EpisodeRecord(
            source=self.source,
            key=folder.name,
            group=folder.name,
            instruction=task,
            task="",  # the attempt failed
            category=verb_category(task),
            kind=failure_class(named["failure"]),
            success=False,
            stamps_ns=tuple(i * STEP_NS for i in range(len(steps))),
            num_pov=len(self._views),
            read=_reader_of_files(steps),
        )

    def _questions(self) -> Iterator[EpisodeRecord]:
        entries = read_json(self.path)
        if not isinstance(entries, list):
            raise DataError(f"{self.path}: is no list of questions")
        asked = [_Question.parse(entry) if isinstance(entry, dict) else None for entry in entries]
        # An episode's strips are equally wide: the last sub-task fills the last cell.
        cells: dict[str, int] = defaultdict(int)
        for question in asked:
            if question is not None and question.episode:
                cells[question.episode] = max(cells[question.episode], question.step + 2)
        for number, (entry, question) in enumerate(zip(entries, asked, strict=True)):
            with self.noting(f"{self.path}: entry {number}"):
                yield self._question(entry, question, number, cells)

    def _question(
        self, entry: Any, question: _Question | None, number: int, cells: Mapping[str, int]
    ) -> EpisodeRecord:
        if question is None:
            fields = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
            raise DataError(f"has no image and conversations of texts (there is: {fields})")
        success = question.success()
        sub_task = question.sub_task()
        if not question.episode:
            raise DataError(
                f"image is {question.image!r}, neither <episode>_combined_view_<k> nor "
                "<episode>/<k>: what it shows is not known"
            )
        named = _EPISODE.fullmatch(question.episode)
        count = question.step + 2
        folder = self._find(question.episode)
        if folder is not None and folder.is_dir():
            # FailGen's pictures of a question leave out keyframe 0.
            files = _find_views(folder, self._views)[1:][:count]
            if len(files) < count:
                raise DataError(f"{folder}: {len(files)} keyframes after the first, not {count}")
            num_pov, read = len(self._views), _reader_of_files(files)
        else:
            picture = self._find(question.image)
            if picture is None:
                raise DataError(f"image {question.image!r} is not in {self._pictures}")
            num_pov, read = 1, _reader_of_strip(picture, cells[question.episode])
        return EpisodeRecord(
            source=self.source,
            key=f"{number:06d}/{question.episode}/{question.step}",  # may be asked about twice
            group=question.episode,
            instruction=sub_task,
            task="",
            category=verb_category(sub_task),
            # Never EXPERT, so that no pairs are made: earlier sub-tasks came true in it as well.
            kind="" if success or named is None else failure_class(named["failure"]),
            success=success,
            stamps_ns=tuple(i * STEP_NS for i in range(count)),
            num_pov=num_pov,
            read=read,
        )

    def _find(self, name: str) -> Path | None:
        """A file or folder of that name: where the JSON says, or by its last name below."""
        last = Path(name).name
        for candidate in (self._pictures / name, self._pictures / last):
            if candidate.exists():
                return candidate
        below = sorted(self._pictures.glob(f"*/{last}"))
        if len(below) > 1:
            raise DataError(
                f"{last} is in {self._pictures} more than once; name one with pictures="
            )
        return below[0] if below else None


@dataclass(frozen=True)
class _Question:
    """One entry: what is asked and answered about which sub-task of which episode.

    `step` is the number of the sub-task; `episode` is "" where the picture's name does not say.
    """

    image: str
    asked: str
    answered: str
    episode: str
    step: int

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> _Question | None:
        """None if fields are missing or of another type."""
        turns = entry.get("conversations")
        image = entry.get("image")
        if not isinstance(image, str) or not isinstance(turns, list) or len(turns) < 2:
            return None
        texts = [turn.get("value") if isinstance(turn, dict) else None for turn in turns[:2]]
        if not all(isinstance(text, str) for text in texts):
            return None
        path = Path(image.replace("\\", "/"))
        if strip := _STRIP.fullmatch(path.stem):
            return cls(image, *texts, episode=strip["episode"], step=int(strip["step"]))
        if path.stem.isdigit() and path.parent.name:
            return cls(image, *texts, episode=path.parent.name, step=int(path.stem))
        return cls(image, *texts, episode="", step=0)

    def success(self) -> bool:
        """The answer's first word."""
        word = re.match(r"\s*(yes|no)\b", self.answered, re.IGNORECASE)
        if word is None:
            raise DataError(f"the answer is {self.answered[:40]!r}, neither Yes nor No")
        return word.group(1).lower() == "yes"

    def sub_task(self) -> str:
        """What the question says the arm performs."""
        found = _SUB_TASK.search(self.asked)
        if found is None:
            raise DataError("the question does not say 'the robot arm performing <sub-task>.'")
        return " ".join(found.group(1).split())


def _find_views(folder: Path, views: Sequence[str]) -> list[tuple[Path, ...]]:
    """The files of each keyframe, one a view."""
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in folder.iterdir():
        if named := _VIEW.fullmatch(path.name):
            found[named["view"]][int(named["step"])] = path
    for view in views:
        if view not in found:
            there = ", ".join(sorted(found)) or "none"
            raise DataError(f"{folder}: no pictures {view}_<k>.png (views there: {there})")
    steps = sorted(found[views[0]])
    if steps != list(range(len(steps))) or any(sorted(found[view]) != steps for view in views):
        counts = {view: len(found[view]) for view in views}
        raise DataError(f"{folder}: keyframes are missing: {counts}; copy the data set again")
    return [tuple(found[view][step] for view in views) for step in steps]


def _reader_of_files(steps: Sequence[tuple[Path, ...]]) -> Any:
    def read(wanted: Sequence[int]) -> tuple[Keyframe, ...]:
        return tuple(
            Keyframe(i * STEP_NS, tuple(read_picture(path) for path in steps[i])) for i in wanted
        )

    return read


def _reader_of_strip(path: Path, cells: int) -> Any:
    def read(wanted: Sequence[int]) -> tuple[Keyframe, ...]:
        strip = read_picture(path)
        width = strip.shape[1]
        cell, rest = divmod(width - (cells - 1) * _GAP, cells)
        gaps = [(i + 1) * (cell + _GAP) - _GAP for i in range(cells - 1)]
        # Another number of cells may divide the width as well: there must be gaps where they meet.
        if cell < 1 or rest or any(strip[:, g + 2 : g + 8].mean() > _DARK for g in gaps):
            raise DataError(
                f"{path}: {width} pixels wide, which is not {cells} keyframes with {_GAP} pixels "
                "between them; put the keyframe folders beside the JSON"
            )
        lefts = [i * (cell + _GAP) for i in wanted]
        return tuple(
            Keyframe(i * STEP_NS, (np.ascontiguousarray(strip[:, left : left + cell]),))
            for i, left in zip(wanted, lefts, strict=True)
        )

    return read
