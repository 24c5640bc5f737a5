"""The episode store: labelled episodes as parquet shards, keyframe pictures as JPEG inside.

A shard is one parquet file of rows, named by split and index range
(``train-000000-000050.parquet``), written whole or not at all. One row is one episode; its
columns are the fields of `EpisodeRow`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ifailsense_ros.core.errors import DataError

STORE_VERSION = "1"
_VERSION_KEY = b"ifailsense_store_version"
_NOTES_KEY = b"ifailsense_notes"
_SHARD_NAME = re.compile(r"^(?P<split>\w+)-(?P<first>\d{6})-(?P<end>\d{6})\.parquet$")


@dataclass(frozen=True)
class EpisodeRow:
    """One labelled episode.

    Attributes:
        split: name of the split.
        index, attempt: what the episode's seed was made of, with the split.
        task: the task that was performed and came true.
        negative_task: a task of the same category, possible in the same scene, that did not.
        category: the category of both.
        contrast: the attributes (verb, object, colour, direction) in which the two differ.
        phrasing: index of the phrasing both instructions use.
        instruction, negative_instruction: the two sentences; labels success and failure.
        outcomes: for every task of the world 1 (came true), 0 (disputed) or -1 (did not).
        feasible: the tasks that were possible at the start.
        duration_s: length of the episode, seconds.
        stamps_ns: stamps of the T keyframes since the start, nanoseconds.
        images: T * N JPEG pictures, PoV-major: exocentric 0..T-1, then gripper 0..T-1.
        states: simulator states at 10 Hz, float32 (n, nq).
        generator_version: version of the world that made it.
    """

    split: str
    index: int
    attempt: int
    task: str
    negative_task: str
    category: str
    contrast: tuple[str, ...]
    phrasing: int
    instruction: str
    negative_instruction: str
    outcomes: dict[str, int]
    feasible: tuple[str, ...]
    duration_s: float
    stamps_ns: tuple[int, ...]
    images: tuple[bytes, ...]
    states: np.ndarray
    generator_version: str

    @property
    def num_pov(self) -> int:
        """N, the number of PoV."""
        return len(self.images) // len(self.stamps_ns)

    def decode_images(self) -> np.ndarray:
        """The pictures, uint8 RGB (N, T, H, W, 3).

        Raises:
            DataError: if a picture is not a JPEG, or the sizes differ.
        """
        pictures = []
        for data in self.images:
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if picture is None:
                raise DataError(
                    f"episode {self.index} of {self.split}: a picture is not a JPEG; "
                    "make the shard again"
                )
            pictures.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        if not pictures or len({p.shape for p in pictures}) > 1:
            raise DataError(
                f"episode {self.index} of {self.split}: no pictures, or pictures of several sizes"
            )
        return np.stack(pictures).reshape(self.num_pov, len(self.stamps_ns), *pictures[0].shape)


_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("index", pa.int64()),
        ("attempt", pa.int32()),
        ("task", pa.string()),
        ("negative_task", pa.string()),
        ("category", pa.string()),
        ("contrast", pa.list_(pa.string())),
        ("phrasing", pa.int32()),
        ("instruction", pa.string()),
        ("negative_instruction", pa.string()),
        ("outcomes", pa.map_(pa.string(), pa.int8())),
        ("feasible", pa.list_(pa.string())),
        ("duration_s", pa.float64()),
        ("stamps_ns", pa.list_(pa.int64())),
        ("images", pa.list_(pa.binary())),
        ("states", pa.binary()),
        ("states_shape", pa.list_(pa.int32())),
        ("generator_version", pa.string()),
    ]
)


def shard_path(folder: Path, split: str, first: int, end: int) -> Path:
    """Where the shard of the episodes ``first`` to ``end - 1`` of a split lies."""
    return Path(folder) / f"{split}-{first:06d}-{end:06d}.parquet"


def write_shard(
    path: Path, rows: Sequence[EpisodeRow], notes: Mapping[str, object] | None = None
) -> None:
    """Write rows as one shard, atomically: ``path`` appears only when it is complete.

    Args:
        path: the shard, usually from `shard_path`.
        rows: the episodes.
        notes: anything JSON can hold that is worth keeping beside the rows.
    """
    columns: dict[str, list] = {name: [] for name in _SCHEMA.names}
    for row in rows:
        states = np.ascontiguousarray(row.states, dtype=np.float32)
        for name in _SCHEMA.names:
            if name == "states":
                value: object = states.tobytes()
            elif name == "states_shape":
                value = list(states.shape)
            elif name == "outcomes":
                value = list(row.outcomes.items())
            else:
                value = getattr(row, name)
            columns[name].append(value)
    metadata = {
        _VERSION_KEY: STORE_VERSION.encode(),
        _NOTES_KEY: json.dumps(dict(notes or {}), sort_keys=True).encode(),
    }
    table = pa.table(columns, schema=_SCHEMA.with_metadata(metadata))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        # JPEG does not compress any further, and states hardly do.
        pq.write_table(table, part, compression="none")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _open(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such shard") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a readable parquet file ({str(error).splitlines()[0]}); "
            "delete it and make it again"
        ) from error
    version = (file.schema_arrow.metadata or {}).get(_VERSION_KEY, b"none").decode()
    if version != STORE_VERSION:
        file.close()
        raise DataError(
            f"{path}: episode store version {version}, this program reads {STORE_VERSION}; "
            "make the data set again"
        )
    return file


def read_notes(path: Path) -> dict[str, object]:
    """The notes a shard was written with.

    Raises:
        DataError: if the shard is missing, corrupt or of another version.
    """
    with _open(path) as file:
        return json.loads(file.schema_arrow.metadata[_NOTES_KEY])


def read_shard(path: Path) -> list[EpisodeRow]:
    """All episodes of one shard.

    Raises:
        DataError: if the shard is missing, corrupt or of another version.
    """
    with _open(path) as file:
        try:
            records = file.read().to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: corrupt ({error}); delete it and make it again") from error
    rows = []
    for record in records:
        shape = record.pop("states_shape")
        record["states"] = np.frombuffer(record["states"], np.float32).reshape(shape)
        record["outcomes"] = dict(record["outcomes"])
        for name in ("contrast", "feasible", "stamps_ns", "images"):
            record[name] = tuple(record[name])
        rows.append(EpisodeRow(**record))
    return rows


def list_shards(folder: Path, split: str | None = None) -> list[Path]:
    """The complete shards in a folder in index order, of one split if named.

    Raises:
        DataError: if the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; make the data set first")
    names = sorted(p.name for p in folder.iterdir() if _SHARD_NAME.match(p.name))
    if split is not None:
        names = [name for name in names if _SHARD_NAME.match(name)["split"] == split]
    return [folder / name for name in names]


def read_episodes(folder: Path, split: str | None = None) -> Iterator[EpisodeRow]:
    """Every episode of a data set folder, shard by shard, in index order.

    Raises:
        DataError: if there is no shard, or one is corrupt.
    """
    shards = list_shards(folder, split)
    if not shards:
        wanted = f" of split {split!r}" if split else ""
        raise DataError(f"{folder}: no shard{wanted} (*.parquet); make the data set first")
    for shard in shards:
        yield from read_shard(shard)
