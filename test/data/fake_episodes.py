"""Episodes out of thin air for the tests of data sets: two tasks and more a category, an oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.episode_store import EpisodeRow, shard_path, write_shard
from ifailsense_ros.data.records import EXPERT, EpisodeRecord, Problem

SECOND = 10**9
CATEGORIES = {
    "lifting": [f"lift_{c}_block_table" for c in ("red", "blue", "pink")],
    "opening_closing": [
        "open_drawer",
        "close_drawer",
        "move_slider_left",
        "move_slider_right",
    ],
}
TASKS = [(task, category) for category, tasks in CATEGORIES.items() for task in tasks]


def sentence(task: str, phrasing: int, split: str = "train") -> str:
    """What is said for a task; test sentences differ from the others."""
    return f"{'kindly' if split == 'test' else 'please'} {task.replace('_', ' ')} way {phrasing}"


def picture(value: int, size: int = 12) -> np.ndarray:
    """A flat picture of its own for every value below 2**15."""
    colour = ((value & 31) * 8, (value >> 5 & 31) * 8, (value >> 10 & 31) * 8)
    return np.broadcast_to(np.array(colour, np.uint8), (size, size, 3)).copy()


def record(index: int, **changes: object) -> EpisodeRecord:
    """Episode `index`: tasks in turn, three phrasings, four episodes a group, an oracle."""
    task, category = TASKS[index % len(TASKS)]
    phrasing = index // len(TASKS) % 3

    def read(steps: Sequence[int]) -> tuple[Keyframe, ...]:
        return tuple(
            Keyframe((10 + step) * SECOND, (picture(index), picture(step))) for step in steps
        )

    made = EpisodeRecord(
        source="fake",
        key=f"episode {index}",
        group=f"session {index // 4}",
        instruction=sentence(task, phrasing),
        task=task,
        category=category,
        kind=EXPERT,
        success=True,
        stamps_ns=tuple((10 + step) * SECOND for step in range(6)),
        num_pov=2,
        read=read,
        outcomes={name: 1 if name == task else -1 for name, _ in TASKS},
        feasible=tuple(name for name, _ in TASKS),
        phrasing=phrasing,
    )
    return replace(made, **changes)


@dataclass
class FakeReader:
    """Yields what `make` makes of the indices; raises `stop` at index `stop_at` if given."""

    count: int
    make: Callable[[int], EpisodeRecord] = record
    stop_at: int | None = None
    stop: BaseException = field(default_factory=KeyboardInterrupt)
    source: str = "fake"
    problems: list[Problem] = field(default_factory=list)

    def __iter__(self) -> Iterator[EpisodeRecord]:
        for index in range(self.count):
            if index == self.stop_at:
                raise self.stop
            yield self.make(index)


def unreadable(index: int) -> EpisodeRecord:
    """As `record`, but the pictures of every tenth cannot be read, and one lacks its task."""

    def read(steps: Sequence[int]) -> tuple[Keyframe, ...]:
        raise DataError(f"episode {index}.npz: rgb_static is missing; copy it again")

    made = record(index)
    if index % 10 == 3:
        return replace(made, read=read)
    return replace(made, task="") if index == 5 else made


def store_row(index: int, split: str = "train", **changes: object) -> EpisodeRow:
    """A row of an episode store, with a designated negative."""
    task, category = TASKS[index % len(TASKS)]
    others = [t for t in CATEGORIES[category] if t != task]
    wrong = others[index // len(TASKS) % len(others)]
    value = index + {"train": 0, "validation": 10_000, "test": 20_000}[split]
    jpeg = cv2.imencode(".png", picture(value))[1].tobytes()
    made = EpisodeRow(
        split=split,
        index=index,
        attempt=0,
        task=task,
        negative_task=wrong,
        category=category,
        contrast=("colour",) if category == "lifting" else ("direction",),
        phrasing=index % 3,
        instruction=sentence(task, index % 3, split),
        negative_instruction=sentence(wrong, index % 3, split),
        outcomes={name: 1 if name == task else -1 for name, _ in TASKS},
        feasible=tuple(name for name, _ in TASKS),
        duration_s=3.0,
        stamps_ns=(0, SECOND, 2 * SECOND, 3 * SECOND),
        images=(jpeg,) * 8,
        states=np.zeros((2, 3), np.float32),
        generator_version="7",
    )
    return replace(made, **changes)


def failed(twin: EpisodeRow) -> EpisodeRow:
    """A failure beside its twin: the same but for the outcome and the pictures."""
    outcomes = dict.fromkeys(twin.outcomes, -1)
    return replace(twin, kind="drop", outcomes=outcomes, images=store_row(twin.index + 500).images)


def write_store(folder: Path, rows: Sequence[EpisodeRow], *, shard_episodes: int = 10) -> None:
    """Rows of one split as shards."""
    for first in range(0, len(rows), shard_episodes):
        part = rows[first : first + shard_episodes]
        write_shard(shard_path(folder, rows[0].split, first, first + len(part)), part)
