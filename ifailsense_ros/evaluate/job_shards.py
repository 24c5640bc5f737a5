"""The parquet file of one job: its rows, and beside them what of the job could not be done."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ifailsense_ros.core.errors import DataError, text_of
from ifailsense_ros.data.records import Problem

_BATCH = 1000
_META_KEY = b"ifailsense_shard"


class Done(NamedTuple):
    """What came of a job.

    Attributes:
        rows: in their order.
        problems: what of it could not be done.
        files: to be put beside the results, by relative path ("montages/x.jpg"); they are there
            before the rows are. A worker on another machine needs no access to the folder.
    """

    rows: Sequence[Any]
    problems: Sequence[Problem] = ()
    files: Mapping[str, bytes] = {}


@dataclass(frozen=True)
class Packed:
    """What came of a job, as the driver shall write it.

    Attributes:
        shard: bytes of a parquet file.
        files: see `Done`.
        error: one line where the job raised; then there is nothing to write.
    """

    shard: bytes = b""
    files: Mapping[str, bytes] = field(default_factory=dict)
    error: str = ""


def pack(done: Done, table: pa.Table) -> Packed:
    """What came of a job as bytes; the same ones for the same content.

    Args:
        done: its problems and files.
        table: its rows.
    """
    notes = json.dumps([[p.where, p.what] for p in done.problems]).encode()
    shard = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_META_KEY: notes}), shard, compression="zstd")
    return Packed(shard.getvalue(), dict(done.files))


def store(folder: Path, path: Path, packed: Packed) -> None:
    """Write a shard, after the files that its rows name; each whole or not at all.

    Args:
        folder: of the results, where `files` go.
        path: of the shard.
        packed: without an error.
    """
    for name, data in packed.files.items():
        beside = folder / name
        if not beside.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name!r} does not lie in the folder of the results")
        beside.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(beside, data)
    _write_whole(path, packed.shard)


def _write_whole(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)


def is_whole(path: Path) -> bool:
    """Whether the shard is there; a damaged one is removed."""
    try:
        _problems(path)
    except FileNotFoundError:
        return False
    except (pa.ArrowException, OSError, ValueError, KeyError):
        path.unlink()
        return False
    return True


def tables_of(path: Path) -> Iterator[pa.Table]:
    """The rows of a shard, some at a time.

    Raises:
        DataError: it is gone or damaged.
    """
    with _reading(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH):
            yield pa.Table.from_batches([batch])


def problems_of(path: Path) -> list[Problem]:
    """What of the job could not be done. Raises as `tables_of`."""
    with _reading(path):
        return _problems(path)


def _problems(path: Path) -> list[Problem]:
    notes = (pq.read_schema(path).metadata or {})[_META_KEY]
    return [Problem(where, what) for where, what in json.loads(notes)]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: cannot be read ({text_of(error)}); give the same command again"
        ) from error


def fingerprint_of(paths: Iterable[str | Path]) -> str:
    """Changes when one of the files is written anew: a hash of names, sizes and times of change.
    A folder stands for all files below it; what is not there counts as such.
    """
    digest = hashlib.sha256()
    for path in map(Path, paths):
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            try:
                status = file.stat()
                facts = f"{status.st_size} {status.st_mtime_ns}"
            except OSError:
                facts = "missing"
            digest.update(f"{os.fspath(file)}\0{facts}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]
