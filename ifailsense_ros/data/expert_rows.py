"""Which rows of a data set or an episode store are experts, and what is known of each.

Of a data set the manifest decides: counted SMF pairs, in its sentences. Of a store the rows speak
for themselves. What could be a wrong instruction is read off the oracle's word and feasibility;
where these are not known, the manifest's own wrong instruction is the only one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ifailsense_ros.core.checkpoint import sha256_of
from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.episode_store import EpisodeRow, list_shards
from ifailsense_ros.data.manifest import MANIFEST, DataSet, ManifestRow
from ifailsense_ros.data.records import UNFINISHED
from ifailsense_ros.data.smf import ExpertEpisode

CAME_FALSE = -1
"""The store's word for an outcome that did not come true, beyond dispute."""


@dataclass(frozen=True)
class Said:
    """What an episode was recorded under, and the wrong instruction that comes with it."""

    task: str
    category: str
    instruction: str
    negative_task: str | None
    negative_instruction: str | None
    contrast: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """An episode: what was said, the tasks that may serve as wrong ones (None: not known), and
    where it was recorded."""

    said: Said
    wrong: tuple[str, ...] | None
    unfinished: bool
    source: str


@dataclass(frozen=True)
class Part:
    """A shard, and what a manifest says of which of its rows; None: what all of them say."""

    shard: Path
    sha: str
    said: dict[int, Said] | None = None


def parts_of_store(folder: Path, split: str) -> Iterator[Part]:
    """All shards of a split.

    Raises:
        DataError: there is none.
    """
    shards = list_shards(folder, split)
    if not shards:
        raise DataError(
            f"{folder}: no shard of split {split!r} (*.parquet), and no data set either; record "
            "or build it first"
        )
    for shard in shards:
        yield Part(shard, sha256_of(shard))


def said_by(row: EpisodeRow) -> Said:
    """What a row says of itself."""
    wrong = (row.negative_task or None, row.negative_instruction or None)
    return Said(row.task, row.category, row.instruction, *wrong, row.contrast)


def parts_of_data_set(data: DataSet, split: str) -> Iterator[Part]:
    """The shards of a data set that hold experts of a split, with what the manifest says.

    Raises:
        DataError: a file is not the one that the data set was built from.
    """
    _refuse_other(data.folder / MANIFEST, data.summary["sha256"][MANIFEST])
    rows = (r for r in data.rows(split) if r.pairing == "smf" or r.kind == UNFINISHED)
    for name, of_shard in groupby(rows, key=lambda row: row.shard):
        said = {}
        for number, pairs in groupby(of_shard, key=lambda row: row.row):
            if (words := _said_of(list(pairs))) is not None:
                said[number] = words
        if said:
            shard, sha = data.shard(name), data.summary["shards"][name]["sha256"]
            _refuse_other(shard, sha)
            yield Part(shard, sha, said)


def _refuse_other(path: Path, sha: str) -> None:
    try:
        there = sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); put it back") from error
    if there != sha:
        raise DataError(
            f"{path}: not the file that the data set was built from; build the data set again"
        )


def _said_of(pairs: Sequence[ManifestRow]) -> Said | None:
    """An episode as its pairs have it; None where it has none that counts."""
    right = next((p for p in pairs if p.label and p.counted), None)
    wrong = next((p for p in pairs if not p.label and p.counted), None)
    unfinished = next((p for p in pairs if p.kind == UNFINISHED), None)
    if unfinished is not None:
        return Said(
            unfinished.asked_task, unfinished.category, unfinished.instruction, None, None, ()
        )
    if right is None or wrong is None:
        return None
    return Said(
        right.asked_task,
        right.category,
        right.instruction,
        wrong.asked_task,
        wrong.instruction,
        right.contrast,
    )


def found_in(row: EpisodeRow, said: Said, known: Callable[[str], str]) -> Found:
    """An episode with the tasks that were feasible and that the oracle calls FALSE."""
    wrong = None
    if row.outcomes:
        among = row.feasible or tuple(row.outcomes)
        wrong = tuple(known(t) for t in among if row.outcomes.get(t) == CAME_FALSE)
    return Found(said, wrong, row.kind == UNFINISHED, known(row.source))


def experts_of(found: Sequence[Found]) -> list[ExpertEpisode]:
    """The episodes as pairing wants them: of the wrong tasks those of their category."""
    categories: dict[str, str] = {}
    for one in found:
        for task in (one.said.task, one.said.negative_task):
            if task is not None:
                categories[task] = one.said.category
    return [_expert(index, one, categories) for index, one in enumerate(found)]


def _expert(index: int, one: Found, categories: dict[str, str]) -> ExpertEpisode:
    said, wrong = one.said, one.wrong
    if wrong is None and said.negative_task is not None:
        wrong = (said.negative_task,)
    elif wrong is not None:
        wrong = tuple(t for t in wrong if categories.get(t) == said.category and t != said.task)
    if not one.unfinished:
        return ExpertEpisode(
            index=index,
            task=said.task,
            category=said.category,
            instruction=said.instruction,
            negative_task=said.negative_task,
            negative_instruction=said.negative_instruction,
            contrast=said.contrast,
            wrong_tasks=wrong,
            source=one.source,
        )
    return ExpertEpisode(
        index=index,
        task="",
        category=said.category,
        instruction="",
        negative_task=said.task,
        negative_instruction=said.instruction,
        wrong_tasks=(said.task, *(wrong or ())),
        unfinished=True,
        source=one.source,
    )
