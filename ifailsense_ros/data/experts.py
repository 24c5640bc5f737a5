"""Expert episodes of a data set or an episode store, as training and pairing want them."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.core.keyframes import select_keyframes
from ifailsense_ros.data.episode_store import (
    EpisodeRow,
    decode_pictures,
    read_num_pov,
    read_shard,
)
from ifailsense_ros.data.expert_rows import (
    Found,
    Part,
    experts_of,
    found_in,
    parts_of_data_set,
    parts_of_store,
    said_by,
)
from ifailsense_ros.data.manifest import MANIFEST, SUMMARY, DataSet
from ifailsense_ros.data.records import EXPERT, UNFINISHED
from ifailsense_ros.data.scene_questions import Asked, SceneQuestions, read_questions
from ifailsense_ros.data.sinks import Shape
from ifailsense_ros.data.smf import Phrasings, Sample, category_table, fixed_pairs

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
        scene_questions: of every episode, with their answers; empty where none were written.
        twins: index of an expert -> index of the same episode left unfinished, where there is one.

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
        parts = (
            parts_of_store(self.folder, split) if data is None else parts_of_data_set(data, split)
        )
        self.shards: list[Path] = []
        self.shard_hashes: list[str] = []
        self._numbers: list[list[int]] = []
        self._first: list[int] = []
        found: list[Found] = []
        shape: Shape | None = None
        self.scene_questions: list[Asked] = []
        self._questions: dict[Path, SceneQuestions] = {}
        places: dict[tuple[str, str, int, int], int] = {}
        strings: dict[str, str] = {}  # task names, once each: they repeat in every episode
        for part in parts:
            shape = self._take(
                part, found, shape, places, lambda text: strings.setdefault(text, text)
            )
        if shape is None:
            raise DataError(
                f"{folder}: no {' or '.join(self.kinds)} episode of split {split!r} that counts; "
                "see what there is with `ifailsense data show`"
            )
        self.shape = Shape(shape.keyframes, shape.pov, self._size() if shape.pov else 0)
        self.hash = self._hash(data)
        self.experts = experts_of(found)
        cut = {key[1:]: place for key, place in places.items() if key[0] == UNFINISHED}
        self.twins = {
            place: cut[key[1:]]
            for key, place in places.items()
            if key[0] == EXPERT and key[1:] in cut
        }
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
        self,
        part: Part,
        found: list[Found],
        shape: Shape | None,
        places: dict[tuple[str, str, int, int], int],
        known: Callable[[str], str],
    ) -> Shape | None:
        """Add the episodes of a shard that are wanted; returns their T and N."""
        rows = read_shard(part.shard, pictures=False)
        povs = read_num_pov(part.shard)
        said = dict(enumerate(map(said_by, rows))) if part.said is None else part.said
        wanted = [n for n, row in enumerate(rows) if row.kind in self.kinds and n in said]
        if not wanted:
            return shape
        folder = part.shard.parent
        if folder not in self._questions:
            self._questions[folder] = read_questions(folder)
        questions = self._questions[folder]
        self.shards.append(part.shard)
        self._numbers.append(wanted)
        self._first.append(len(found))
        is_plain = wanted == [n for n, row in enumerate(rows) if row.kind == EXPERT]
        named = part.sha if is_plain else _sha(f"{part.sha} {wanted}")
        self.shard_hashes.append(named)
        for n in wanted:
            row = rows[n]
            places[row.kind, known(row.source), row.index, row.attempt] = len(found)
            found.append(found_in(row, said[n], known))
            self.scene_questions.append(questions.of(row))
            here = Shape(len(row.stamps_ns), povs[n], 0)
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
