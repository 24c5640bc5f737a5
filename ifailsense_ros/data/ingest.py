"""Reading a source into the catalog, one episode at a time.

Whatever cannot be used is a DataError, or with `keep_going` a line in the list of problems.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.catalog import Catalog
from ifailsense_ros.data.readers.store import StoreReader
from ifailsense_ros.data.records import EXPERT, EpisodeReader, EpisodeRecord, Problem
from ifailsense_ros.data.sinks import Entries, OwnShards, Shape, StoreShards
from ifailsense_ros.data.splits import Shares


@dataclass(frozen=True)
class Source:
    """One ``--from``.

    Attributes:
        number: 0 for the first.
        spec: as it was given.
        reader: of its records.
    """

    number: int
    spec: str
    reader: EpisodeReader


class Sink(Protocol):
    """Where an episode's pictures go, or lie already."""

    def add(self, record: EpisodeRecord, position: int) -> None:
        """Take an episode into the catalog."""
        ...

    def finish(self) -> None:
        """Commit what is still held."""
        ...


def read_source(
    catalog: Catalog,
    source: Source,
    folder: Path,
    shape: Shape,
    shares: Shares | None,
    seed: int,
    *,
    keep_going: bool,
    experts: bool,
) -> None:
    """Take all episodes of a source into the catalog, with a progress bar.

    Args:
        catalog: episodes that are in it already (of a build that was stopped) are not read again.
        source: to be read.
        folder: of the data set; its own shards go there.
        shape: of the stored pictures.
        shares: of the splits; None keeps the splits of an episode store.
        seed: of the splits and of the order in which pairs are drawn.
        keep_going: list what cannot be used instead of raising.
        experts: episodes without a label are expert episodes.

    Raises:
        DataError: something cannot be read, or lacks what a label needs.
    """
    entries = Entries(source.number, shares, seed)
    sink: Sink
    if isinstance(source.reader, StoreReader):
        sink = StoreShards(catalog, entries, source.reader, shape)
    else:
        sink = OwnShards(catalog, entries, folder, shape)
    bar = tqdm(source.reader, desc=source.spec, unit="episode", mininterval=1)
    for position, found in enumerate(bar):
        record = _as_expert(found) if experts and found.success is None else found
        try:
            known = catalog.position_of(source.number, record.key)
            if known is None:
                sink.add(record, position)
            elif known != position:
                raise DataError(
                    f"{record.source} {record.key}: the key occurs twice (episodes {known} and "
                    f"{position}); the reader must give each episode its own"
                )
        except DataError as error:
            if not keep_going:
                raise
            where = f"{record.source} {record.key}"
            what = str(error).removeprefix(f"{where}: ")
            catalog.note(source.number, Problem(where, what))
        _note_all(catalog, source)
    _note_all(catalog, source)
    sink.finish()


def _as_expert(record: EpisodeRecord) -> EpisodeRecord:
    """An episode without a label as an expert's; where no task is named, the instruction is it."""
    task = record.task or " ".join(record.instruction.lower().rstrip(" .").split())
    return replace(record, kind=EXPERT, success=True, task=task)


def _note_all(catalog: Catalog, source: Source) -> None:
    """Move the reader's problems into the catalog."""
    problems = source.reader.problems
    while problems:
        catalog.note(source.number, problems.pop(0))
