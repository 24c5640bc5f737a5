"""The manifest: one row a pair (episode, instruction, label), beside the shards with the pictures.

A data set folder holds ``manifest.parquet`` (rows as `ManifestRow`), ``problems.parquet`` (what
was left out), ``manifest.json`` (how it was made, sha256 of everything) and ``shards/`` (episodes
that were not in an episode store already).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, fields
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.episode_store import EpisodeRow, read_shard

MANIFEST = "manifest.parquet"
PROBLEMS = "problems.parquet"
SUMMARY = "manifest.json"
FORMAT = 1
"""Of `manifest.json`; raised when its fields or the manifest's columns change."""

_BATCH = 1000


@dataclass(frozen=True)
class ManifestRow:
    """One pair of an episode and an instruction.

    Attributes:
        pair_id: names the pair; the same source, key and instruction give the same one.
        split: train, validation, dev or test, or what ``--split`` named.
        source: data set or world the episode comes from.
        key: of the episode within its source.
        group: scene or session; never in two splits.
        shard: ``shards/FILE`` in the data set, or ``storeN/FILE`` in the N-th source.
        row: of the episode in its shard.
        instruction: g.
        reworded: the episode was recorded under another sentence for the same task.
        label: y: whether the episode carried out the instruction.
        asked_task: the task that g asks for; "" where the source does not say.
        performed_task: the task that was carried out; "" where none was, or it is not known.
        category: task category.
        contrast: for both members of a pair, in what the wrong instruction differs.
        phrasing: number of the phrasing; None where the source has no table of them.
        kind: positive, semantic, or the class of a failure.
        pairing: "smf": the episode is there with either label; "twins": a failure and the success
            beside it are; "given": the source said the label.
        feasible: whether the asked task was possible at the start; None where that is not known.
        oracle: the oracle's word on the asked task (1 true, 0 disputed, -1 false); None without.
        counted: whether the pair belongs to the data set proper.
        why_not_counted: "" if it does, else one of `negatives.REASONS`.
        unfiltered: whether it belongs to the unfiltered set (built with ``--unfiltered``).
        twin: key of the success beside a failure, or of a failure beside that success; else "".
        episode_sha256: over the episode's pictures.
    """

    pair_id: str
    split: str
    source: str
    key: str
    group: str
    shard: str
    row: int
    instruction: str
    reworded: bool
    label: bool
    asked_task: str
    performed_task: str
    category: str
    contrast: tuple[str, ...]
    phrasing: int | None
    kind: str
    pairing: str
    feasible: bool | None
    oracle: int | None
    counted: bool
    why_not_counted: str
    unfiltered: bool
    twin: str
    episode_sha256: str


_TYPES = {
    "row": pa.int32(),
    "reworded": pa.bool_(),
    "label": pa.bool_(),
    "contrast": pa.list_(pa.string()),
    "phrasing": pa.int32(),
    "feasible": pa.bool_(),
    "oracle": pa.int8(),
    "counted": pa.bool_(),
    "unfiltered": pa.bool_(),
}
_SCHEMA = pa.schema([(f.name, _TYPES.get(f.name, pa.string())) for f in fields(ManifestRow)])
_PROBLEM_SCHEMA = pa.schema([(name, pa.string()) for name in ("spec", "where", "what")])


def write_manifest(folder: Path, rows: Iterable[ManifestRow]) -> None:
    """Write the rows as a stream; the file appears only when it is complete."""
    _write(folder / MANIFEST, _SCHEMA, map(vars, rows))


def write_problems(folder: Path, problems: Iterable[tuple[str, str, str]]) -> None:
    """Write what was left out, as (spec of the source, where, what); an empty table if nothing."""
    names = _PROBLEM_SCHEMA.names
    rows = (dict(zip(names, problem, strict=True)) for problem in problems)
    _write(folder / PROBLEMS, _PROBLEM_SCHEMA, rows)


def _write(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> None:
    part = path.with_name(f"{path.name}.part")
    rows = iter(rows)
    with pq.ParquetWriter(part, schema, compression="zstd") as writer:
        while batch := list(islice(rows, _BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    os.replace(part, path)


class DataSet:
    """A built data set, for reading.

    Attributes:
        folder: of the data set.
        summary: the content of ``manifest.json``.

    Raises:
        DataError: the folder holds no complete data set.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.summary: dict[str, Any] = json.loads((self.folder / SUMMARY).read_text("utf-8"))
        except FileNotFoundError:
            raise DataError(
                f"{folder}: no {SUMMARY}; make the data set with `ifailsense data build`, or give "
                "the same command again if it was stopped"
            ) from None
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder / SUMMARY}: cannot be read ({error})") from error
        if self.summary.get("format") != FORMAT:
            raise DataError(
                f"{self.folder / SUMMARY}: format {self.summary.get('format')}, this program reads "
                f"{FORMAT}; build the data set again"
            )

    def rows(self, split: str | None = None, *, counted: bool = False) -> Iterator[ManifestRow]:
        """The rows, in the order of the shards, as a stream.

        Args:
            split: only this split; None: all.
            counted: only pairs that count.

        Raises:
            DataError: the manifest cannot be read.
        """
        for record in self._records(MANIFEST, _SCHEMA):
            if split is not None and record["split"] != split:
                continue
            if counted and not record["counted"]:
                continue
            record["contrast"] = tuple(record["contrast"])
            yield ManifestRow(**record)

    def problems(self) -> Iterator[tuple[str, str, str]]:
        """What was left out: spec of the source, where, what.

        Raises:
            DataError: the list cannot be read.
        """
        for record in self._records(PROBLEMS, _PROBLEM_SCHEMA):
            yield record["spec"], record["where"], record["what"]

    def _records(self, name: str, schema: pa.Schema) -> Iterator[dict[str, Any]]:
        path = self.folder / name
        try:
            with closing(pq.ParquetFile(path)) as file:
                if file.schema_arrow.names != schema.names:
                    raise DataError(f"{path}: has other columns; build it again")
                for batch in file.iter_batches(_BATCH):
                    yield from batch.to_pylist()
        except (FileNotFoundError, pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{path}: cannot be read ({reason}); build it again") from error

    def shard(self, name: str) -> Path:
        """Where a shard of the manifest lies.

        Raises:
            DataError: the manifest's summary does not know it.
        """
        folder, _, file = name.partition("/")
        if name not in self.summary["shards"]:
            raise DataError(f"{self.folder}: {SUMMARY} does not list the shard {name}")
        if folder == "shards":
            return self.folder / name
        return (
            self.folder / self.summary["sources"][int(folder.removeprefix("store"))]["path"] / file
        )

    def episodes(
        self, split: str | None = None, *, counted: bool = True
    ) -> Iterator[tuple[EpisodeRow, list[ManifestRow]]]:
        """Each episode with its pictures and its pairs, one shard in memory at a time.

        Raises:
            DataError: a shard cannot be read.
        """
        rows = self.rows(split, counted=counted)
        for shard, of_shard in groupby(rows, key=lambda row: row.shard):
            episodes = read_shard(self.shard(shard))
            for number, pairs in groupby(of_shard, key=lambda row: row.row):
                if not 0 <= number < len(episodes):
                    raise DataError(
                        f"{self.shard(shard)}: has {len(episodes)} episodes, the manifest names "
                        f"row {number}; build the data set again"
                    )
                yield episodes[number], list(pairs)
