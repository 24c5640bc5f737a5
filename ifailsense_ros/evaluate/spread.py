"""Work spread over the cores of this machine or over machines (Ray), job by job, resumable.

A job is a part of what is judged: a bag, a chunk of a data set, a shard of a store. Its rows lie in
a parquet file of their own in the work folder, `FOLDER/work/NAME.parquet`, where the name is a hash
of the job and the settings. Such a shard is written by the driver alone, whole or not at all, so
that whatever is killed, and whenever, the same command goes on with the jobs that have none, no row
comes twice and none is missing. Rows come out in the order of the jobs, however many did them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa
from tqdm import tqdm

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.records import Problem
from ifailsense_ros.evaluate.crews import Crew, Failed, InThisProcess, Processes, Ready
from ifailsense_ros.evaluate.job_shards import (
    Done,
    Packed,
    fingerprint_of,
    is_whole,
    problems_of,
    store,
    tables_of,
)

__all__ = ["Done", "Job", "Spread", "Work", "fingerprint_of", "spread"]

WORK = "work"
"""Folder of the shards, in the folder of the results."""

ATTEMPTS = 2
"""How often a job is begun that takes its worker with it."""

_FORMAT = 1
_LOADS = 3

Row = TypeVar("Row")


class Job(Protocol):
    """What a worker is given; must be picklable.

    Attributes:
        name: another one for each job, and when what it reads changes (see `fingerprint_of`).
        where: what people call it.
    """

    @property
    def name(self) -> str: ...

    @property
    def where(self) -> str: ...


_Named = tuple[str, Job]


@dataclass(frozen=True)
class Work(Generic[Row]):
    """How jobs are done. All callables are named at module level, or `functools.partial` of such,
    because they are sent to the workers.

    Attributes:
        load: makes what all jobs need (the detectors), once a worker.
        do: (job, loaded) -> `Done`, or a tuple of its first fields. What it raises becomes the
            job's problem, and the job is tried again by the next run.
        to_table, from_table: rows as a parquet table and back.
        settings: JSON values that, with the job, say all about its rows; a change of them begins
            anew.
    """

    load: Callable[[], Any]
    do: Callable[[Any, Any], Done | tuple]
    to_table: Callable[[Sequence[Row]], pa.Table]
    from_table: Callable[[pa.Table], Iterable[Row]]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spread(Generic[Row]):
    """All jobs of a run, done.

    Attributes:
        lost: what has no shard, job by job; the same command tries these again.
        done_before: how many jobs were done by earlier runs.
    """

    work: Work[Row]
    shards: Mapping[str, Path]
    lost: Mapping[str, Problem]
    done_before: int

    def rows(self) -> Iterator[Row]:
        """The rows in the order of the jobs, some at a time from the disk.

        Raises:
            DataError: a shard is gone or damaged.
        """
        for name, path in self.shards.items():
            if name not in self.lost:
                for table in tables_of(path):
                    yield from self.work.from_table(table)

    def problems(self) -> Iterator[Problem]:
        """What could not be done, in the order of the jobs. Raises as `rows`."""
        for name, path in self.shards.items():
            if name in self.lost:
                yield self.lost[name]
            else:
                yield from problems_of(path)


def spread(
    jobs: Iterable[Job],
    work: Work[Row],
    folder: str | Path,
    *,
    workers: int | None = None,
    ray: str | None = None,
    threads: int = 1,
    gpus: float = 0.0,
    attempts: int = ATTEMPTS,
    title: str = "judge",
    progress: bool = True,
) -> Spread[Row]:
    """Do all jobs that are not done yet.

    Args:
        jobs: with different names.
        work: how they are done.
        folder: of the results; shards go to `work` in it, and stay there for the next run.
        workers: processes; None: one a core (of the cluster, with Ray). 0: in this process, one
            after the other, for tests and debuggers.
        ray: address of a Ray cluster ("auto", "ray://HOST:10001"; "local" starts one here); None:
            processes of this machine. Bags and data sets must lie at the same paths everywhere.
        threads: of arithmetic in each worker. The last bits of a result can depend on it, so it is
            not taken from the number of cores.
        gpus: share of a GPU each worker wants; Ray deals them out.
        attempts: after so many workers were lost with it a job is given up.
        title: of the progress bar.
        progress: whether to draw one.

    Raises:
        ConfigError: two jobs of one name, another run in the folder, no Ray, or workers that are
            lost while they load.
        IFailSenseError: `work.load` raised it.
    """
    if (workers is not None and workers < 0) or threads < 1 or attempts < 1:
        raise ConfigError(
            f"workers must not be negative, threads and attempts be at least 1: not {workers}, "
            f"{threads} and {attempts}"
        )
    if ray is not None and workers == 0:
        raise ConfigError("with Ray there must be at least one worker, not 0")
    folder = Path(folder)
    (folder / WORK).mkdir(parents=True, exist_ok=True)
    with _alone_in(folder / WORK):
        for left_over in (folder / WORK).glob("*.part"):  # of a killed run
            left_over.unlink()
        shards: dict[str, Path] = {}
        common = _common(work)
        todo: deque[_Named] = deque()
        for job in jobs:
            name = job.name
            if name in shards:
                raise ConfigError(f"{job.where}: is there twice: name it once")
            shards[name] = folder / WORK / f"{_key(name, common)}.parquet"
            if not is_whole(shards[name]):
                todo.append((name, job))
        before = len(shards) - len(todo)
        lost: dict[str, Problem] = {}
        bar = tqdm(total=len(shards), initial=before, unit="job", desc=title, disable=not progress)
        with bar, closing(_begin(work, workers, ray, threads, gpus, bool(todo))) as crew:
            for (name, job), packed in _carry_out(todo, crew, attempts):
                if packed.error:
                    lost[name] = Problem(job.where, packed.error)
                else:
                    store(folder, shards[name], packed)
                bar.update()
        kept = set(shards.values())
        for path in (folder / WORK).glob("*.parquet"):  # of other settings, or jobs that are gone
            if path not in kept:
                path.unlink()
    return Spread(work, shards, lost, before)


def _begin(
    work: Work, workers: int | None, ray: str | None, threads: int, gpus: float, needed: bool
) -> Crew:
    if not needed:
        return InThisProcess(work, threads)
    if ray is not None:
        from ifailsense_ros.evaluate.ray_crew import RayActors

        return RayActors(work, ray, workers, threads, gpus)
    if workers == 0:
        return InThisProcess(work, threads)
    return Processes(work, workers or len(os.sched_getaffinity(0)), threads)


def _carry_out(todo: deque[_Named], crew: Crew, attempts: int) -> Iterator[tuple[_Named, Packed]]:
    """Every job once, in the order in which they are done.

    One job at a time is with a worker, so that it is known which job took its worker with it.
    """
    busy: dict[Any, _Named] = {}
    idle: deque[Any] = deque()
    loading: set[Any] = set()
    ends: Counter[str] = Counter()
    lost_loading = 0
    while todo or busy:
        while todo and idle:
            worker, named = idle.popleft(), todo.popleft()
            busy[worker] = named
            crew.give(worker, named[1])
        while len(busy) + len(loading) < min(crew.size, len(busy) + len(todo)):
            loading.add(crew.start())
        for worker, event in crew.wait():
            named = busy.pop(worker, None)
            loading.discard(worker)
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Ready):
                lost_loading = 0
                idle.append(worker)
            elif isinstance(event, Packed):
                idle.append(worker)
                assert named is not None
                yield named, event
            elif named is None:
                if worker in idle:
                    idle.remove(worker)
                    continue
                lost_loading += 1
                if lost_loading >= _LOADS:
                    raise ConfigError(
                        f"{lost_loading} workers ended while they loaded (the last one was "
                        f"{event.how}): give them more memory, or begin fewer"
                    )
            else:
                ends[named[0]] += 1
                if ends[named[0]] < attempts:
                    todo.append(named)
                    continue
                what = f"workers that had it ended, {attempts} times (the last one was {event.how})"
                yield named, Packed(error=f"{what}: the same command tries it again")


def _common(work: Work) -> list[Any]:
    """What the rows of all jobs depend on."""
    columns = work.to_table([]).schema.to_string(show_schema_metadata=False)
    return [_FORMAT, columns, dict(work.settings)]


def _key(name: str, common: list[Any]) -> str:
    """What a job's shard is called: something else as soon as its rows may be others."""
    text = json.dumps([name, *common], sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Held by the run until it ends, also by a kill."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder.parent}: another run is at work there: wait for it, or choose another "
                "folder"
            ) from None
        yield
