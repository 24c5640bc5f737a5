"""Episode stores as records: what the simulators wrote, experts and failures alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.episode_store import (
    EpisodeRow,
    decode_pictures,
    list_shards,
    read_num_pov,
    read_pictures,
    read_shard,
)
from ifailsense_ros.data.failure_classes import WRONG_TARGET_OBJECT
from ifailsense_ros.data.readers.base import BaseReader
from ifailsense_ros.data.records import EXPERT, EpisodeRecord, Negative


def key_of(row: EpisodeRow) -> str:
    """The record's key: split/index/attempt, and the class of a failure."""
    key = f"{row.split}/{row.index}/{row.attempt}"
    return key if row.kind == EXPERT else f"{key}/{row.kind}"


class StoreReader(BaseReader):
    """Reads an episode store folder, shard by shard, in index order.

    The time steps of a record are the stored keyframes. Its `task` is the one carried out: for
    ``wrong_target_object`` not the one asked for.

    Args:
        path: folder of the store.
        split: only this split; None: all.
        keep_going: note shards that cannot be read in `problems` and go on.

    Attributes:
        source: name of the world of the last record ("" before the first).

    Raises:
        DataError: no such folder, no shard in it, or (without `keep_going`, while iterating) a
            shard that cannot be read.
    """

    source = ""

    def __init__(
        self, path: str | Path, split: str | None = None, *, keep_going: bool = False
    ) -> None:
        super().__init__(path, keep_going=keep_going)
        self.shards = list_shards(self.path, split)
        if not self.shards:
            wanted = f" of split {split!r}" if split else ""
            raise DataError(f"{path}: no shard{wanted} (*.parquet); make the data set first")
        # Pictures are asked for in the order of the records: one shard in memory is enough.
        self._pictures = lru_cache(maxsize=1)(read_pictures)

    def records(self) -> Iterator[EpisodeRecord]:
        """The records, in the order of the shards."""
        for shard in self.shards:
            with self.noting(shard):
                rows = read_shard(shard, pictures=False)
                for number, (row, povs) in enumerate(zip(rows, read_num_pov(shard), strict=True)):
                    self.source = row.source
                    yield self._record(shard, number, row, povs)

    def _record(self, shard: Path, number: int, row: EpisodeRow, num_pov: int) -> EpisodeRecord:
        is_expert = row.kind == EXPERT
        other_done = row.kind == WRONG_TARGET_OBJECT
        negative = Negative(row.negative_task, row.negative_instruction)

        def read(steps: Sequence[int]) -> tuple[Keyframe, ...]:
            return self._read(shard, number, row, steps)

        return EpisodeRecord(
            source=row.source,
            key=key_of(row),
            group=row.group,
            instruction=row.instruction,
            task=row.negative_task if other_done else row.task,
            category=row.category,
            kind=row.kind,
            success=is_expert,
            stamps_ns=row.stamps_ns,
            num_pov=num_pov,
            read=read,
            negative=negative if is_expert and row.negative_task else None,
            outcomes=row.outcomes,
            feasible=row.feasible,
            phrasing=row.phrasing,
            twin=None if is_expert else f"{row.split}/{row.index}/{row.attempt}",
        )

    def _read(
        self, shard: Path, number: int, row: EpisodeRow, steps: Sequence[int]
    ) -> tuple[Keyframe, ...]:
        where = f"{shard}: {key_of(row)}"
        images = self._pictures(shard)[number]
        count = len(row.stamps_ns)
        if not images:
            raise DataError(f"{where}: stored without pictures; render them first")
        if any(not 0 <= step < count for step in steps):
            raise DataError(f"{where}: has the time steps 0 to {count - 1}, not {list(steps)}")
        wanted = [images[start + step] for step in steps for start in range(0, len(images), count)]
        pictures = decode_pictures(wanted, where)
        views = pictures.reshape(len(steps), -1, *pictures.shape[1:])
        return tuple(
            Keyframe(row.stamps_ns[step], tuple(np.ascontiguousarray(v) for v in seen))
            for step, seen in zip(steps, views, strict=True)
        )
