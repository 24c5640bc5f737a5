"""The metadata of a LeRobotDataset, v3.0 and v2.1: what there is, and in which file.

v3.0 keeps many episodes in a parquet or MP4 file and finds them by offsets in meta/episodes; v2.x
has files per episode and JSON lines. (Layout: LeRobot's documentation and its package 0.4.4.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ifailsense_ros.core.errors import DataError, text_of
from ifailsense_ros.data.readers.base import read_json

OWN = "ifailsense/"
"""Prefix of the columns that our export adds to meta/episodes."""


@dataclass(frozen=True)
class LerobotInfo:
    """meta/info.json.

    Attributes:
        root: folder of the data set.
        major: 2 or 3.
        fps: time steps a second.
        features: name -> its declaration.
        cameras: those that are pictures -> "video" or "image".
        data_path, video_path: templates of file names.
        chunks_size: episodes (v2) in a folder.
    """

    root: Path
    major: int
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    cameras: Mapping[str, str]
    data_path: str
    video_path: str
    chunks_size: int

    def file(self, template: str, **numbers: object) -> Path:
        """A file by its template.

        Raises:
            DataError: the template asks for something that is not known.
        """
        try:
            return self.root / template.format(**numbers)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise DataError(
                f"{self.root}/meta/info.json: path {template!r} cannot be filled in ({error!r})"
            ) from error


@dataclass(frozen=True)
class VideoPart:
    """Where an episode is in a video: its file, and when it begins there, in seconds."""

    path: Path
    from_s: float = 0.0


@dataclass(frozen=True)
class EpisodeEntry:
    """One episode as the metadata have it.

    Attributes:
        index: number of the episode.
        length: time steps; None where not said.
        data: parquet file that has its rows.
        videos: camera -> part of a video.
        row: whatever else the metadata say of it.
    """

    index: int
    length: int | None
    data: Path
    videos: Mapping[str, VideoPart]
    row: Mapping[str, Any] = field(default_factory=dict)


def read_info(root: Path) -> LerobotInfo:
    """meta/info.json, checked.

    Raises:
        DataError: missing, not JSON, of another version, or without a field that is needed.
    """
    path = root / "meta" / "info.json"
    info = read_json(path)
    if not isinstance(info, dict):
        raise DataError(f"{path}: must be a JSON object; is {root} a LeRobot data set?")

    def get(name: str, kind: type | tuple[type, ...]) -> Any:
        value = info.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            what = "is missing" if name not in info else f"is {value!r}"
            raise DataError(f"{path}: {name} {what}; copy the data set again")
        return value

    version = get("codebase_version", str)
    major = version.removeprefix("v").partition(".")[0]
    if major not in ("2", "3"):
        raise DataError(
            f"{path}: codebase_version {version!r}: this program reads v2.0, v2.1 and v3.0; "
            "convert the data set with LeRobot's own scripts"
        )
    fps = get("fps", (int, float))
    if not 0 < fps < 1e5:
        raise DataError(f"{path}: fps is {fps!r}; must be above zero")
    features = get("features", dict)
    cameras = {}
    for name, feature in features.items():
        if not isinstance(feature, dict) or "dtype" not in feature:
            raise DataError(f"{path}: features: {name} has no dtype; copy the data set again")
        # Depth is stored as video as well; a detector of this package cannot use it.
        notes = feature.get("info") or feature.get("video_info")
        notes = notes if isinstance(notes, dict) else {}
        depth = notes.get("video.is_depth_map") or notes.get("is_depth_map")
        if feature["dtype"] in ("video", "image") and not depth:
            cameras[name] = feature["dtype"]
    video_path = get("video_path", str) if "video" in cameras.values() else ""
    chunks_size = get("chunks_size", int) if major == "2" else 1000
    if chunks_size < 1:
        raise DataError(f"{path}: chunks_size is {chunks_size}; must be above zero")
    data_path = get("data_path", str)
    return LerobotInfo(root, int(major), fps, features, cameras, data_path, video_path, chunks_size)


@contextmanager
def reading(path: Path, what: str = "") -> Iterator[None]:
    """Whatever a damaged parquet file makes pyarrow raise is a DataError.

    Args:
        path: of the file.
        what: of it is read.
    """
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; copy the data set again") from None
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, MemoryError) as error:
        what = f"{what} cannot" if what else "cannot"
        raise DataError(f"{path}: {what} be read ({text_of(error)}); copy it again") from error


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a parquet file.

    Raises:
        DataError: missing, truncated, or not parquet.
    """
    with reading(path):
        return pq.ParquetFile(path)


def read_tasks(info: LerobotInfo) -> dict[int, str]:
    """task_index -> instruction.

    Raises:
        DataError: missing, unreadable, or without the two columns.
    """
    if info.major == 2:
        path = info.root / "meta" / "tasks.jsonl"
        rows = list(read_json_lines(path))
        texts = [row.get("task") for row in rows]
    else:
        path = info.root / "meta" / "tasks.parquet"
        with open_parquet(path) as file:
            names = file.schema_arrow.names
            # LeRobot writes a pandas frame whose index is the instruction; where the index has no
            # name, its column gets one of pandas'.
            text = next((n for n in ("task", "__index_level_0__") if n in names), None)
            rows = list(_rows(file, path)) if text else []
            texts = [row[text] for row in rows]
    indices = [row.get("task_index") for row in rows]
    if not all(isinstance(i, int) for i in indices) or not all(isinstance(t, str) for t in texts):
        rows = []
    if not rows:
        raise DataError(f"{path}: has no rows of task_index and task; copy the data set again")
    return dict(zip(indices, texts, strict=True))


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, one at a time.

    Raises:
        DataError: missing, or a line that is not an object.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"{path}: line {number} is not a JSON object; copy it again")
                yield row
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; copy the data set again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({text_of(error)}); copy it again") from error


def episode_files(info: LerobotInfo) -> list[Path]:
    """The files that list the episodes, in order.

    Raises:
        DataError: there is none.
    """
    if info.major == 2:
        return [info.root / "meta" / "episodes.jsonl"]
    files = sorted((info.root / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
    if not files:
        raise DataError(f"{info.root}/meta/episodes: no chunk-*/file-*.parquet; copy it again")
    return files


def episode_rows(path: Path) -> Iterator[dict[str, Any]]:
    """What a file lists, one episode at a time, without the statistics.

    Raises:
        DataError: the file cannot be read.
    """
    if path.suffix == ".jsonl":
        yield from read_json_lines(path)
        return
    with open_parquet(path) as file:
        names = [n for n in file.schema_arrow.names if not n.startswith("stats/")]
        yield from _rows(file, path, names)


def _rows(
    file: pq.ParquetFile, path: Path, columns: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    with reading(path):
        for batch in file.iter_batches(256, columns=columns):
            yield from batch.to_pylist()


def entry_of(info: LerobotInfo, row: Mapping[str, Any], cameras: tuple[str, ...]) -> EpisodeEntry:
    """An episode from its row.

    Raises:
        DataError: a column is missing, or a video.
    """
    videos = [key for key in cameras if info.features[key]["dtype"] == "video"]
    try:
        index = int(row["episode_index"])
        length = None if row.get("length") is None else int(row["length"])
        if info.major == 2:
            place = {"episode_chunk": index // info.chunks_size, "episode_index": index}
            data = info.file(info.data_path, **place)
            parts = {
                key: VideoPart(info.file(info.video_path, video_key=key, **place)) for key in videos
            }
        else:
            data = info.file(info.data_path, **_place(row, "data"))
            parts = {
                key: VideoPart(
                    info.file(info.video_path, video_key=key, **_place(row, f"videos/{key}")),
                    float(row[f"videos/{key}/from_timestamp"]),
                )
                for key in videos
            }
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"no usable {text_of(error)} in the metadata; copy it again") from error
    for part in parts.values():
        if not part.path.is_file():
            raise DataError(f"{part.path}: is missing; copy the data set again")
    return EpisodeEntry(index, length, data, parts, row)


def _place(row: Mapping[str, Any], what: str) -> dict[str, int]:
    return {name: int(row[f"{what}/{name}"]) for name in ("chunk_index", "file_index")}
