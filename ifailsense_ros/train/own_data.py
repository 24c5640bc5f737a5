"""Labelled episodes of a user's own, for `train/own.py`: read, kept as montages, split by group."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ifailsense_ros.core.checkpoint import MontageSettings
from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.errors import DataError
from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.core.prompt import normalise_instruction
from ifailsense_ros.data.records import EpisodeRecord, Problem
from ifailsense_ros.data.smf import ExpertEpisode, Phrasings, Sample, category_table, fixed_pairs

TRAIN, VALIDATION, HELD_OUT = "train", "validation", "held-out"
LEAST = {TRAIN: 4, VALIDATION: 2, HELD_OUT: 2}
"""Fewest episodes of each class in each part."""

_PIECE = 64
_PLURAL = {True: "successes", False: "failures"}


@dataclass(frozen=True)
class Given:
    """An episode with the label to learn.

    Attributes:
        name: says to a person which one it is.
        record: of a reader.
        success: the label.
        instruction: judged; "" for the record's own.
    """

    name: str
    record: EpisodeRecord
    success: bool
    instruction: str = ""


@dataclass(frozen=True)
class Labelled:
    """What is kept of a given episode beside its montage; fields as in `EpisodeRecord`."""

    name: str
    group: str
    instruction: str
    success: bool
    task: str
    category: str
    wrong_tasks: tuple[str, ...] | None

    @property
    def names_its_task(self) -> bool:
        """Whether the task is a name of its own, and not the sentence once more."""
        return self.task not in ("", normalise_instruction(self.instruction).lower().rstrip(" ."))


class Montages:
    """The montages of all labelled episodes, in files of a folder; one file in memory at a time.

    Args:
        folder: made if it is not there; what lies in it is overwritten.
        settings: of the checkpoint.

    Attributes:
        episodes: one a montage, in order.
        problems: episodes that could not be used.
        pieces: (sha256 of the pixels, file) in order.
    """

    def __init__(self, folder: Path, settings: MontageSettings) -> None:
        self.episodes: list[Labelled] = []
        self.problems: list[Problem] = []
        self.pieces: list[tuple[str, Path]] = []
        self._folder = folder
        self._geometry = MontageGeometry(
            settings.num_pov, settings.num_keyframes, settings.cell_height, settings.cell_width
        )

    def read(self, given: Iterable[Given]) -> None:
        """Take in all episodes; those that cannot be used are noted."""
        self._folder.mkdir(parents=True, exist_ok=True)
        g, waiting = self._geometry, []
        for one in given:
            record = one.record
            instruction = one.instruction or record.instruction
            try:
                if not normalise_instruction(instruction):
                    raise DataError("has no instruction; give it in the labels or in episodes.yaml")
                episode = record.episode(g.num_keyframes, g.num_pov, instruction)
                waiting.append(compose(episode, g))
            except DataError as error:
                self.problems.append(Problem(one.name, str(error)))
                continue
            self.episodes.append(
                Labelled(
                    one.name,
                    record.group or record.key,
                    instruction,
                    one.success,
                    record.task,
                    record.category,
                    _wrong_tasks(record),
                )
            )
            if len(waiting) == _PIECE:
                self._write(waiting)
                waiting = []
        if waiting:
            self._write(waiting)

    def shards(self) -> list[tuple[str, partial[Iterator[np.ndarray]]]]:
        """As `features.cached_features` wants them."""
        return [(sha, partial(_montages_of, path)) for sha, path in self.pieces]

    def episode(self, index: int, instruction: str) -> Episode:
        """The episode as the detector sees it: its views are the montage's cells."""
        g = self._geometry
        piece, row = divmod(index, _PIECE)
        picture = np.load(self.pieces[piece][1], mmap_mode="r")[row]
        cells = picture.reshape(g.num_pov, g.cell_height, g.num_keyframes, g.cell_width, 3)
        keyframes = tuple(
            Keyframe(t, tuple(np.ascontiguousarray(view) for view in cells[:, :, t]))
            for t in range(g.num_keyframes)
        )
        identifier = uuid.uuid5(uuid.NAMESPACE_OID, self.episodes[index].name)
        return Episode(identifier, instruction, keyframes, 0, g.num_keyframes - 1)

    def remove(self) -> None:
        """Delete the files."""
        for _, path in self.pieces:
            path.unlink(missing_ok=True)

    def _write(self, montages: Sequence[np.ndarray]) -> None:
        path = self._folder / f"{len(self.pieces):04d}.npy"
        pixels = np.stack(montages)
        np.save(path, pixels)
        self.pieces.append((hashlib.sha256(pixels.tobytes()).hexdigest(), path))


def _montages_of(path: Path) -> Iterator[np.ndarray]:
    yield from np.load(path)


def _wrong_tasks(record: EpisodeRecord) -> tuple[str, ...] | None:
    """Tasks that were possible and beyond dispute not carried out; None: that is not known."""
    if not record.outcomes:
        return None
    among = record.feasible or tuple(record.outcomes)
    return tuple(task for task in among if record.outcomes.get(task) == -1)


# --- splitting ------------------------------------------------------------------------------------


def split_by_group(
    episodes: Sequence[Labelled], shares: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """Indices of the episodes of each part; no group is in two of them.

    The largest groups come first, each to the part that lacks most of what is in it, so that both
    classes have their shares everywhere. Which of equally large ones comes first hangs on a hash of
    seed and name.

    Args:
        episodes: labelled.
        shares: part -> share of each class, adding up to 1.
        seed: of the order.

    Raises:
        DataError: a class has too few episodes, or too few groups hold it.
    """
    totals = {y: sum(e.success == y for e in episodes) for y in (True, False)}
    needed = sum(LEAST.values())
    for y, count in totals.items():
        if count < needed:
            raise DataError(
                f"{count} {_PLURAL[y]} among {len(episodes)} labelled episodes: at least {needed} "
                "of each class are needed, for training, validation and the held-out figures; "
                "label more (`ifailsense annotate`)"
            )
    groups: dict[str, list[int]] = defaultdict(list)
    for index, episode in enumerate(episodes):
        groups[episode.group].append(index)
    parts: dict[str, list[int]] = {name: [] for name in shares}
    counts: dict[str, Counter] = {name: Counter() for name in shares}

    def lacks(name: str, found: Counter) -> float:
        wanted = {y: shares[name] * totals[y] for y in totals}
        return sum(n * (wanted[y] - counts[name][y]) / wanted[y] for y, n in found.items())

    for group in sorted(groups, key=lambda g: (-len(groups[g]), _sha(f"{seed} {g}"))):
        found = Counter(episodes[index].success for index in groups[group])
        place = max(shares, key=lambda name: lacks(name, found))
        parts[place] += groups[group]
        counts[place] += found
    for name, least in LEAST.items():
        for y in (True, False):
            if counts[name][y] < least:
                holding = len({e.group for e in episodes if e.success == y})
                raise DataError(
                    f"split by group, {name} has {counts[name][y]} {_PLURAL[y]}, at least {least} "
                    f"are needed: the {totals[y]} are in {holding} of {len(groups)} group(s) (a "
                    "bag, or `group` in episodes.yaml); label more sessions, or split within them "
                    "with --by-episode, whose figures flatter"
                )
    return {name: sorted(indices) for name, indices in parts.items()}


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- questions ------------------------------------------------------------------------------------


def own_samples(episodes: Sequence[Labelled], indices: Iterable[int]) -> list[Sample]:
    """Each episode with its own instruction and label."""
    chosen = ((i, episodes[i]) for i in indices)
    return [Sample(i, e.instruction, e.success, e.task, _category(e)) for i, e in chosen]


def misaligned_samples(
    episodes: Sequence[Labelled], indices: Iterable[int], seed: int
) -> list[Sample]:
    """Each success with the instruction of another task of its category (paper, Sec. IV-A).

    Only where all successes name their tasks: otherwise two sentences for one task would be taken
    for two tasks.
    """
    indices = [i for i in indices if episodes[i].success]
    everywhere = [e for e in episodes if e.success]
    if not all(e.names_its_task and e.category for e in everywhere):
        return []
    known = [_expert(i, e) for i, e in enumerate(everywhere)]
    categories, phrasings = category_table(known), Phrasings.of(known)
    usable = []
    for index in indices:
        episode = episodes[index]
        others = [t for t in categories[episode.category] if t != episode.task]
        wrong = tuple(t for t in others if episode.wrong_tasks is None or t in episode.wrong_tasks)
        if wrong:
            usable.append(_expert(index, episode, wrong))
    return [s for s in fixed_pairs(usable, categories, phrasings, seed) if not s.success]


def _expert(index: int, episode: Labelled, wrong: tuple[str, ...] | None = None) -> ExpertEpisode:
    return ExpertEpisode(
        index, episode.task, episode.category, episode.instruction, wrong_tasks=wrong
    )


def _category(episode: Labelled) -> str:
    return episode.category or "other"
