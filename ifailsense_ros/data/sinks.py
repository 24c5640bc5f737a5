"""Where the pictures of a data set's episodes go: shards of its own, or those of a store.

Held in memory is at most one unfinished shard a split. A shard and its episodes enter the catalog
together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ifailsense_ros.core.checkpoint import sha256_of
from ifailsense_ros.core.errors import DataError
from ifailsense_ros.core.montage import MontageGeometry, fit_cell
from ifailsense_ros.data.catalog import (
    EXPERT_ROLE,
    FAILURE_ROLE,
    GIVEN_ROLE,
    Catalog,
    ShardEntry,
)
from ifailsense_ros.data.episode_store import (
    EpisodeRow,
    read_pictures,
    read_shard,
    shard_path,
    write_shard,
)
from ifailsense_ros.data.negatives import verdict_on, verdict_on_positive
from ifailsense_ros.data.readers.store import StoreReader, key_of
from ifailsense_ros.data.records import EXPERT, EpisodeRecord
from ifailsense_ros.data.splits import Shares, unit_hash

SHARD_EPISODES = 50
JPEG_QUALITY = 90
OWN_SHARDS = "shards"
"""Folder of the data set's own shards, and first part of their names in the manifest."""


@dataclass(frozen=True)
class Shape:
    """What an episode's pictures become: T keyframes, N PoV, squares of `size` pixels."""

    keyframes: int
    pov: int
    size: int


def _role_of(record: EpisodeRecord) -> str:
    """What an episode is for.

    Raises:
        DataError: it lacks what its label needs.
    """
    where = f"{record.source} {record.key}"
    if not record.instruction.strip():
        raise DataError(f"{where}: instruction is empty; add one, or leave the episode out")
    if record.kind == EXPERT and record.success is not False:
        for name in ("task", "category"):
            if not getattr(record, name):
                raise DataError(
                    f"{where}: {name} is not known, so it cannot be paired with another of its "
                    "category; add it to the data set's table of tasks"
                )
        return EXPERT_ROLE
    if record.success is None:
        raise DataError(
            f"{where}: whether it succeeded is not said; add a label, or give --experts"
        )
    return FAILURE_ROLE if record.twin else GIVEN_ROLE


@dataclass
class Entries:
    """Makes the catalog's entry of a record."""

    spec: int
    shares: Shares | None
    seed: int

    def split_of(self, record: EpisodeRecord, stored: str | None) -> str:
        """The split of a record, by its group; `stored` is what an episode store says."""
        if self.shares is None:
            if stored is None:
                raise DataError(
                    f"{record.source} {record.key}: the source has no splits of its own; give "
                    "--split train=0.8,validation=0.1,test=0.1 or --as-split test"
                )
            return stored
        return self.shares.split_of(record.source, record.group or record.key, self.seed)

    def entry(
        self, record: EpisodeRecord, position: int, split: str, place: tuple[str, int], sha: str
    ) -> dict[str, Any]:
        """The columns of the episode's row."""
        role = _role_of(record)
        negative = record.negative if role == EXPERT_ROLE else None
        why = verdict_on_positive(record.task, record.outcomes) if role == EXPERT_ROLE else ""
        if negative and not why:
            why = verdict_on(negative.task, record.outcomes, record.feasible)
        return {
            "spec": self.spec,
            "position": position,
            "source": record.source,
            "key": record.key,
            "grp": record.group or record.key,
            "split": split,
            "role": role,
            "kind": record.kind,
            "success": int(record.success is not False),
            "instruction": record.instruction,
            "task": record.task,
            "category": record.category,
            "phrasing": record.phrasing,
            "recorded": record.instruction,
            "recorded_phrasing": record.phrasing,
            "negative_task": negative.task if negative else None,
            "negative_instruction": negative.instruction if negative else None,
            "contrast": None,
            "outcomes": json.dumps(dict(record.outcomes)),
            "feasible": None if record.feasible is None else json.dumps(list(record.feasible)),
            "why": why,
            "generator": "",
            "twin": record.twin,
            "shard": place[0],
            "row": place[1],
            "sha": sha,
            "shuffle": unit_hash(str(self.seed), "order", record.source, record.key),
        }


def _refuse_twice(record: EpisodeRecord, held: Iterable[dict[str, Any]]) -> None:
    """Raises DataError if an episode that the catalog does not have yet has the same key."""
    if any(entry["key"] == record.key for entry in held):
        raise DataError(
            f"{record.source} {record.key}: the key occurs twice; the reader must give each "
            "episode its own"
        )


def hash_pictures(images: Iterable[bytes]) -> str:
    """sha256 over the JPEG pictures of an episode; the same pictures, the same hash."""
    digest = hashlib.sha256()
    for data in images:
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


# --- sources that become shards of the data set


def row_of(record: EpisodeRecord, shape: Shape, split: str, index: int) -> EpisodeRow:
    """A record as a row of the episode store: evenly spaced keyframes, as JPEG squares.

    Raises:
        DataError: too few time steps or PoV, or a picture that cannot be read.
    """
    episode = record.episode(shape.keyframes, shape.pov)
    geometry = MontageGeometry(shape.pov, shape.keyframes, shape.size, shape.size)
    start = episode.start_ns
    return EpisodeRow(
        split=split,
        index=index,
        attempt=0,
        task=record.task,
        negative_task=record.negative.task if record.negative else "",
        category=record.category,
        contrast=(),
        phrasing=-1 if record.phrasing is None else record.phrasing,
        instruction=record.instruction,
        negative_instruction=record.negative.instruction if record.negative else "",
        outcomes=dict(record.outcomes),
        feasible=record.feasible or (),
        duration_s=(episode.end_ns - start) / 1e9,
        stamps_ns=tuple(k.stamp_ns - start for k in episode.keyframes),
        images=tuple(
            _jpeg(fit_cell(keyframe.views[pov], geometry))
            for pov in range(shape.pov)
            for keyframe in episode.keyframes
        ),
        states=np.zeros((0, 0), np.float32),
        generator_version="",
        source=record.source,
        kind=record.kind or "given",
        group=record.group or record.key,
    )


def _jpeg(picture: np.ndarray) -> bytes:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


class OwnShards:
    """Writes shards of fifty episodes, one unfinished shard a split in memory."""

    def __init__(self, catalog: Catalog, entries: Entries, folder: Path, shape: Shape) -> None:
        self._catalog = catalog
        self._entries = entries
        self._folder = folder / OWN_SHARDS
        self._shape = shape
        self._held: dict[str, list[tuple[EpisodeRow, dict[str, Any]]]] = {}

    def add(self, record: EpisodeRecord, position: int) -> None:
        split = self._entries.split_of(record, None)
        held = self._held.get(split, [])
        _refuse_twice(record, (entry for _, entry in held))
        first = held[0][0].index if held else self._catalog.next_index(split)
        # Before decoding: an episode without a label costs nothing.
        entry = self._entries.entry(record, position, split, ("", len(held)), "")
        row = row_of(record, self._shape, split, first + len(held))
        entry["sha"] = hash_pictures(row.images)
        held.append((row, entry))
        self._held[split] = held
        if len(held) == SHARD_EPISODES:
            self._write(split)

    def finish(self) -> None:
        for split in sorted(self._held):
            self._write(split)

    def _write(self, split: str) -> None:
        held = self._held.pop(split)
        rows = [row for row, _ in held]
        first, end = rows[0].index, rows[-1].index + 1
        path = shard_path(self._folder, split, first, end)
        write_shard(path, rows)
        name = f"{OWN_SHARDS}/{path.name}"
        shard = ShardEntry(name, self._entries.spec, split, sha256_of(path), len(rows), end)
        self._catalog.add(shard, [{**entry, "shard": name} for _, entry in held])


# --- episode stores, used as they are


@dataclass(frozen=True)
class _Place:
    """Where an episode lies in a store, and what its record does not say."""

    shard: Path
    number: int
    row: EpisodeRow
    sha: str


def _places(shards: Iterable[Path]) -> Iterator[dict[str, _Place | DataError]]:
    """The places of the episodes of each shard that can be read, by key.

    A shard of which only the pictures cannot be read has the error for every place.
    """
    for shard in shards:
        try:
            rows = read_shard(shard, pictures=False)
        except DataError:
            continue  # the reader says so
        try:
            pictures = read_pictures(shard)
        except DataError as error:
            yield {key_of(row): error for row in rows}
            continue
        light = [replace(row, states=row.states[:0]) for row in rows]
        yield {
            key_of(row): _Place(shard, number, row, hash_pictures(images) if images else "")
            for number, (row, images) in enumerate(zip(light, pictures, strict=True))
        }


class StoreShards:
    """Notes where the episodes of a store lie; nothing is copied."""

    def __init__(
        self, catalog: Catalog, entries: Entries, reader: StoreReader, shape: Shape
    ) -> None:
        self._catalog = catalog
        self._entries = entries
        self._shape = shape
        self._places = _places(reader.shards)
        self._here: dict[str, _Place | DataError] = {}
        self._shard: Path | None = None
        self._held: list[dict[str, Any]] = []

    def add(self, record: EpisodeRecord, position: int) -> None:
        place = self._find(record.key)
        if place.shard != self._shard:
            self.finish()
            self._shard = place.shard
        _refuse_twice(record, self._held)
        where = f"{place.shard}: {record.key}"
        if not place.sha:
            raise DataError(f"{where}: stored without pictures; render them first")
        wanted = self._shape
        if len(record.stamps_ns) != wanted.keyframes or record.num_pov < wanted.pov:
            raise DataError(
                f"{where}: has {len(record.stamps_ns)} keyframes of {record.num_pov} PoV, and "
                f"{wanted.keyframes} of {wanted.pov} are asked for; give --keyframes and --pov to "
                "match, or render the store again"
            )
        split = self._entries.split_of(record, place.row.split)
        name = self._name(place.shard)
        entry = self._entries.entry(record, position, split, (name, place.number), place.sha)
        if entry["negative_task"] and place.row.contrast:
            entry["contrast"] = "+".join(place.row.contrast)
        entry["generator"] = place.row.generator_version
        self._held.append(entry)

    def finish(self) -> None:
        if self._held and self._shard is not None:
            shard = ShardEntry(
                self._name(self._shard),
                self._entries.spec,
                "",
                sha256_of(self._shard),
                len(self._held),
                0,
            )
            self._catalog.add(shard, self._held)
        self._held = []

    def _name(self, shard: Path) -> str:
        return f"store{self._entries.spec}/{shard.name}"

    def _find(self, key: str) -> _Place:
        while key not in self._here:  # records come in the order of the shards
            here = next(self._places, None)
            if here is None:
                raise DataError(f"{key}: the store changed while it was read; build again")
            self._here = here
        place = self._here[key]
        if isinstance(place, DataError):
            raise place
        return place
