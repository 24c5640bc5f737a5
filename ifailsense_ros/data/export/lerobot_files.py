"""The files of a LeRobotDataset v3.0: shards of some episodes, and metadata about all of them.

A shard is one parquet file of rows, one video per camera and one parquet file of metadata, under
the same number. The metadata file comes last, under its final name only when the others have
theirs: a shard is there or it is not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.readers.lerobot_meta import OWN, open_parquet, reading

VERSION = "v3.0"
CHUNK_SIZE = 1000
DATA_MB, VIDEO_MB = 100, 200
"""Sizes that LeRobot keeps files below."""

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"

_TEXTS = ("source", "key", "group", "task", "category", "kind", "twin")
_STAMPS = ("start_ns", "end_ns")


def place_of(shard: int) -> dict[str, int]:
    """The numbers of chunk and file of a shard."""
    return {"chunk_index": shard // CHUNK_SIZE, "file_index": shard % CHUNK_SIZE}


def part(path: Path) -> Path:
    """Where a file is while it is being written; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f"{path.name}.part")


def finish(path: Path) -> None:
    """A file is complete: give it its name."""
    os.replace(part(path), path)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table, whole or not at all."""
    pq.write_table(table, part(path), compression="snappy")
    finish(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    part(path).write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    finish(path)


def episode_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of meta/episodes; what may be null in all of them gets its type here."""
    types = {
        "success": pa.bool_(),
        **{f"{OWN}{name}": pa.string() for name in _TEXTS},
        **{f"{OWN}{name}": pa.int64() for name in _STAMPS},
    }
    columns = {name: pa.array([row[name] for row in rows], types.get(name)) for name in rows[0]}
    return pa.table(columns)


def own_columns(record: Any) -> dict[str, Any]:
    """What a LeRobotDataset has no place for, as columns of meta/episodes."""
    values = {name: getattr(record, name) or None for name in _TEXTS}
    values |= {name: getattr(record, name) for name in _STAMPS}
    return {f"{OWN}{name}": value for name, value in values.items()}


def episodes_so_far(folder: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of meta/episodes of all complete shards, one at a time.

    Args:
        folder: of the data set.
        columns: only these; None: all.

    Raises:
        DataError: a file cannot be read, or was not made by this export.
    """
    for path in shard_files(folder):
        with open_parquet(path) as file:
            names = file.schema_arrow.names
            if f"{OWN}key" not in names:
                raise DataError(
                    f"{path}: not made by `ifailsense data export`: choose another folder"
                )
            with reading(path):
                for batch in file.iter_batches(64, columns=columns):
                    yield from batch.to_pylist()


def shard_files(folder: Path) -> list[Path]:
    """The metadata files of the complete shards, in order."""
    return sorted((folder / "meta" / "episodes").glob("chunk-*/file-*.parquet"))


def write_tasks(folder: Path, tasks: Mapping[str, int]) -> None:
    """meta/tasks.parquet: what pandas makes of a frame whose index is the instruction."""
    index = {
        "index_columns": ["task"],
        "column_indexes": [
            {
                "name": None,
                "field_name": None,
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": {"encoding": "UTF-8"},
            }
        ],
        "columns": [
            {
                "name": name,
                "field_name": name,
                "pandas_type": kind,
                "numpy_type": numpy,
                "metadata": None,
            }
            for name, kind, numpy in (
                ("task_index", "int64", "int64"),
                ("task", "unicode", "object"),
            )
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), "task": list(tasks)})
    table = table.replace_schema_metadata({b"pandas": json.dumps(index).encode()})
    write_parquet(folder / "meta" / "tasks.parquet", table)


def camera_feature(height: int, width: int, fps: float, codec: str, pixel_format: str) -> dict:
    """The declaration of a camera in info.json."""
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": codec,
            "video.pix_fmt": pixel_format,
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        },
    }


def column_features(labelled: bool) -> dict[str, dict]:
    """The declarations of the columns of numbers."""
    dtypes = {
        "timestamp": "float32",
        "frame_index": "int64",
        "episode_index": "int64",
        "index": "int64",
        "task_index": "int64",
        "stamp_ns": "int64",
        "next.done": "bool",
    }
    if labelled:
        dtypes["next.success"] = "bool"
    return {name: {"dtype": kind, "shape": [1], "names": None} for name, kind in dtypes.items()}


def info_json(features: Mapping[str, dict], fps: float, totals: Mapping[str, int]) -> dict:
    """The content of meta/info.json."""
    return {
        "codebase_version": VERSION,
        "robot_type": None,
        **totals,
        "chunks_size": CHUNK_SIZE,
        "data_files_size_in_mb": DATA_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "fps": fps,
        "splits": {"train": f"0:{totals['total_episodes']}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": features,
    }
