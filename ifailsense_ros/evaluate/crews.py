"""Workers that are given one job after the other, and what they say: processes of this machine.

Each worker is a fresh interpreter (spawned: torch and CUDA do not survive a fork) that loads once
and then answers job by job through a pipe of its own. The driver so knows which job a worker had
that is gone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Protocol

from ifailsense_ros.core.errors import ConfigError, DetectorStopped, IFailSenseError
from ifailsense_ros.evaluate.job_shards import Done, Packed, pack
from ifailsense_ros.model.handle import one_line

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from ifailsense_ros.evaluate.spread import Job, Work

_KILLED_WITHIN_S = 5.0


@dataclass(frozen=True)
class Ready:
    """The worker has loaded, and takes jobs."""


@dataclass(frozen=True)
class Failed:
    """Loading raised this; it would do so everywhere."""

    error: Exception


@dataclass(frozen=True)
class Lost:
    """The worker is gone; `how`: what was done to it ("killed by SIGKILL")."""

    how: str


Event = Ready | Failed | Packed | Lost


class Crew(Protocol):
    """Workers, wherever they run.

    Attributes:
        size: how many there shall be at most.
    """

    size: int

    def start(self) -> Any:
        """Begin one; `Ready`, `Failed` or `Lost` will follow. Returns what it is called."""

    def give(self, worker: Any, job: Job) -> None:
        """Have a ready worker do a job; `Packed`, `Failed` or `Lost` will follow."""

    def wait(self) -> list[tuple[Any, Event]]:
        """What happened since the last call, at least one thing."""

    def close(self) -> None:
        """End all of them, at once."""


class Worker:
    """What runs in a worker, whatever holds it.

    Args:
        work: how jobs are done.
        threads: of arithmetic.
    """

    def __init__(self, work: Work, threads: int) -> None:
        self._work, self._threads = work, threads
        self._loaded: Any = None
        self._free: Callable[[], None] = lambda: None

    def load(self) -> Event:
        """Load what all jobs need."""
        try:
            self._loaded = self._work.load()
            self._free = _limit_threads(self._threads)
        except (IFailSenseError, ImportError) as error:
            return Failed(error)
        except Exception as error:
            traceback.print_exc()
            return Failed(ConfigError(f"a worker cannot load: {one_line(error)}"))
        return Ready()

    def do(self, job: Job) -> Event:
        """Do a job, and pack what came of it."""
        try:
            done = Done(*self._work.do(job, self._loaded))
            return pack(done, self._work.to_table(list(done.rows)))
        except DetectorStopped as error:  # so would the other jobs end
            return Failed(error)
        except Exception as error:
            if not isinstance(error, IFailSenseError):
                traceback.print_exc()
            return Packed(error=one_line(error))

    def close(self) -> None:
        """Give back what was set for the whole process."""
        self._free()


def _limit_threads(count: int) -> Callable[[], None]:
    """Set the threads of torch and OpenCV, where they are loaded; gives what takes that back."""
    torch, cv2 = sys.modules.get("torch"), sys.modules.get("cv2")
    back: list[Callable[[], None]] = []
    if torch:
        back.append(partial(torch.set_num_threads, torch.get_num_threads()))
        torch.set_num_threads(count)
    if cv2:
        back.append(partial(cv2.setNumThreads, cv2.getNumThreads()))
        cv2.setNumThreads(count)

    def free() -> None:
        for restore in back:
            restore()

    return free


class InThisProcess:
    """No workers: jobs are done by the driver itself."""

    size = 1

    def __init__(self, work: Work, threads: int) -> None:
        self._worker = Worker(work, threads)
        self._events: deque[Event] = deque()

    def start(self) -> int:
        """See `Crew`."""
        self._events.append(self._worker.load())
        return 0

    def give(self, worker: int, job: Job) -> None:
        """See `Crew`."""
        self._events.append(self._worker.do(job))

    def wait(self) -> list[tuple[int, Event]]:
        """See `Crew`."""
        return [(0, self._events.popleft())]

    def close(self) -> None:
        """See `Crew`."""
        self._worker.close()


class Processes:
    """Processes of this machine.

    Args:
        work: how jobs are done.
        size: how many.
        threads: of arithmetic in each.
    """

    def __init__(self, work: Work, size: int, threads: int) -> None:
        self.size = size
        self._work, self._threads = work, threads
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[Connection, SpawnProcess] = {}

    def start(self) -> Connection:
        """See `Crew`."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._work, self._threads), daemon=True
        )
        process.start()
        theirs.close()
        self._workers[ours] = process
        return ours

    def give(self, worker: Connection, job: Job) -> None:
        """See `Crew`."""
        with contextlib.suppress(OSError):  # it is gone: `wait` says so
            worker.send(job)

    def wait(self) -> list[tuple[Connection, Event]]:
        """See `Crew`."""
        found: list[tuple[Connection, Event]] = []
        for worker in wait(list(self._workers)):
            assert isinstance(worker, Connection)
            try:
                found.append((worker, worker.recv()))
            except (EOFError, OSError):
                process = self._workers.pop(worker)
                worker.close()
                process.join()
                found.append((worker, Lost(_how_it_ended(process.exitcode))))
        return found

    def close(self) -> None:
        """See `Crew`."""
        for process in self._workers.values():
            process.kill()
        for worker, process in self._workers.items():
            process.join(_KILLED_WITHIN_S)
            worker.close()
        self._workers.clear()


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"stopped with status {code}"


def _serve(driver: Connection, work: Work, threads: int) -> None:
    """A worker process, until the driver is gone."""
    # Ctrl-C reaches the workers as well; the driver ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    worker = Worker(work, threads)
    event = worker.load()
    while True:
        try:
            driver.send(event)
            if isinstance(event, Failed):
                return
            event = worker.do(driver.recv())
        except (EOFError, OSError):
            return


def _end_with_driver() -> None:
    """A driver that was killed cannot end its workers: they look themselves."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)
