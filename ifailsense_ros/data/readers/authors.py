"""The parquet rows that the authors of I-FailSense publish on the hub (organisation ACIDE).

Two kinds of rows, told apart by their columns (from the data set cards; see docs/readers.md):

- keyframes: lists of pictures, ``images_1``, ``images_2`` or ``images_front``, ``images_wrist``;
- montage: one picture ``image`` (or ``images``), N rows of T keyframes, which is cut into cells.

Both have ``task`` (the instruction) and mostly ``success`` ("success" or "fail"). Labels are given:
these rows are what Tables I and II are computed on, not expert episodes to make pairs of.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.readers.aha import failure_class
from ifailsense_ros.data.readers.base import BaseReader, need
from ifailsense_ros.data.readers.picture_rows import (
    PictureColumns,
    count_rows,
    decode_steps,
    length_columns,
    open_parquet,
    read_column,
    read_pictures,
    read_rows,
)
from ifailsense_ros.data.records import EpisodeRecord
from ifailsense_ros.data.task_categories import verb_category

STEP_NS = 10**9
"""The rows carry no stamps: keyframes count as one second apart."""

_MONTAGES = ("image", "images")
_LISTS = (("images_front", "images_wrist"), ("images_1", "images_2"))
_LABELS = {"success": True, "1": True, "pass": True, "fail": False, "failure": False, "0": False}
_NUM_POV = re.compile(r"(?:^|[-_])([12])p(?:[-_.]|$)")


@dataclass(frozen=True)
class _Place:
    """Where a row is: row group of a file, place in the group, number in the file."""

    path: Path
    group: int
    place: int
    number: int


_Row = tuple[Path, int]
"""A row by file and number."""


class AuthorsReader(BaseReader):
    """Rows of the authors' data sets, shard by shard.

    Args:
        path: folder of a data set as downloaded (parquet files in it or in data/), or one file.
        split: "train" or "validation" only; None: all that are there.
        part: "test": of each split the tenth that the authors' loader draws with seed 42 (203 of
            CALVIN's 2022 validation rows: Table I).
        negatives: "next": every group of three rows (one DROID episode, three cameras) a second
            time with the instruction of the next group, as failures (276 rows of DROID: Table II).
        exo, gripper: columns with lists of keyframes, where the defaults are not meant.
        rows: N of a montage; None: from the name of the folder ("..._2p") or the columns.
        columns: T of a montage.
        label: "success" or "fail" for data sets without a column that says so.
        keep_going: note rows and files that cannot be read in `problems` and go on.

    Raises:
        ConfigError: an option of another value.
        DataError: no such path, or no parquet file in it.
    """

    source = "authors"

    def __init__(
        self,
        path: str | Path,
        *,
        split: str | None = None,
        part: str | None = None,
        negatives: str | None = None,
        exo: str | None = None,
        gripper: str | None = None,
        rows: int | str | None = None,
        columns: int | str = 4,
        label: str | None = None,
        keep_going: bool = False,
    ) -> None:
        super().__init__(path, keep_going=keep_going)
        for name, value, allowed in (
            ("part", part, ("test",)),
            ("negatives", negatives, ("next",)),
            ("label", label, tuple(_LABELS)),
        ):
            if value is not None and value not in allowed:
                raise ConfigError(f"{name} is {value!r}: give {' or '.join(allowed)}")
        self._part, self._negatives = part, negatives
        self._exo, self._gripper = exo, gripper
        self._rows = None if rows is None else _whole("rows", rows)
        self._num_keyframes = _whole("columns", columns)
        self._label = None if label is None else _LABELS[label]
        self._shards = _find_shards(self.path, split)
        # Pictures are asked for in the order of the records: one row group in memory is enough.
        self._pictures = lru_cache(maxsize=1)(read_pictures)

    def records(self) -> Iterator[EpisodeRecord]:
        """The rows, in the order of the data set."""
        for paths in self._shards.values():
            with self.noting(paths[0].parent):
                chosen, other = self._chosen(paths), self._other_instructions(paths)
                for path in paths:
                    with self.noting(path):
                        yield from self._shard(path, chosen, other)

    def _chosen(self, paths: list[Path]) -> frozenset[_Row] | None:
        """Rows of a split that are wanted; None: all."""
        if self._part is None:
            return None
        rows = [(p, row) for p in paths for row in range(count_rows(p))]
        # As datasets.Dataset.train_test_split(test_size=0.1, seed=42) draws them.
        drawn = np.random.default_rng(42).permutation(len(rows))[: math.ceil(0.1 * len(rows))]
        return frozenset(rows[i] for i in drawn)

    def _other_instructions(self, paths: list[Path]) -> dict[_Row, str]:
        """Row -> instruction of the next group of three, of the last group -> of the first."""
        if self._negatives is None:
            return {}
        tasks = {
            (path, row): task
            for path in paths
            for row, task in enumerate(read_column(path, "task"))
        }
        if len(tasks) % 3:
            raise DataError(
                f"{paths[0].parent}: {len(tasks)} rows are no groups of three; negatives=next is "
                "for the authors' DROID rows"
            )
        texts = list(tasks.values())
        return dict(zip(tasks, texts[3:] + texts[:3], strict=True))

    def _shard(
        self, path: Path, chosen: frozenset[_Row] | None, other: Mapping[_Row, str]
    ) -> Iterator[EpisodeRecord]:
        with open_parquet(path) as file:
            layout = self._layout(path, file.schema_arrow)
            names = [n for n in file.schema_arrow.names if n not in layout.columns]
            columns = [*names, *length_columns(file, layout)]
            groups = range(file.num_row_groups)
        number = 0
        for group in groups:
            for place, row in enumerate(read_rows(path, group, columns)):
                if chosen is None or (path, number) in chosen:
                    where = f"{path}: row {number}"
                    with self.noting(where):
                        at = _Place(path, group, place, number)
                        record = self._record(at, layout, row)
                        yield record
                        if other:
                            yield _mismatched(record, other[path, number])
                number += 1

    def _layout(self, path: Path, schema: Any) -> PictureColumns:
        """Where the pictures are."""
        types = need("pyarrow", "parquet rows").types
        if self._exo is None:
            for name in _MONTAGES:
                if name in schema.names and types.is_struct(schema.field(name).type):
                    return PictureColumns(
                        (name,), (self._montage_rows(path, schema), self._num_keyframes)
                    )
        candidates = [(self._exo, self._gripper)] if self._exo else [*_LISTS, ("images", None)]
        for wanted in candidates:
            columns = tuple(name for name in wanted if name is not None)
            if all(name in schema.names for name in columns):
                return PictureColumns(columns, None)
        raise DataError(
            f"{path}: no column of pictures that is known (there are: {', '.join(schema.names)}); "
            "name them with exo= and gripper="
        )

    def _montage_rows(self, path: Path, schema: Any) -> int:
        if self._rows is not None:
            return self._rows
        if "camera_pos_2" in schema.names:
            return 2
        if "camera_pos" in schema.names:
            return 1
        for part in reversed(path.resolve().parts):
            if found := _NUM_POV.search(part):
                return int(found.group(1))
        raise DataError(
            f"{path}: nothing says how many rows the montages have; add rows=1 or rows=2"
        )

    def _record(self, at: _Place, layout: PictureColumns, row: Mapping[str, Any]) -> EpisodeRecord:
        instruction = row.get("task")
        if not isinstance(instruction, str) or not instruction.strip():
            raise DataError(f"task is {instruction!r}, not an instruction")
        success = self._success(row)
        counts = {name: len(row[name] or ()) for name in layout.columns if name in row}
        if layout.grid is None and (len(set(counts.values())) != 1 or not min(counts.values())):
            raise DataError(f"pictures missing: {counts}; download it again")
        num_pov, steps = layout.grid or (len(layout.columns), next(iter(counts.values())))

        def read(wanted: Sequence[int]) -> tuple[Keyframe, ...]:
            columns = self._pictures(at.path, at.group, layout.columns)
            pictures = {name: column[at.place].as_py() for name, column in columns.items()}
            views = decode_steps(pictures, layout, wanted, f"{at.path}: row {at.number}")
            return tuple(
                Keyframe(step * STEP_NS, tuple(view))
                for step, view in zip(wanted, views, strict=True)
            )

        return EpisodeRecord(
            source=self.source,
            key=f"{at.path.stem}/{at.number:06d}",
            # Where no episode is named, the same one may be in any row of the split.
            group=f"{instruction}/{row['episode']}" if row.get("episode") else _split(at.path),
            instruction=instruction,
            task="",  # what a wrong row shows is not said, and these rows are not to be paired
            category=verb_category(instruction.replace("_", " ")),
            kind=failure_class(_reason(row)),  # not EXPERT: experts are paired
            success=success,
            stamps_ns=tuple(step * STEP_NS for step in range(steps)),
            num_pov=num_pov,
            read=read,
        )

    def _success(self, row: Mapping[str, Any]) -> bool | None:
        if row.get("success") is None:
            # AHA's training rows hold failures only, and say so by their reason.
            return False if row.get("failed_reason") else self._label
        said = str(row["success"]).strip().lower()
        said = {"true": "success", "false": "fail"}.get(said, said)
        if said not in _LABELS:
            raise DataError(f"success is {row['success']!r}, not success or fail")
        return _LABELS[said]


def _mismatched(record: EpisodeRecord, instruction: Any) -> EpisodeRecord:
    """The same pictures under another instruction, which they do not fulfil."""
    if not isinstance(instruction, str):
        raise DataError(f"task of the next group is {instruction!r}, not an instruction")
    return replace(
        record,
        key=f"{record.key}/next",
        instruction=instruction,
        category=verb_category(instruction),
        kind="",
        success=False,
    )


def _reason(row: Mapping[str, Any]) -> str:
    return str(row.get("failed_reason") or row.get("reason") or "")


def _whole(name: str, value: int | str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise ConfigError(f"{name} is {value!r}: give a whole number from 1 on")
    return number


def _split(path: Path) -> str:
    """What the hub's name of a file starts with ("validation-00000-of-00001.parquet")."""
    return re.split(r"-\d+-of-\d+", path.stem)[0]


def _find_shards(path: Path, split: str | None) -> dict[str, list[Path]]:
    """Split -> its files in order."""
    paths = [path] if path.is_file() else sorted(p for p in path.rglob("*.parquet") if p.is_file())
    shards: dict[str, list[Path]] = {}
    for file in paths:
        shards.setdefault(_split(file), []).append(file)
    if split is not None:
        shards = {name: files for name, files in shards.items() if name == split}
    if not shards:
        wanted = f"{split}-*.parquet" if split else "*.parquet"
        raise DataError(f"{path}: no {wanted} in it; give the folder of a downloaded data set")
    return shards
