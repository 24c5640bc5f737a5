"""LeRobotDataset v3.0 and v2.x as records: DROID, RLBench, LIBERO and anything else in that form.

Labels come, in this order, from a `success` column of the episodes or of their rows, from DROID's
`is_episode_successful`, from `next.success` of the last row. Where there is none, `success` is
None: say `label=success` of demonstrations.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.data.bag_sidecar import LABELS
from ifailsense_ros.data.readers.base import BaseReader, decode_picture
from ifailsense_ros.data.readers.lerobot_cameras import pick_cameras
from ifailsense_ros.data.readers.lerobot_meta import (
    OWN,
    EpisodeEntry,
    entry_of,
    episode_files,
    episode_rows,
    open_parquet,
    read_info,
    read_tasks,
    reading,
)
from ifailsense_ros.data.records import EXPERT, EpisodeRecord
from ifailsense_ros.data.task_categories import verb_category
from ifailsense_ros.data.video import read_frames

STAMP_COLUMN = "stamp_ns"
"""Our export's exact stamps; LeRobot's own `timestamp` is float32, seconds from the first row."""

_NUMBER_COLUMNS = ("episode_index", "timestamp", "task_index", STAMP_COLUMN)
_LABEL_COLUMNS = ("success", "is_episode_successful", "next.success")
_SESSION_COLUMNS = ("building", "collector_id", "date")  # DROID
_ROW_COLUMNS = (*_NUMBER_COLUMNS, *_LABEL_COLUMNS, *_SESSION_COLUMNS)
_WORDS = {"true": True, "success": True, "1": True, "false": False, "failure": False, "0": False}
_HALF_A_FRAME = 0.45


class LerobotReader(BaseReader):
    """Reads a LeRobotDataset folder, episode by episode.

    Stamps are nanoseconds since the first row, on the grid of the data set's frame rate where they
    lie on it, or the exact ones of our export. Metadata come from parquet; videos are opened only
    when pictures are asked for.

    Args:
        path: folder that holds meta/info.json.
        keep_going: note what cannot be read in `problems` and go on. What concerns the whole data
            set (info.json, tasks, cameras) is raised all the same.
        exo, gripper: keys of the cameras; None: by their usual names; gripper="none": one PoV.
        label: "success" or "failure", of episodes that have none; "": unknown.
        episodes: "FIRST:END" by number, END not included, as in LeRobot's splits; "": all.

    Raises:
        ConfigError: an option with a value it cannot have.
        DataError: not a LeRobotDataset that can be read; (without `keep_going`, while iterating) an
            episode that cannot.
    """

    source = "lerobot"

    def __init__(
        self,
        path: str | Path,
        *,
        keep_going: bool = False,
        exo: str | None = None,
        gripper: str | None = None,
        label: str = "",
        episodes: str = "",
    ) -> None:
        super().__init__(path, keep_going=keep_going)
        if label and label not in LABELS:
            raise ConfigError(f"label={label}: must be one of {', '.join(LABELS)}")
        self._wanted = _span(episodes)
        self._default_label = LABELS[label] if label else None
        self._info = read_info(self.path)
        self._cameras = pick_cameras(self._info, exo, gripper)
        # Episodes of one file follow each other: one file's rows in memory are enough.
        self._rows_of_file = lru_cache(maxsize=1)(_rows_of_file)
        self._group_ends = lru_cache(maxsize=1)(_group_ends)
        self._pictures = lru_cache(maxsize=2)(_pictures_of_group)

    @cached_property
    def _tasks(self) -> dict[int, str]:
        return read_tasks(self._info)

    def records(self) -> Iterator[EpisodeRecord]:
        """The records, in the order in which the metadata list them."""
        return (record for _, record in self.numbered())

    def numbered(self) -> Iterator[tuple[int, EpisodeRecord]]:
        """As `records`, each with its `episode_index`."""
        tasks = self._tasks
        for file in episode_files(self._info):
            with self.noting(file):
                for number, row in enumerate(episode_rows(file)):
                    index = row.get("episode_index")
                    if isinstance(index, int) and not self._wanted[0] <= index < self._wanted[1]:
                        continue
                    where = f"{file}: episode {f'in row {number}' if index is None else index}"
                    with self.noting(where):
                        entry = entry_of(self._info, row, self._cameras)
                        yield entry.index, self._record(entry, row, tasks)

    def _record(
        self, entry: EpisodeEntry, row: Mapping[str, Any], tasks: Mapping[int, str]
    ) -> EpisodeRecord:
        first, rows = self._rows(entry)
        stamps = _stamps_ns(rows, self._info.fps, entry.data)
        success = self._label(entry, rows)
        instruction = _instruction(rows, tasks)
        own = {k.removeprefix(OWN): v for k, v in row.items() if k.startswith(OWN)}
        folder = self.path.resolve().name
        name = f"{folder}/{own.get('key') or entry.index}"
        session = [str(rows[c][0]) for c in _SESSION_COLUMNS if c in rows]
        # A copy: records that somebody keeps must not keep the columns of the whole file.
        times_s = rows["timestamp"].copy()

        def read(steps: Sequence[int]) -> tuple[Keyframe, ...]:
            return self._read(entry, first, times_s, stamps, steps)

        return EpisodeRecord(
            source=self.source,
            key=name,
            group=own.get("group") or "/".join(session) or name,
            instruction=instruction,
            # Without task names an episode did what its sentence says, or not.
            task=own.get("task") or (instruction.lower().rstrip(" .") if success else ""),
            category=own.get("category") or verb_category(instruction),
            kind=own.get("kind") or (EXPERT if success else ""),
            success=success,
            stamps_ns=stamps,
            num_pov=len(self._cameras),
            read=read,
            twin=f"{folder}/{own['twin']}" if own.get("twin") else None,
            start_ns=own.get("start_ns"),
            end_ns=own.get("end_ns"),
        )

    def _rows(self, entry: EpisodeEntry) -> tuple[int, dict[str, np.ndarray]]:
        """Position in the file of an episode's first row, and its rows, by column."""
        columns = self._rows_of_file(entry.data)
        found = np.flatnonzero(columns["episode_index"] == entry.index)
        if not len(found) or (entry.length is not None and entry.length != len(found)):
            wanted = "some" if entry.length is None else entry.length
            raise DataError(
                f"{entry.data}: {len(found)} rows where the metadata promise {wanted}: it was cut "
                "off; copy it again"
            )
        first, last = int(found[0]), int(found[-1])
        if last - first + 1 != len(found):
            raise DataError(f"{entry.data}: its rows do not follow each other; copy it again")
        return first, {name: values[first : last + 1] for name, values in columns.items()}

    def _label(self, entry: EpisodeEntry, rows: Mapping[str, np.ndarray]) -> bool | None:
        candidates = [(f"column {c}", rows[c][-1]) for c in _LABEL_COLUMNS if c in rows]
        if entry.row.get(f"{OWN}verdict") == Outcome.UNKNOWN.name:
            # A detector's column of labels: what it does not know it cannot write into the rows.
            return self._default_label
        if "success" in entry.row:
            candidates.insert(0, ("success in the metadata", entry.row["success"]))
        for name, value in candidates:
            if value is None or value != value:  # null, or pandas' word for it
                continue
            label = _WORDS.get(str(value).lower().removesuffix(".0"))
            if label is None:
                raise DataError(f"{name}: {value!r} is no label (true or false)")
            return label
        return self._default_label

    def _read(
        self,
        entry: EpisodeEntry,
        first: int,
        times_s: np.ndarray,
        stamps: tuple[int, ...],
        steps: Sequence[int],
    ) -> tuple[Keyframe, ...]:
        if any(not 0 <= step < len(stamps) for step in steps):
            raise DataError(
                f"{entry.data}: episode {entry.index} has the time steps 0 to {len(stamps) - 1}, "
                f"not {list(steps)}"
            )
        where = f"episode {entry.index}"
        views = []
        for camera in self._cameras:
            if camera in entry.videos:
                part = entry.videos[camera]
                times = [part.from_s + float(times_s[step]) for step in steps]
                tolerance = _HALF_A_FRAME / self._info.fps
                views.append(read_frames(part.path, times, tolerance, where))
            else:
                at = [first + step for step in steps]
                views.append([self._picture(entry.data, camera, row) for row in at])
        return tuple(
            Keyframe(stamps[step], tuple(seen[k] for seen in views)) for k, step in enumerate(steps)
        )

    def _picture(self, path: Path, camera: str, row: int) -> np.ndarray:
        """The picture that stands in a row of a parquet file itself."""
        ends = self._group_ends(path)
        group = bisect_right(ends, row)
        with reading(path, camera):
            place = row - (ends[group - 1] if group else 0)
            cell = self._pictures(path, camera, group)[place].as_py()
        where = f"{path}: {camera}"
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if data is None and isinstance(cell, dict) and cell.get("path"):
            file_path = self.path / cell["path"]
            if not file_path.is_file():
                raise DataError(f"{file_path}: is missing; copy the data set again")
            data = file_path.read_bytes()
        if not isinstance(data, bytes):
            raise DataError(f"{where}: holds no picture; copy the data set again")
        return decode_picture(data, where)


def _group_ends(path: Path) -> list[int]:
    """Where the row groups of a parquet file end, in rows."""
    with open_parquet(path) as file:
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    return list(accumulate(sizes))


def _pictures_of_group(path: Path, camera: str, group: int) -> pa.ChunkedArray:
    with open_parquet(path) as file, reading(path, camera):
        return file.read_row_group(group, [camera]).column(0)


def _rows_of_file(path: Path) -> dict[str, np.ndarray]:
    """Columns of a data file that are no pictures, states or actions."""
    with open_parquet(path) as file:
        names = [name for name in _ROW_COLUMNS if name in file.schema_arrow.names]
        for needed in _NUMBER_COLUMNS[:3]:
            if needed not in names:
                raise DataError(f"{path}: column {needed} is missing; copy the data set again")
        columns = {}
        with reading(path):
            table = file.read(names)
            for name in names:
                values = table.column(name).combine_chunks()
                if pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
                    values = values.flatten()
                number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
                odd = name in _NUMBER_COLUMNS and (values.null_count > 0 or not number)
                if odd or len(values) != table.num_rows:
                    raise DataError(
                        f"{path}: column {name} must hold one value a row; copy it again"
                    )
                columns[name] = values.to_numpy(zero_copy_only=False)
    return columns


def _stamps_ns(rows: Mapping[str, np.ndarray], fps: float, path: Path) -> tuple[int, ...]:
    """Nanoseconds; float32 seconds are put back on the grid they were rounded off."""
    if STAMP_COLUMN in rows:
        stamps = rows[STAMP_COLUMN].astype(np.int64)
    else:
        seconds = rows["timestamp"].astype(np.float64)
        if not np.all(np.abs(seconds) < 1e9):  # also not a number
            raise DataError(f"{path}: column timestamp holds more than seconds; copy it again")
        grid = np.round(seconds * fps) / fps
        near = np.abs(seconds - grid) <= 1e-4
        stamps = np.round(np.where(near, grid, seconds) * 1e9).astype(np.int64)
    if np.any(np.diff(stamps) < 0):
        raise DataError(f"{path}: its timestamps go back in time; copy the data set again")
    return tuple(stamps.tolist())


def _span(text: str) -> tuple[float, float]:
    """The numbers that "FIRST:END" stands for; either may be left out."""
    first, colon, end = text.partition(":")
    if text and not (colon and all(not part or part.isdecimal() for part in (first, end))):
        raise ConfigError(f"episodes={text}: must be FIRST:END, as in 0:100")
    return int(first or 0), int(end) if end else math.inf


def _instruction(rows: Mapping[str, np.ndarray], tasks: Mapping[int, str]) -> str:
    numbers = sorted({int(n) for n in rows["task_index"]})
    if len(numbers) > 1:
        raise DataError(f"has {len(numbers)} instructions; a verdict needs one: split the episode")
    if numbers[0] not in tasks:
        raise DataError(f"task_index {numbers[0]} is not in the table of tasks; copy it again")
    text = tasks[numbers[0]].strip()
    if not text:
        raise DataError(f"task_index {numbers[0]} is an empty text: there is no instruction")
    return text
