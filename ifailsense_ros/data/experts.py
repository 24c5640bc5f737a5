"""Expert episodes of a data set or an episode store, as training and pairing want them."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from ifailsense_ros.core.checkpoint import sha256_of
from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.core.keyframes import select_keyframes
from ifailsense_ros.data.episode_store import (
    EpisodeRow,
    decode_pictures,
    list_shards,
    read_num_pov,
    read_shard,
)
from ifailsense_ros.data.manifest import MANIFEST, SUMMARY, DataSet, ManifestRow
from ifailsense_ros.data.records import EXPERT, UNFINISHED
from ifailsense_ros.data.sinks import Shape
from ifailsense_ros.data.smf import (
    ExpertEpisode,
    Phrasings,
    Sample,
    category_table,
    fixed_pairs,
)

CAME_FALSE = -1
"""The store's word for an outcome that did not come true, beyond dispute."""

_KINDS = (EXPERT, UNFINISHED)


def episode_of(row: EpisodeRow, num_pov: int, instruction: str | None = None) -> Episode:
    """The stored episode as every other source gives it; g* unless another instruction is named.

    Args:
        row: with its pictures.
        num_pov: N, 1 (exocentric) or 2.
        instruction: judged instead of g*.

    Raises:
        DataError: fewer PoV than asked for, or pictures that cannot be read.
    """
    views = row.decode_images()
    if num_pov > len(views):
        raise DataError(
            f"{row.split}/{row.index}/{row.attempt}: {len(views)} PoV, {num_pov} asked for; ask "
            "for fewer, or use a data set with a gripper camera"
        )
    views = views[:num_pov]
    return Episode(
        episode_id=uuid.uuid5(uuid.NAMESPACE_OID, f"{row.split}/{row.index}/{row.attempt}"),
        instruction=row.instruction if instruction is None else instruction,
        keyframes=tuple(
            Keyframe(stamp, tuple(views[:, t])) for t, stamp in enumerate(row.stamps_ns)
        ),
        start_ns=row.stamps_ns[0],
        end_ns=row.stamps_ns[-1],
    )


def with_keyframes(episode: Episode, num_keyframes: int) -> Episode:
    """The episode with T of its keyframes, as a monitor would pick them from a longer recording.

    Raises:
        DataError: it has fewer.
    """
    have = len(episode.keyframes)
    if have == num_keyframes:
        return episode
    if have < num_keyframes:
        raise DataError(
            f"stored with {have} keyframes, {num_keyframes} asked for; render more with "
            f"`ifailsense sim render --keyframes {num_keyframes}`"
        )
    chosen = select_keyframes(episode.keyframe_stamps_ns, num_keyframes)
    return replace(episode, keyframes=tuple(episode.keyframes[i] for i in chosen))


@dataclass(frozen=True)
class _Said:
    """What an episode was recorded under, and the wrong instruction that comes with it."""

    task: str
    category: str
    instruction: str
    negative_task: str | None
    negative_instruction: str | None
    contrast: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """An episode: what was said, and the tasks that may serve as wrong ones (None: not known)."""

    said: _Said
    wrong: tuple[str, ...] | None
    unfinished: bool


@dataclass(frozen=True)
class _Part:
    """A shard, and what a manifest says of which of its rows; None: what all of them say."""

    shard: Path
    sha: str
    said: dict[int, _Said] | None = None


class ExpertSet:
    """The expert episodes of one split, without their pictures; failures are left out.

    Of a data set those with a counted SMF pair, under the manifest's sentences; of an episode store
    all experts. What could be a wrong instruction is known from the oracle's word and feasibility;
    where these are not known (no simulator), the manifest's own wrong instruction is the only one.

    Args:
        folder: data set (``ifailsense data build``) or episode store.
        split: train, validation, ...
        kinds: ``expert``, and ``unfinished`` where a training wants episodes that stop too early.

    Attributes:
        shards: the files, in order; `shard_hashes` names, for each, the rows that `rows_of` gives:
            the sha256 of the file, where those are all its rows of these kinds.
        experts: one an episode, `index` counting through all shards.
        phrasings: of every task that occurs.
        categories: category -> tasks.
        hash: the `training_data_hash` of a checkpoint: sha256 of the manifest, or over the shards.
        shape: T and N of every episode, and the side of the pictures in pixels.

    Raises:
        DataError: neither, no such split, no expert in it, a file that is not the one the data set
            was built from, or episodes of different shapes.
        ConfigError: an unknown kind.
    """

    def __init__(self, folder: Path, split: str, kinds: Sequence[str] = (EXPERT,)) -> None:
        if not set(kinds) <= set(_KINDS) or not kinds:
            raise ConfigError(f"kinds {', '.join(kinds)}: choose from {', '.join(_KINDS)}")
        self.folder, self.split, self.kinds = Path(folder), split, tuple(kinds)
        is_data_set = any((self.folder / name).exists() for name in (SUMMARY, MANIFEST))
        data = DataSet(self.folder) if is_data_set else None
        parts = _parts_of_store(self.folder, split) if data is None else _parts_of(data, split)
        self.shards: list[Path] = []
        self.shard_hashes: list[str] = []
        self._numbers: list[list[int]] = []
        self._first: list[int] = []
        found: list[_Found] = []
        shape: Shape | None = None
        strings: dict[str, str] = {}  # task names, once each: they repeat in every episode
        for part in parts:
            shape = self._take(part, found, shape, lambda text: strings.setdefault(text, text))
        if shape is None:
            raise DataError(
                f"{folder}: no {' or '.join(self.kinds)} episode of split {split!r} that counts; "
                "see what there is with `ifailsense data show`"
            )
        self.shape = Shape(shape.keyframes, shape.pov, self._size() if shape.pov else 0)
        self.hash = self._hash(data)
        self.experts = _experts(found)
        self.phrasings = Phrasings.of(self.experts)
        self.categories = category_table(self.experts)

    def __len__(self) -> int:
        return len(self.experts)

    def pairs(self) -> list[Sample]:
        """Each episode once with each label; an unfinished one once, with label 0."""
        return fixed_pairs(self.experts, self.categories, self.phrasings)

    def rows(self) -> Iterator[tuple[int, EpisodeRow]]:
        """(index, row with its pictures) of every episode, in order; one shard in memory at a time.

        Raises:
            DataError: a shard cannot be read.
        """
        for number in range(len(self.shards)):
            yield from self.rows_of(number)

    def rows_of(self, number: int) -> Iterator[tuple[int, EpisodeRow]]:
        """As `rows`, of the shard ``shards[number]`` alone."""
        stored = read_shard(self.shards[number])
        for index, row in enumerate(self._numbers[number], start=self._first[number]):
            yield index, stored[row]

    # --- opening

    def _take(
        self, part: _Part, found: list[_Found], shape: Shape | None, known: Callable[[str], str]
    ) -> Shape | None:
        """Add the episodes of a shard that are wanted; returns their T and N."""
        rows = read_shard(part.shard, pictures=False)
        povs = read_num_pov(part.shard)
        said = dict(enumerate(map(_said_by, rows))) if part.said is None else part.said
        wanted = [n for n, row in enumerate(rows) if row.kind in self.kinds and n in said]
        if not wanted:
            return shape
        self.shards.append(part.shard)
        self._numbers.append(wanted)
        self._first.append(len(found))
        is_plain = wanted == [n for n, row in enumerate(rows) if row.kind == EXPERT]
        named = part.sha if is_plain else _sha(f"{part.sha} {wanted}")
        self.shard_hashes.append(named)
        for n in wanted:
            found.append(_found(rows[n], said[n], known))
            here = Shape(len(rows[n].stamps_ns), povs[n], 0)
            shape = shape or here
            if here != shape:
                raise DataError(
                    f"{part.shard}: row {n} has {here.keyframes} keyframes of {here.pov} PoV, the "
                    f"first episode of split {self.split!r} {shape.keyframes} of {shape.pov}; "
                    "render or build all of it with the same --keyframes and --pov"
                )
        return shape

    def _size(self) -> int:
        """The side of the pictures, pixels; looked up in one shard of each folder.

        Raises:
            DataError: they differ.
        """
        sizes: dict[Path, int] = {}
        for shard, numbers in zip(self.shards, self._numbers, strict=True):
            if shard.parent not in sizes:
                images = read_shard(shard)[numbers[0]].images[:1]
                sizes[shard.parent] = decode_pictures(images, str(shard)).shape[1]
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{folder} {size}" for folder, size in sizes.items())
            raise DataError(
                f"{self.folder}: pictures of different sizes (pixels: {listed}); render or build "
                "all of it with the same --size"
            )
        return next(iter(sizes.values()))

    def _hash(self, data: DataSet | None) -> str:
        if data is not None:
            return str(data.summary["sha256"][MANIFEST])
        return _sha("".join(self.shard_hashes))


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _parts_of_store(folder: Path, split: str) -> Iterator[_Part]:
    """All shards of a split."""
    shards = list_shards(folder, split)
    if not shards:
        raise DataError(
            f"{folder}: no shard of split {split!r} (*.parquet), and no data set either; record "
            "or build it first"
        )
    for shard in shards:
        yield _Part(shard, sha256_of(shard))


def _said_by(row: EpisodeRow) -> _Said:
    wrong = (row.negative_task or None, row.negative_instruction or None)
    return _Said(row.task, row.category, row.instruction, *wrong, row.contrast)


def _parts_of(data: DataSet, split: str) -> Iterator[_Part]:
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
            yield _Part(shard, sha, said)


def _refuse_other(path: Path, sha: str) -> None:
    try:
        there = sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); put it back") from error
    if there != sha:
        raise DataError(
            f"{path}: not the file that the data set was built from; build the data set again"
        )


def _said_of(pairs: Sequence[ManifestRow]) -> _Said | None:
    """An episode as its pairs have it; None where it has none that counts."""
    right = next((p for p in pairs if p.label and p.counted), None)
    wrong = next((p for p in pairs if not p.label and p.counted), None)
    unfinished = next((p for p in pairs if p.kind == UNFINISHED), None)
    if unfinished is not None:
        return _Said(
            unfinished.asked_task, unfinished.category, unfinished.instruction, None, None, ()
        )
    if right is None or wrong is None:
        return None
    return _Said(
        right.asked_task,
        right.category,
        right.instruction,
        wrong.asked_task,
        wrong.instruction,
        right.contrast,
    )


def _found(row: EpisodeRow, said: _Said, known: Callable[[str], str]) -> _Found:
    """An episode with the tasks that were feasible and that the oracle calls FALSE."""
    wrong = None
    if row.outcomes:
        among = row.feasible or tuple(row.outcomes)
        wrong = tuple(known(t) for t in among if row.outcomes.get(t) == CAME_FALSE)
    return _Found(said, wrong, row.kind == UNFINISHED)


def _experts(found: Sequence[_Found]) -> list[ExpertEpisode]:
    """The episodes as pairing wants them: of the wrong tasks those of their category."""
    categories: dict[str, str] = {}
    for one in found:
        for task in (one.said.task, one.said.negative_task):
            if task is not None:
                categories[task] = one.said.category
    return [_expert(index, one, categories) for index, one in enumerate(found)]


def _expert(index: int, one: _Found, categories: dict[str, str]) -> ExpertEpisode:
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
    )
