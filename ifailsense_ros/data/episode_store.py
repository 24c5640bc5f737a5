"""The episode store: labelled episodes as parquet shards, keyframe pictures as JPEG inside.

A shard is one parquet file of rows, named by split and index range
(``train-000000-000050.parquet``), written whole or not at all. One row is one episode; its
columns are the fields of `EpisodeRow`. Stores of version 1 (expert episodes of the desk only) are
read as well.
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
from ifailsense_ros.data.records import EXPERT

STORE_VERSION = "2"
_READABLE = ("1", STORE_VERSION)
_VERSION_KEY = b"ifailsense_store_version"
_NOTES_KEY = b"ifailsense_notes"
_SHARD_NAME = re.compile(r"^(?P<split>\w+)-(?P<first>\d{6})-(?P<end>\d{6})\.parquet$")


@dataclass(frozen=True)
class EpisodeRow:
    """One labelled episode.

    A failure lies beside its twin, the success of the same scene, phrasing and length: the row of
    kind ``expert`` with the same index and attempt.

    Attributes:
        split: name of the split.
        index, attempt: what the episode's seed was made of, with the split.
        task: the task that `instruction` asks for. An expert did it, a failure did not.
        negative_task: a task of the same category, possible in the same scene, that did not come
            true; for ``wrong_target_object`` the one that was carried out instead.
        category: the category of both.
        contrast: the attributes (verb, object, colour, direction) in which the two differ.
        phrasing: index of the phrasing both instructions use.
        instruction, negative_instruction: the sentences of the two tasks.
        outcomes: for every task of the world 1 (came true), 0 (disputed) or -1 (did not).
        feasible: the tasks that were possible at the start.
        duration_s: length of the episode, seconds.
        stamps_ns: stamps of the T keyframes since the start, nanoseconds.
        images: T * N JPEG pictures, PoV-major: exocentric 0..T-1, then gripper 0..T-1.
        states: simulator states at 10 Hz, float32 (n, nq).
        generator_version: version of the world that made it.
        source: name of the world.
        kind: ``expert``, or the class of failure (`failure_classes`).
        group: what a split must not cut through: the scene. Left empty, it is made of source,
            split, index and attempt.
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
    source: str = "desk"
    kind: str = EXPERT
    group: str = ""

    def __post_init__(self) -> None:
        if not self.group:
            scene = f"{self.source}/{self.split}/{self.index}/{self.attempt}"
            object.__setattr__(self, "group", scene)

    @property
    def num_pov(self) -> int:
        """N, the number of PoV."""
        return len(self.images) // len(self.stamps_ns)

    def decode_images(self) -> np.ndarray:
        """The pictures, uint8 RGB (N, T, H, W, 3).

        Raises:
            DataError: if a picture is not a JPEG, or the sizes differ.
        """
        pictures = decode_pictures(self.images, f"episode {self.index} of {self.split}")
        return pictures.reshape(self.num_pov, len(self.stamps_ns), *pictures.shape[1:])


def decode_pictures(images: Sequence[bytes], where: str) -> np.ndarray:
    """JPEG pictures of one size, uint8 RGB (n, H, W, 3).

    Args:
        images: at least one.
        where: names the episode in errors.

    Raises:
        DataError: if there is none, one is not a JPEG, or the sizes differ.
    """
    pictures = []
    for data in images:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise DataError(f"{where}: a picture is not a JPEG; make the shard again")
        pictures.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    if len({p.shape for p in pictures}) != 1:
        raise DataError(f"{where}: no pictures, or pictures of several sizes")
    return np.stack(pictures)


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
        ("source", pa.string()),
        ("kind", pa.string()),
        ("group", pa.string()),
        ("num_pov", pa.int32()),  # known without reading the pictures
    ]
)


def shard_path(folder: Path, split: str, first: int, end: int) -> Path:
    """Where the shard of the episodes ``first`` to ``end - 1`` of a split lies."""
    return Path(folder) / f"{split}-{first:06d}-{end:06d}.parquet"


def shard_range(path: Path) -> tuple[int, int]:
    """The index range (first, end) in a shard's name.

    Raises:
        DataError: that is no shard's name.
    """
    name = _SHARD_NAME.match(Path(path).name)
    if name is None:
        raise DataError(f"{path}: not the name of a shard (split-000000-000050.parquet)")
    return int(name["first"]), int(name["end"])


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
    if version not in _READABLE:
        file.close()
        raise DataError(
            f"{path}: episode store version {version}, this program reads "
            f"{' and '.join(_READABLE)}; make the data set again"
        )
    return file


def _columns(path: Path, names: Sequence[str] | None) -> list[dict]:
    """Rows of a shard as dicts with the named columns (None: all) that the shard has."""
    with _open(path) as file:
        try:
            return file.read(columns=None if names is None else list(names)).to_pylist()
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{path}: corrupt ({reason}); delete it and make it again") from error


def read_notes(path: Path) -> dict[str, object]:
    """The notes a shard was written with.

    Raises:
        DataError: if the shard is missing, corrupt or of another version.
    """
    with _open(path) as file:
        return json.loads(file.schema_arrow.metadata[_NOTES_KEY])


def read_shard(path: Path, *, kind: str | None = None, pictures: bool = True) -> list[EpisodeRow]:
    """The episodes of one shard.

    Args:
        path: the shard.
        kind: only episodes of this kind; None: all.
        pictures: False leaves `EpisodeRow.images` empty and does not read them.

    Raises:
        DataError: if the shard is missing, corrupt or of another version.
    """
    names = None if pictures else [name for name in _SCHEMA.names if name != "images"]
    rows = []
    for record in _columns(path, names):
        if kind is not None and record.get("kind", EXPERT) != kind:
            continue
        shape = record.pop("states_shape")
        record.pop("num_pov", None)
        record["states"] = np.frombuffer(record["states"], np.float32).reshape(shape)
        record["outcomes"] = dict(record["outcomes"])
        record.setdefault("images", ())
        for name in ("contrast", "feasible", "stamps_ns", "images"):
            record[name] = tuple(record[name])
        rows.append(EpisodeRow(**record))
    return rows


def read_pictures(path: Path) -> list[tuple[bytes, ...]]:
    """The JPEG pictures of every row of a shard, as in `EpisodeRow.images`.

    Raises:
        DataError: if the shard is missing, corrupt or of another version.
    """
    return [tuple(record["images"]) for record in _columns(path, ["images"])]


def read_num_pov(path: Path) -> list[int]:
    """N of every row of a shard; 0 where it has no pictures.

    Raises:
        DataError: if the shard is missing, corrupt or of another version.
    """
    records = _columns(path, ["num_pov"])
    if records and "num_pov" in records[0]:
        return [record["num_pov"] for record in records]
    records = _columns(path, ["images", "stamps_ns"])  # version 1
    return [len(record["images"]) // len(record["stamps_ns"]) for record in records]


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


def read_episodes(
    folder: Path, split: str | None = None, *, kind: str | None = None, pictures: bool = True
) -> Iterator[EpisodeRow]:
    """Every episode of a data set folder, shard by shard, in index order.

    Args:
        folder: the data set.
        split: only this split; None: all.
        kind, pictures: as in `read_shard`.

    Raises:
        DataError: if there is no shard, or one is corrupt.
    """
    shards = list_shards(folder, split)
    if not shards:
        wanted = f" of split {split!r}" if split else ""
        raise DataError(f"{folder}: no shard{wanted} (*.parquet); make the data set first")
    for shard in shards:
        yield from read_shard(shard, kind=kind, pictures=pictures)
