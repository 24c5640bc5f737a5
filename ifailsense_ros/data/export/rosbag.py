"""Records as rosbag2 folders, one an episode, each with its label in `episodes.yaml`.

A bag holds what a monitor would have received, so `ifailsense detect` and `ros2 bag play` work on
it; the label is beside it and not in it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from ifailsense_ros.core.effects import SECOND, BoundaryKind, TrackerConfig
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.bag_sidecar import LABELS, write_sidecar
from ifailsense_ros.data.export.bag_writer import EpisodeBagWriter
from ifailsense_ros.data.export.common import all_frames, full_key, not_done
from ifailsense_ros.data.records import EpisodeRecord, Problem

INDEX_NAME = "index.jsonl"
"""Which bag holds which episode, one JSON object a line."""

_PART = ".part"
_EARLIEST_NS = SECOND
_OFFSET_NS = 10 * SECOND
_MS = 1_000_000
_WORDS = {label: word for word, label in LABELS.items()}


class RosbagExport:
    """Writes records to a folder of bags, or goes on with what an earlier run began there.

    Header stamps must not be zero: records whose stamps begin there are moved to begin at ten
    seconds, which the sidecar says and our reader takes back.

    Args:
        folder: of the bags.
        storage: "mcap" or "sqlite3".
        pictures: "jpeg", "png" (both CompressedImage) or "raw".
        keep_going: note records that cannot be read in `problems` and go on.

    Attributes:
        problems: what was left out.

    Raises:
        ConfigError: the folder holds something else.
    """

    def __init__(
        self,
        folder: Path,
        *,
        storage: str = "mcap",
        pictures: str = "jpeg",
        keep_going: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.problems: list[Problem] = []
        self._storage, self._pictures, self._keep_going = storage, pictures, keep_going
        self._index = self.folder / INDEX_NAME
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._index.is_file() and any(self.folder.iterdir()):
            raise ConfigError(
                f"{self.folder}: is not empty, and no export to go on with: choose another folder"
            )
        self._index.touch()

    def run(self, records: Iterable[EpisodeRecord]) -> Iterator[EpisodeRecord]:
        """Export records; yields each when its bag is written.

        Raises:
            ConfigError: they are not those that an earlier run began with.
            DataError: (without `keep_going`) a record cannot be read.
        """
        problems = self.problems if self._keep_going else None
        number = sum(1 for _ in self._done())
        part = self.folder / _PART
        for record in not_done(records, self._done(), self.folder, problems):
            name = f"episode-{number:06d}"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            try:
                write_bag(part / name, record, storage=self._storage, pictures=self._pictures)
            except DataError as error:
                if not self._keep_going:
                    raise
                self.problems.append(Problem(full_key(record), str(error)))
                continue
            finally:
                # Also after Ctrl-C: nothing that looks like a bag stays behind.
                if (part / name / "episodes.yaml").is_file():
                    shutil.rmtree(self.folder / name, ignore_errors=True)
                    os.replace(part / name, self.folder / name)
                shutil.rmtree(part, ignore_errors=True)
            with self._index.open("a", encoding="utf-8") as index:
                index.write(json.dumps({"bag": name, "key": full_key(record)}) + "\n")
            number += 1
            yield record

    def _done(self) -> Iterator[str]:
        with self._index.open(encoding="utf-8") as index:
            for line in index:
                try:
                    yield json.loads(line)["key"]
                except (ValueError, TypeError, KeyError) as error:
                    raise ConfigError(
                        f"{self._index}: {line[:60]!r} is damaged: delete the export"
                    ) from error


def write_bag(
    folder: Path, record: EpisodeRecord, *, storage: str = "mcap", pictures: str = "jpeg"
) -> None:
    """Write a record as a rosbag2 folder with its sidecar.

    Raises:
        DataError: a picture cannot be read.
    """
    first, last = record.stamps_ns[0], record.stamps_ns[-1]
    # The tracker takes pairs from 0.2 s before START, and none if START and END are far from them.
    config = TrackerConfig()
    start = first if record.start_ns is None else record.start_ns
    start = min(max(start, first - config.camera_stale_ns), first + config.pre_roll_ns)
    end = last if record.end_ns is None else record.end_ns
    end = min(max(end, last), last + config.camera_stale_ns)
    offset = 0 if min(start, first) >= _EARLIEST_NS else _OFFSET_NS - min(start, first)
    identifier, text = record.episode_id, record.instruction
    before = min(start, first) + offset
    with EpisodeBagWriter(folder, record.num_pov, storage=storage, pictures=pictures) as bag:
        bag.instruction(before - 2 * _MS, text)
        bag.boundary(BoundaryKind.START, start + offset, before - _MS, identifier, text)
        for keyframe in all_frames(record):
            bag.views(keyframe.stamp_ns + offset, keyframe.views)
        received = max(end, last) + offset + _MS
        bag.boundary(BoundaryKind.END, end + offset, received, identifier, text)
    entry = {
        "episode_id": str(identifier),
        "instruction": text,
        "label": _WORDS[record.success],
        "task": record.task,
        "category": record.category,
        "kind": record.kind,
        "group": record.group,
        "key": record.key,
        "twin": record.twin,
    }
    write_sidecar(folder, [entry], offset)
