"""What a detector is asked: the labelled pairs of one split, shard by shard.

A data set folder and a bare episode store look the same from here. One shard of pictures is in
memory at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ifailsense_ros.core.checkpoint import sha256_of
from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.episode_store import EpisodeRow, list_shards, read_shard
from ifailsense_ros.data.failure_classes import WRONG_TARGET_OBJECT
from ifailsense_ros.data.manifest import MANIFEST, SUMMARY, DataSet, ManifestRow
from ifailsense_ros.data.readers.store import key_of
from ifailsense_ros.data.records import EXPERT
from ifailsense_ros.data.sinks import hash_pictures
from ifailsense_ros.data.smf import Phrasings

POSITIVE, SEMANTIC = "positive", "semantic"
Asked = tuple[EpisodeRow, list[ManifestRow]]


@dataclass(frozen=True)
class Shard:
    """Some episodes of a split, and how to read them.

    Attributes:
        name: of the file.
        read: opens it: each episode with its pictures and its pairs.
    """

    name: str
    read: Callable[[], Iterator[Asked]]


class AskedSet:
    """The pairs of one split of a data set or an episode store.

    Args:
        folder: of either.
        split: which.
        every_pair: also pairs that do not count (a data set's; a store has none).

    Attributes:
        name: the folder's, without where it lies.
        hash: sha256 that stands for the pairs and all their pictures.
        generators: versions of what made the episodes; empty where that is not known.

    Raises:
        DataError: neither, or it has no such split.
    """

    def __init__(self, folder: str | Path, split: str, *, every_pair: bool = False) -> None:
        self.folder, self.split, self.every_pair = Path(folder), split, every_pair
        self.name = self.folder.resolve().name
        self._set = DataSet(self.folder) if (self.folder / SUMMARY).exists() else None
        self.generators: tuple[str, ...] = ()
        if self._set is not None:
            self.hash = str(self._set.summary["sha256"][MANIFEST])
            self.generators = tuple(
                f"{s} {g}"
                for entry in self._set.summary["sources"]
                for s, g in zip(entry["source"], entry["generator"], strict=False)
            )
            return
        self._files = list_shards(self.folder, split)
        if not self._files:
            raise DataError(
                f"{folder}: neither a data set nor a store with split {split!r}; see what there is "
                "with `ifailsense data show`"
            )
        text = "".join(sha256_of(file) for file in self._files)
        self.hash = hashlib.sha256(text.encode()).hexdigest()
        first = next(iter(read_shard(self._files[0], pictures=False)), None)
        if first is not None:
            self.generators = (f"{first.source} {first.generator_version}",)

    def shards(self) -> Iterator[Shard]:
        """The shards that hold a pair of the split, in order, not read yet.

        Raises:
            DataError: none does.
        """
        if self._set is None:
            for file in self._files:
                yield Shard(file.name, lambda file=file: _asked_of_store(file))
            return
        rows = self._set.rows(self.split, counted=not self.every_pair)
        empty = True
        for name, found in groupby(rows, key=lambda row: row.shard):
            empty = False
            of_shard = list(found)
            yield Shard(name, lambda name=name, rows=of_shard: self._asked(name, rows))
        if empty:
            raise DataError(
                f"{self.folder}: no pair of split {self.split!r}; see what there is with "
                f"`ifailsense data show {self.folder}`"
            )

    def _asked(self, name: str, rows: Sequence[ManifestRow]) -> Iterator[Asked]:
        assert self._set is not None
        episodes = read_shard(self._set.shard(name))
        for number, pairs in groupby(rows, key=lambda row: row.row):
            if not 0 <= number < len(episodes):
                raise DataError(
                    f"{self._set.shard(name)}: has {len(episodes)} episodes, the manifest names "
                    f"row {number}; build the data set again"
                )
            yield episodes[number], list(pairs)

    def pair_count(self) -> int:
        """Number of pairs, for a progress bar; reads no pictures."""
        if self._set is not None:
            rows = self._set.rows(self.split, counted=not self.every_pair)
            return sum(1 for _ in rows)
        rows = (read_shard(file, pictures=False) for file in self._files)
        return sum(sum(len(p) for _, p in _paired(part, "", hashed=False)) for part in rows)


def _asked_of_store(file: Path) -> Iterator[Asked]:
    return _paired(read_shard(file), file.name)


def _paired(rows: Sequence[EpisodeRow], file: str, *, hashed: bool = True) -> Iterator[Asked]:
    """The rows of a store's shard with their pairs: SMF pairs, or failures beside their twins.

    Raises:
        DataError: a failure lies there without its twin.
    """
    failures = {f"{r.split}/{r.index}/{r.attempt}": key_of(r) for r in rows if r.kind != EXPERT}
    experts = {key_of(r) for r in rows if r.kind == EXPERT}
    for number, row in enumerate(rows):
        key = key_of(row)
        sha = hash_pictures(row.images) if hashed else ""

        def pair(
            label: bool, kind: str, twin: str, row=row, number=number, key=key, sha=sha
        ) -> ManifestRow:
            said = row.negative_instruction if kind == SEMANTIC else row.instruction
            asked = row.negative_task if kind == SEMANTIC else row.task
            done = row.task if row.kind == EXPERT else ""
            words = (row.source, key, sha, kind, said)
            return ManifestRow(
                pair_id=hashlib.sha256("\0".join(words).encode()).hexdigest()[:16],
                split=row.split,
                source=row.source,
                key=key,
                group=row.group,
                shard=file,
                row=number,
                instruction=said,
                reworded=False,
                label=label,
                asked_task=asked,
                performed_task=row.negative_task if kind == WRONG_TARGET_OBJECT else done,
                category=row.category,
                contrast=row.contrast if not twin else (),
                phrasing=row.phrasing,
                kind=kind,
                pairing="twins" if twin else "smf",
                feasible=asked in row.feasible,
                oracle=row.outcomes.get(asked),
                counted=True,
                why_not_counted="",
                unfiltered=False,
                twin=twin,
                episode_sha256=sha,
            )

        if row.kind != EXPERT:
            twin = f"{row.split}/{row.index}/{row.attempt}"
            if twin not in experts:
                raise DataError(f"{file}: {key} has no successful twin in its shard")
            yield row, [pair(False, row.kind, twin)]
        elif key in failures:
            yield row, [pair(True, POSITIVE, failures[key])]
        else:
            yield row, [pair(True, POSITIVE, ""), pair(False, SEMANTIC, "")]


def phrasings_of(folder: str | Path, split: str = "train") -> Phrasings:
    """The sentences that a split uses for each task, in order of their numbers, then of first use:
    with the same place in the list, those of two tasks have the same number.

    Raises:
        DataError: no data set, no store, or it has no such split.
    """
    asked = AskedSet(folder, split)
    found: dict[str, dict[str, int]] = {}
    if asked._set is not None:
        rows = asked._set.rows(split, counted=True)
    else:
        parts = (_paired(read_shard(f, pictures=False), f.name, hashed=False) for f in asked._files)
        rows = (pair for part in parts for _, pairs in part for pair in pairs)
    for row in rows:
        number = -1 if row.phrasing is None else row.phrasing
        found.setdefault(row.asked_task, {}).setdefault(row.instruction, number)
    if not found:
        raise DataError(f"{folder}: no pair of split {split!r}; name the training data")
    return Phrasings({task: sorted(said, key=said.get) for task, said in sorted(found.items())})
