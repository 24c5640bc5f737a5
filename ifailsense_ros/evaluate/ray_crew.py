"""Workers as actors of a Ray cluster, on as many machines as it has."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from ifailsense_ros.core.errors import ConfigError, text_of
from ifailsense_ros.data.readers.base import need
from ifailsense_ros.evaluate.crews import Event, Lost, Worker

if TYPE_CHECKING:
    from ifailsense_ros.evaluate.spread import Job, Work


_REACHED_WITHIN_S = 10.0
_REPORTED_WITHIN_S = 10.0
_STARTS = 2


class _Remote(Worker):
    """A worker that begins where the driver did, for the sake of relative paths."""

    def __init__(self, work: Work, threads: int, folder: str) -> None:
        super().__init__(work, threads)
        self._folder = folder

    def load(self) -> Event:
        """See `Worker`."""
        with contextlib.suppress(OSError):  # then paths must be absolute
            os.chdir(self._folder)
        return super().load()


class RayActors:
    """Workers of a Ray cluster. The package must be installed on all its machines.

    Args:
        work: how jobs are done.
        address: of the cluster; "local" starts one on this machine.
        size: how many; None: one for each `threads` of its cores, or for each share of its GPUs.
        threads: of arithmetic, and cores, of each.
        gpus: share of a GPU each wants.

    Raises:
        ConfigError: Ray is not installed, the cluster is not there, or has no room for a worker.
    """

    def __init__(
        self, work: Work, address: str, size: int | None, threads: int, gpus: float
    ) -> None:
        self._ray: Any = need("ray", "--ray", "'.[ray]' in the checkout")
        self._began = not self._ray.is_initialized()
        if self._began:
            _join(self._ray, address)
        self._options = {"num_cpus": threads, "num_gpus": gpus, "max_restarts": 0}
        self._actor = self._ray.remote(_Remote)
        self._work, self._threads = self._ray.put(work), threads
        self._names = itertools.count()
        self._actors: dict[int, Any] = {}
        self._answers: dict[Any, int] = {}
        has = _resources(self._ray)
        room = has.get("CPU", 0) // threads
        if gpus:
            room = min(room, has.get("GPU", 0) // gpus)
        if room < 1:
            self.close()
            raise ConfigError(
                f"--ray {address}: has no room for a worker of {threads} cores and {gpus:g} GPUs"
            )
        self.size = int(room) if size is None else size

    def start(self) -> int:
        """See `Crew`."""
        worker = next(self._names)
        actor = self._actor.options(**self._options).remote(self._work, self._threads, os.getcwd())
        self._actors[worker] = actor
        self._answers[actor.load.remote()] = worker
        return worker

    def give(self, worker: int, job: Job) -> None:
        """See `Crew`."""
        self._answers[self._actors[worker].do.remote(job)] = worker

    def wait(self) -> list[tuple[int, Event]]:
        """See `Crew`."""
        done, _ = self._ray.wait(list(self._answers), num_returns=1)
        found: list[tuple[int, Event]] = []
        for answer in done:
            worker = self._answers.pop(answer)
            try:
                found.append((worker, self._ray.get(answer)))
            except self._ray.exceptions.RayError as error:
                self._ray.kill(self._actors.pop(worker))
                found.append((worker, Lost(f"lost by Ray ({type(error).__name__})")))
        return found

    def close(self) -> None:
        """See `Crew`."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()
        self._answers.clear()
        if self._began:
            self._ray.shutdown()


def _join(ray: Any, address: str) -> None:
    """Start Ray here, or reach a cluster."""
    here = address == "local"
    for starts_left in reversed(range(_STARTS if here else 1)):
        try:
            _look_for(address)
            ray.init(address=address, include_dashboard=False, logging_level="warning")
            return
        except Exception as error:  # Ray raises many kinds for a cluster that is not there
            ray.shutdown()
            # Its own processes must answer within half a minute: a busy machine may be too slow.
            if not starts_left:
                what = "cannot be started here" if here else "no such cluster"
                raise ConfigError(
                    f"--ray {address}: {what} ({text_of(error)}): see docs/scale.md"
                ) from error


def _resources(ray: Any) -> dict[str, float]:
    """What all machines of the cluster have; the first may not have reported yet."""
    until = time.monotonic() + _REPORTED_WITHIN_S
    while "CPU" not in (has := ray.cluster_resources()) and time.monotonic() < until:
        time.sleep(0.1)
    return has


def _look_for(address: str) -> None:
    """Raises OSError where nobody listens; Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), _REACHED_WITHIN_S).close()
