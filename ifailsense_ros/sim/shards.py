"""Shards of an episode store made side by side: one process a core, resumable, with a progress bar.

What a shard holds is a function of its settings and index range alone, so a run that was stopped
goes on where it was when the same command is given again, and the same command makes the same
bytes. Worlds bring a function that makes the rows of a range; the rest is here.
"""

from __future__ import annotations

import collections
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.episode_store import (
    EpisodeRow,
    read_notes,
    shard_path,
    shard_range,
    write_shard,
)

SHARD_EPISODES = 50


@dataclass
class Made:
    """What was made of an index range.

    Attributes:
        rows: the episodes.
        tally: counts worth keeping ("rejected expert_failed lift_red_block_table": 2); stored with
            the shard, and summed over all shards.
        seconds: CPU time by what it was spent on. Not stored: the same command makes the same
            bytes, but not in the same time.
    """

    rows: list[EpisodeRow]
    tally: collections.Counter[str] = field(default_factory=collections.Counter)
    seconds: collections.Counter[str] = field(default_factory=collections.Counter)


@dataclass(frozen=True)
class Summary:
    """A run of `make_shards`.

    Attributes:
        tally: of all shards of the range, also of those that were there before.
        seconds: CPU time of this run alone.
        episodes_made: by this run; `seconds` are those of these.
    """

    tally: dict[str, int]
    seconds: dict[str, float]
    episodes_made: int

    def counted(self, head: str) -> dict[str, int]:
        """The tallies whose name starts with a word, by the rest of their names."""
        start = f"{head} "
        return {k[len(start) :]: n for k, n in sorted(self.tally.items()) if k.startswith(start)}


@dataclass(frozen=True)
class Job:
    """One shard to be made.

    Attributes:
        make: makes the episodes ``first`` to ``end - 1``; a function at module level. What it
            writes beside the shard (videos) must be written whole or not at all.
        folder, split, first, end: where the shard lies and what it holds.
        settings: JSON values; with the range they say all about the rows. Stored in the notes.
    """

    make: Callable[[Job], Made]
    folder: Path
    split: str
    first: int
    end: int
    settings: Mapping[str, Any]

    @property
    def path(self) -> Path:
        return shard_path(self.folder, self.split, self.first, self.end)


def _run(job: Job) -> tuple[Job, Made]:
    made = job.make(job)
    notes = {"settings": dict(job.settings), "tally": dict(sorted(made.tally.items()))}
    write_shard(job.path, made.rows, notes)
    for path in _same_start(job):  # a shorter one, of a command that asked for fewer episodes
        if path != job.path:
            path.unlink()
    return job, Made([], made.tally, made.seconds)


def _same_start(job: Job) -> list[Path]:
    return sorted(job.folder.glob(f"{job.split}-{job.first:06d}-*.parquet"))


def _finished(job: Job) -> Path | None:
    """The shard that holds the job's range already.

    Raises:
        ConfigError: it was made with other settings.
    """
    for path in _same_start(job):
        if shard_range(path)[1] < job.end:
            continue
        there = read_notes(path).get("settings", {})
        for name, value in job.settings.items():
            if there.get(name) != value:
                raise ConfigError(
                    f"{path} was made with {name} {there.get(name)!r}, not {value!r}: "
                    "choose another folder, or delete this one"
                )
        return path
    return None


def jobs_of(
    make: Callable[[Job], Made],
    folder: Path,
    split: str,
    first: int,
    episodes: int,
    settings: Mapping[str, Any],
    shard_episodes: int = SHARD_EPISODES,
) -> Iterator[Job]:
    """The shards of an index range.

    Raises:
        ConfigError: the range is empty or does not start at a shard.
    """
    if episodes < 1 or first < 0 or first % shard_episodes:
        raise ConfigError(
            f"--episodes must be at least 1, --first a multiple of {shard_episodes}: "
            f"not {episodes} and {first}"
        )
    for start in range(first, first + episodes, shard_episodes):
        end = min(start + shard_episodes, first + episodes)
        yield Job(make, Path(folder), split, start, end, settings)


def make_shards(jobs: Iterable[Job], *, workers: int = 1, title: str = "record") -> Summary:
    """Make the shards that are not there yet, with a progress bar.

    Args:
        jobs: the shards; those that are there are kept.
        workers: processes; 1 works in this one.
        title: of the progress bar.

    Raises:
        ConfigError: fewer than one worker, a shard that was made with other settings, or a worker
            that was killed.
    """
    from tqdm import tqdm

    if workers < 1:
        raise ConfigError(f"--workers must be at least 1, not {workers}")
    jobs = list(jobs)
    tally: collections.Counter[str] = collections.Counter()
    todo: list[Job] = []
    for folder in {job.folder for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        path = _finished(job)
        if path is None:
            todo.append(job)
            for left_over in job.folder.glob(f"{job.path.name}.*.part"):  # of a killed run
                left_over.unlink()
        else:
            tally.update(read_notes(path)["tally"])
    total = sum(job.end - job.first for job in jobs)
    made_now = sum(job.end - job.first for job in todo)
    seconds: collections.Counter[str] = collections.Counter()
    run = _one_by_one(todo) if workers == 1 else _side_by_side(todo, workers)
    bar = tqdm(total=total, initial=total - made_now, unit="episode", desc=title)
    with bar, closing(run):
        for job, made in run:
            tally.update(made.tally)
            seconds.update(made.seconds)
            bar.update(job.end - job.first)
    return Summary(dict(tally), dict(seconds), made_now)


def _start_worker() -> None:
    # Ctrl-C reaches the workers as well; they go at once and without a word. Shards are written
    # whole or not at all.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    os.environ.setdefault("LP_NUM_THREADS", "1")


def _one_by_one(jobs: list[Job]) -> Iterator[tuple[Job, Made]]:
    for job in jobs:
        yield _run(job)


def _side_by_side(jobs: list[Job], workers: int) -> Iterator[tuple[Job, Made]]:
    context = multiprocessing.get_context("spawn")
    count = max(1, min(workers, len(jobs)))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)
    try:
        futures: list[Future] = [pool.submit(_run, job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise ConfigError(
            "a worker process was killed, perhaps for want of memory: the same command goes on "
            "from here; try fewer --workers"
        ) from None
    finally:
        unfinished = sys.exc_info()[0] is not None
        pool.shutdown(wait=not unfinished, cancel_futures=True)
        if unfinished:
            for child in multiprocessing.active_children():
                child.terminate()
