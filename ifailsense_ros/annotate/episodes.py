"""The episodes of some paths as records, each with what a file of labels says of it.

Paths and keys are those of `results.parquet` and of the file of labels (`evaluate.cases`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.bag_sidecar import LABELS
from ifailsense_ros.data.readers import open_reader
from ifailsense_ros.data.readers.rosbag import RosbagReader
from ifailsense_ros.data.records import EpisodeReader, EpisodeRecord, Problem
from ifailsense_ros.data.rosbag import BagTopics
from ifailsense_ros.evaluate.cases import BAG, READER, Job, jobs_of
from ifailsense_ros.evaluate.labels import LabelBook, LabelNote

_WORDS = {label: word for word, label in LABELS.items()}


@dataclass(frozen=True, eq=False)
class Found:
    """An episode.

    Attributes:
        path, key: name it, as in `evaluate.results.Result`.
        record: with its pictures.
        note: what the file of labels says; None: nothing.
    """

    path: str
    key: str
    record: EpisodeRecord
    note: LabelNote | None = None

    @property
    def label(self) -> bool | None:
        """The file's label, and the data's where it has none."""
        return self.record.success if self.note is None else self.note.label

    @property
    def instruction(self) -> str:
        """The file's instruction, and the recorded one where it has none."""
        return (self.note and self.note.instruction) or self.record.instruction


class Episodes:
    """Iterates over the episodes of all paths, in the order of `evaluate.cases.jobs_of`.

    Args:
        paths: rosbag2 folders, folders of them, LeRobot data sets, readers' specs.
        labels: file of labels; None: what the data say.
        num_pov: cameras of a bag that are read, 1 or 2.
        topics: names in bags; None: the node's.

    Attributes:
        problems: what could not be read so far.

    Raises:
        ConfigError, DataError: as `jobs_of` and `read_labels`; a path that is no recording.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        labels: Path | None = None,
        num_pov: int = 2,
        topics: BagTopics | None = None,
    ) -> None:
        self._book = None if labels is None else LabelBook(labels)
        self._num_pov = num_pov
        self._jobs = jobs_of(paths, topics=topics)
        self.problems: list[Problem] = []
        for job in self._jobs:
            if job.form not in (BAG, READER):
                raise ConfigError(
                    f"{job.path}: its labels are known, and pairs are no recordings; give bags, a "
                    "LeRobot data set, or a reader's spec (store:PATH)"
                )

    def __iter__(self) -> Iterator[Found]:
        bags_read = set()
        for job in self._jobs:
            if job.form == BAG:  # one reader goes through all bags of a path, and names them
                if job.path in bags_read:
                    continue
                bags_read.add(job.path)
            notes = {} if self._book is None else self._book.of(job.path)
            reader = self._reader(job)
            try:
                for record in reader:
                    yield Found(job.path, record.key, record, notes.get(record.key))
            except DataError as error:
                self.problems.append(Problem(job.where, str(error)))
            self.problems += reader.problems

    def _reader(self, job: Job) -> EpisodeReader:
        if job.form == READER:
            return open_reader(job.spec, keep_going=True)
        label = "" if job.default_label is None else _WORDS[job.default_label]
        names = dataclasses.asdict(job.topics)
        return RosbagReader(job.spec, keep_going=True, num_pov=self._num_pov, label=label, **names)


def labelled(found: Iterable[Found]) -> Iterator[tuple[str, EpisodeRecord, bool, str]]:
    """(name, record, label, instruction) of the episodes with a label."""
    for one in found:
        if one.label is not None:
            kind = one.note.kind if one.note else ""
            category = one.note.category if one.note else ""
            record = dataclasses.replace(
                one.record,
                success=one.label,
                kind=kind or one.record.kind,
                category=category or one.record.category,
                # Of a failure nobody knows what was carried out instead.
                task=one.record.task if one.label else "",
            )
            yield f"{one.path} {one.key}", record, one.label, one.instruction
