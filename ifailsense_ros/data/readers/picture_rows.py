"""Pictures in parquet rows, as the hub stores them: read apart from the other columns, and late."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ifailsense_ros.core.errors import DataError, text_of
from ifailsense_ros.data.readers.base import decode_picture, need


@dataclass(frozen=True)
class PictureColumns:
    """Which columns hold pictures, and how.

    Attributes:
        columns: one a PoV, exocentric first, each a list of keyframes; or one montage.
        grid: (N, T) of the montage; None for lists.
    """

    columns: tuple[str, ...]
    grid: tuple[int, int] | None


_Used = TypeVar("_Used")
_ARROW_ERRORS = (OSError, ValueError, TypeError, KeyError, NotImplementedError)
"""Arrow's own errors derive from these."""


def open_parquet(path: Path) -> Any:
    """The file as pyarrow.parquet.ParquetFile.

    Raises:
        DataError: missing, truncated or no parquet file.
    """
    parquet = need("pyarrow.parquet", "parquet rows", "pyarrow")
    try:
        return parquet.ParquetFile(path)
    except _ARROW_ERRORS as error:
        raise DataError(
            f"{path}: not a readable parquet file ({text_of(error)}); download it again"
        ) from error


def count_rows(path: Path) -> int:
    """Number of rows of a file."""
    with open_parquet(path) as file:
        return file.metadata.num_rows


def _read(path: Path, group: int, columns: Sequence[str], use: Callable[[Any], _Used]) -> _Used:
    """What `use` makes of columns of one row group.

    Raises:
        DataError: the file is damaged; text that is none shows only in use.
    """
    with open_parquet(path) as file:
        try:
            # So little work that waiting for Arrow's threads would take longer.
            return use(file.read_row_group(group, columns=list(columns), use_threads=False))
        except _ARROW_ERRORS as error:
            raise DataError(
                f"{path}: row group {group} is damaged ({text_of(error)}); download it again"
            ) from error


def read_rows(path: Path, group: int, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Columns of one row group, row by row.

    Raises:
        DataError: the file is damaged.
    """
    return _read(path, group, columns, lambda table: table.to_pylist())


def read_column(path: Path, name: str) -> list[Any]:
    """One column of a file.

    Raises:
        DataError: there is no such column, or the file is damaged.
    """
    with open_parquet(path) as file:
        if name not in file.schema_arrow.names:
            raise DataError(f"{path}: column {name} is missing")
        groups = range(file.num_row_groups)
    return [row[name] for group in groups for row in read_rows(path, group, [name])]


def read_pictures(path: Path, group: int, columns: tuple[str, ...]) -> dict[str, Any]:
    """Column -> its pictures, still encoded, of one row group."""
    return _read(path, group, columns, lambda t: {name: t.column(name) for name in columns})


def length_columns(file: Any, layout: PictureColumns) -> list[str]:
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


def decode_steps(
    row: Mapping[str, Any], layout: PictureColumns, wanted: Sequence[int], where: str
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
