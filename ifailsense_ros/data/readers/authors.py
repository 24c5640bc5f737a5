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
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.readers.aha import failure_class
from ifailsense_ros.data.readers.base import BaseReader, decode_picture, need, one_line
from ifailsense_ros.data.records import EXPERT, EpisodeRecord
from ifailsense_ros.data.task_categories import verb_category

STEP_NS = 10**9
"""The rows carry no stamps: keyframes count as one second apart."""

_MONTAGES = ("image", "images")
_LISTS = (("images_front", "images_wrist"), ("images_1", "images_2"))
_LABELS = {"success": True, "1": True, "pass": True, "fail": False, "failure": False, "0": False}
_NUM_POV = re.compile(r"(?:^|[-_])([12])p(?:[-_.]|$)")


@dataclass(frozen=True)
class _Layout:
    """Which columns hold pictures, exocentric first; `grid` (N, T) where one holds a montage."""

    columns: tuple[str, ...]
    grid: tuple[int, int] | None


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
        self._pictures = lru_cache(maxsize=1)(_read_row_group)

    def records(self) -> Iterator[EpisodeRecord]:
        """The rows, in the order of the data set."""
        for split, paths in self._shards.items():
            with self.noting(paths[0].parent):
                first = 0
                chosen = self._chosen(split, paths)
                other = self._next_instructions(paths) if self._negatives else {}
                for path in paths:
                    with self.noting(path):
                        for records in self._shard(split, path, first, chosen, other):
                            yield from records
                    with self.noting(path):
                        first += _open(path).metadata.num_rows

    def _chosen(self, split: str, paths: list[Path]) -> frozenset[int] | None:
        """Rows of a split that are wanted; None: all."""
        if self._part is None:
            return None
        total = sum(_open(path).metadata.num_rows for path in paths)
        # As datasets.Dataset.train_test_split(test_size=0.1, seed=42) draws them.
        drawn = np.random.default_rng(42).permutation(total)[: math.ceil(0.1 * total)]
        return frozenset(drawn.tolist())

    def _next_instructions(self, paths: list[Path]) -> dict[int, str]:
        """Row -> instruction of the row three further on, the last three -> the first."""
        tasks = [t for path in paths for t in _open(path).read(["task"]).column("task").to_pylist()]
        if len(tasks) % 3:
            raise DataError(
                f"{paths[0].parent}: {len(tasks)} rows are no groups of three; negatives=next is "
                "for the authors' DROID rows"
            )
        return {row: tasks[(row + 3) % len(tasks)] for row in range(len(tasks))}

    def _shard(
        self,
        split: str,
        path: Path,
        first: int,
        chosen: frozenset[int] | None,
        other: Mapping[int, str],
    ) -> Iterator[list[EpisodeRecord]]:
        file = _open(path)
        layout = self._layout(path, file.schema_arrow)
        names = [n for n in file.schema_arrow.names if n not in layout.columns]
        lengths = _length_columns(file, layout)
        for group in range(file.num_row_groups):
            table = _read(path, group, [*names, *lengths])
            for place, row in enumerate(table.to_pylist()):
                number, first = first, first + 1
                if chosen is not None and number not in chosen:
                    continue
                with self.noting(f"{path}: row {number}"):
                    record = self._record(split, path, layout, group, place, row, number)
                    yield [record]
                    if other:
                        yield [_mismatched(record, other[number])]

    def _layout(self, path: Path, schema: Any) -> _Layout:
        """Where the pictures are."""
        types = need("pyarrow", "parquet rows").types
        if self._exo is None:
            for name in _MONTAGES:
                if name in schema.names and types.is_struct(schema.field(name).type):
                    return _Layout((name,), (self._montage_rows(path, schema), self._num_keyframes))
        candidates = [(self._exo, self._gripper)] if self._exo else [*_LISTS, ("images", None)]
        for wanted in candidates:
            columns = tuple(name for name in wanted if name is not None)
            if all(name in schema.names for name in columns):
                return _Layout(columns, None)
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

    def _record(
        self,
        split: str,
        path: Path,
        layout: _Layout,
        group: int,
        place: int,
        row: Mapping[str, Any],
        number: int,
    ) -> EpisodeRecord:
        instruction = row.get("task")
        if not isinstance(instruction, str) or not instruction.strip():
            raise DataError(f"task is {instruction!r}, not an instruction")
        success = self._success(row)
        counts = {name: len(row[name] or ()) for name in layout.columns if name in row}
        if layout.grid is None and (len(set(counts.values())) != 1 or not min(counts.values())):
            raise DataError(f"pictures missing: {counts}; download it again")
        num_pov, steps = layout.grid or (len(layout.columns), next(iter(counts.values())))
        where = f"{path}: row {number}"

        def read(wanted: Sequence[int]) -> tuple[Keyframe, ...]:
            row_pictures = {
                name: column[place].as_py()
                for name, column in self._pictures(path, group, layout.columns).items()
            }
            views = _decode(row_pictures, layout, wanted, where)
            return tuple(
                Keyframe(step * STEP_NS, tuple(view))
                for step, view in zip(wanted, views, strict=True)
            )

        return EpisodeRecord(
            source=self.source,
            key=f"{split}/{number:06d}",
            group=f"{instruction}/{row['episode']}" if row.get("episode") else split,
            instruction=instruction,
            task="",  # what a wrong row shows is not said, and these rows are not to be paired
            category=verb_category(instruction.replace("_", " ")),
            kind=EXPERT if success else failure_class(_reason(row)),
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


def _mismatched(record: EpisodeRecord, instruction: str) -> EpisodeRecord:
    return EpisodeRecord(
        source=record.source,
        key=f"{record.key}/next",
        group=record.group,
        instruction=instruction,
        task="",
        category=verb_category(instruction),
        kind="",
        success=False,
        stamps_ns=record.stamps_ns,
        num_pov=record.num_pov,
        read=record.read,
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


def _find_shards(path: Path, split: str | None) -> dict[str, list[Path]]:
    """Split -> its files in order, by the hub's names ("validation-00000-of-00001.parquet")."""
    paths = [path] if path.is_file() else sorted(p for p in path.rglob("*.parquet") if p.is_file())
    shards: dict[str, list[Path]] = {}
    for file in paths:
        shards.setdefault(re.split(r"-\d+-of-\d+", file.stem)[0], []).append(file)
    if split is not None:
        shards = {name: files for name, files in shards.items() if name == split}
    if not shards:
        wanted = f"{split}-*.parquet" if split else "*.parquet"
        raise DataError(f"{path}: no {wanted} in it; give the folder of a downloaded data set")
    return shards


def _open(path: Path) -> Any:
    """The file as pyarrow.parquet.ParquetFile."""
    parquet = need("pyarrow.parquet", "parquet rows", "pyarrow")
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # Arrow's own errors derive from these
        raise DataError(
            f"{path}: not a readable parquet file ({one_line(error)}); download it again"
        ) from error


def _read(path: Path, group: int, columns: Sequence[str]) -> Any:
    with _open(path) as file:
        try:
            return file.read_row_group(group, columns=list(columns))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path}: row group {group} is damaged ({one_line(error)}); download it again"
            ) from error


def _read_row_group(path: Path, group: int, columns: tuple[str, ...]) -> dict[str, Any]:
    """Column -> its pictures, still encoded, of one row group."""
    table = _read(path, group, columns)
    return {name: table.column(name) for name in columns}


def _length_columns(file: Any, layout: _Layout) -> list[str]:
    """What to read to learn how many keyframes there are: paths are short, pictures are not."""
    if layout.grid is not None:
        return []
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    return [
        next(
            (leaf for leaf in leaves if leaf.startswith(f"{name}.") and leaf.endswith(".path")),
            name,
        )
        for name in layout.columns
    ]


def _decode(
    row: Mapping[str, Any], layout: _Layout, wanted: Sequence[int], where: str
) -> list[list[np.ndarray]]:
    """For each wanted step, its views."""
    if layout.grid is None:
        return [
            [
                decode_picture(_bytes(row[name][step], where, name), f"{where}: {name} {step}")
                for name in layout.columns
            ]
            for step in wanted
        ]
    (name,) = layout.columns
    montage = decode_picture(_bytes(row[name], where, name), f"{where}: {name}")
    num_pov, num_keyframes = layout.grid
    height, width = montage.shape[:2]
    if height < num_pov or width < num_keyframes:
        raise DataError(f"{where}: {name} has {width}x{height} pixels, too few for a montage")
    tops = np.linspace(0, height, num_pov + 1).round().astype(int)
    lefts = np.linspace(0, width, num_keyframes + 1).round().astype(int)
    return [
        [
            np.ascontiguousarray(montage[tops[p] : tops[p + 1], lefts[s] : lefts[s + 1]])
            for p in range(num_pov)
        ]
        for s in wanted
    ]


def _bytes(picture: Any, where: str, name: str) -> bytes:
    """The encoded picture: the hub stores {bytes, path}, older rows plain bytes."""
    data = picture.get("bytes") if isinstance(picture, dict) else picture
    if not isinstance(data, bytes) or not data:
        raise DataError(f"{where}: {name} holds no picture; download it again")
    return data
