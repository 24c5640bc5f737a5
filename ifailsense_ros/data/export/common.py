"""What both exports share: all time steps in small batches, and going on after an interruption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.records import EpisodeRecord, Problem

_BATCH = 32


class Export(Protocol):
    """Writes records to a folder.

    Attributes:
        folder: where.
        problems: what was left out.
    """

    folder: Path
    problems: list[Problem]

    def run(self, records: Iterable[EpisodeRecord]) -> Iterator[EpisodeRecord]:
        """Export records; yields each that is new."""
        ...


def export_all(export: Export, records: Iterable[EpisodeRecord]) -> int:
    """Run an export with a progress bar; returns the number of new episodes."""
    with tqdm(export.run(records), desc=f"export to {export.folder}", unit="episode") as bar:
        return sum(1 for _ in bar)


def all_frames(record: EpisodeRecord) -> Iterator[Keyframe]:
    """Every time step of a record, a few decoded at a time.

    Raises:
        DataError: a picture cannot be read.
    """
    count = len(record.stamps_ns)
    for start in range(0, count, _BATCH):
        yield from record.read(range(start, min(start + _BATCH, count)))


def full_key(record: EpisodeRecord) -> str:
    """Names a record among those of all sources."""
    return f"{record.source}/{record.key}"


def not_done(
    records: Iterable[EpisodeRecord],
    done: Iterator[str],
    folder: Path,
    problems: list[Problem] | None,
) -> Iterator[EpisodeRecord]:
    """The records that an earlier run has not exported, which must be the last ones.

    Args:
        records: all of them, in the same order as then.
        done: keys of those exported before, in that order.
        folder: of the export.
        problems: where to note records that were left out before; None: none may have been.

    Raises:
        ConfigError: the folder holds an export of something else.
    """
    expected = next(done, None)
    for record in records:
        if expected is None:
            yield record
        elif full_key(record) == expected:
            expected = next(done, None)
        elif problems is None:
            break
        else:
            what = "left out by an earlier run; delete the export to try it again"
            problems.append(Problem(full_key(record), what))
    if expected is not None:
        raise ConfigError(
            f"{folder}: holds an export of other episodes ({expected} is not next in the source): "
            "choose another folder, or delete it"
        )
