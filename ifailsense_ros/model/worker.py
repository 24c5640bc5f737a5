"""The process that owns the detector, and the handle by which the node's process uses it.

A detector that hangs or dies can so be killed and restarted, the interpreter lock is not shared
with the cameras, and the node's process never imports torch. Nothing here blocks the caller:
writing and reading is done by threads that only move messages; `poll` gives what has come.

`InProcessDetector` has the same interface and judges in a thread, for tests and tiny machines.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeAlias

from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.core.verdict import Judgement, Reason

DEFAULT_FACTORY = "ifailsense_ros.model.detector:load_detector"
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_FD = "IFAILSENSE_WORKER_FD"


@dataclass(frozen=True)
class DetectorSpec:
    """How to make the detector.

    Attributes:
        factory: "module:callable"; the callable returns a `core.detection.Detector`.
        kwargs: its arguments.
        num_threads: for the detector's arithmetic; 0: all cores but one.
    """

    factory: str = DEFAULT_FACTORY
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    num_threads: int = 0

    def threads(self) -> int:
        """Number of threads meant by `num_threads`."""
        return self.num_threads or max(1, len(os.sched_getaffinity(0)) - 1)


@dataclass(frozen=True)
class Ready:
    """The detector is loaded; it takes requests from now on."""

    model_id: str
    config: CheckpointConfig


@dataclass(frozen=True)
class LoadFailed:
    """The detector cannot be loaded; `detail` is one line. Trying again would not help."""

    detail: str


@dataclass(frozen=True)
class Died:
    """The detector ended by itself; what it was judging is lost. `restart` makes a new one."""

    detail: str


@dataclass(frozen=True)
class Answer:
    """The judgement on a request."""

    request_id: int
    judgement: Judgement


WorkerEvent: TypeAlias = Ready | LoadFailed | Died | Answer


class DetectorHandle(Protocol):
    """What the node needs of a detector, wherever it runs."""

    def start(self) -> None:
        """Begin to load; `Ready` or `LoadFailed` will follow."""

    def submit(self, request_id: int, episode: Episode) -> None:
        """Have an episode judged; only after `Ready`, and one at a time."""

    def poll(self) -> list[WorkerEvent]:
        """What has happened since the last call, in order."""

    def restart(self) -> None:
        """Drop what is being judged and load anew; `Ready` or `LoadFailed` will follow."""

    def close(self) -> None:
        """End it; at once, whatever it does."""


def is_factory(text: str) -> bool:
    """Whether a text names an importable callable ("module:callable")."""
    return _FACTORY.fullmatch(text) is not None


def make_detector(factory: str, kwargs: Mapping[str, Any]) -> Any:
    """Import the factory and call it.

    Raises:
        ConfigError: no such module or callable.
    """
    module, _, name = factory.partition(":")
    try:
        create = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"detector factory {factory!r} cannot be imported: {one_line(error)}"
        ) from error
    return create(**kwargs)


def one_line(error: BaseException) -> str:
    """An exception's text as one line; its type too unless the text was written for people."""
    text = " ".join(str(error).split())
    if isinstance(error, IFailSenseError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def judge_safely(detector: Any, episode: Episode) -> Judgement:
    """`detector.judge`, with exceptions as UNKNOWN / DETECTOR_ERROR and a traceback on stderr."""
    try:
        judgement = detector.judge(episode)
        if not isinstance(judgement, Judgement):
            raise TypeError(f"judge returned a {type(judgement).__name__}, not a Judgement")
    except MemoryError as error:
        return Judgement.unknown(Reason.DETECTOR_OUT_OF_MEMORY, f"out of memory: {error}")
    except Exception as error:
        traceback.print_exc()
        return Judgement.unknown(Reason.DETECTOR_ERROR, f"the detector failed: {one_line(error)}")
    return judgement


class DetectorWorker:
    """The detector in a process of its own.

    Args:
        spec: how to make the detector there.
        start_timeout_s: longest time until it is loaded.
        on_event: called from a thread whenever `poll` has something; must only wake somebody.
    """

    def __init__(
        self,
        spec: DetectorSpec,
        start_timeout_s: float = 120.0,
        on_event: Callable[[], None] = lambda: None,
    ) -> None:
        self._spec = spec
        self._start_timeout_s = start_timeout_s
        self._on_event = on_event
        self._events: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._generation = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline: float | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, if one runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """See `DetectorHandle`."""
        self._generation += 1
        ours, theirs = socket.socketpair()
        with theirs:
            environment = {
                **os.environ,
                _FD: str(theirs.fileno()),
                "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
                # Read when torch is first imported: waiting threads must not burn the cores
                # that the cameras need.
                "OMP_WAIT_POLICY": "PASSIVE",
                "OMP_NUM_THREADS": str(self._spec.threads()),
                "MKL_NUM_THREADS": str(self._spec.threads()),
            }
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ifailsense_ros.model.worker"],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        self._deadline = time.monotonic() + self._start_timeout_s
        connection = Connection(ours.detach())
        self._requests = queue.SimpleQueue()
        self._requests.put(self._spec)
        for target in (self._write, self._read):
            arguments = (connection, self._requests, self._generation, self._process)
            threading.Thread(target=target, args=arguments, daemon=True).start()

    def submit(self, request_id: int, episode: Episode) -> None:
        """See `DetectorHandle`."""
        self._requests.put((request_id, episode))

    def poll(self) -> list[WorkerEvent]:
        """See `DetectorHandle`."""
        events: list[WorkerEvent] = []
        with contextlib.suppress(queue.Empty):
            while True:
                generation, event = self._events.get_nowait()
                if generation != self._generation:
                    continue  # from a process that was given up
                if isinstance(event, Died) and self._deadline is not None:
                    # It would end in the same way each time.
                    event = LoadFailed(event.detail)
                if isinstance(event, Ready | LoadFailed):
                    self._deadline = None
                events.append(event)
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.close()
            events.append(
                LoadFailed(f"the detector was not loaded within {self._start_timeout_s:g} s")
            )
        return events

    def restart(self) -> None:
        """See `DetectorHandle`."""
        self.close()
        self.start()

    def close(self) -> None:
        """See `DetectorHandle`."""
        self._generation += 1
        self._deadline = None
        process, self._process = self._process, None
        self._requests.put(None)
        if process is not None:
            process.kill()
            # Killed, it is gone in no time; unless it sits in a driver, then it is left to init.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2.0)

    def _write(
        self, connection: Connection, requests: queue.SimpleQueue[Any], *_unused: Any
    ) -> None:
        while True:
            request = requests.get()
            if request is None:
                return
            # If the process is gone, the reading thread notices and says so.
            with contextlib.suppress(OSError, ValueError):
                connection.send(request)

    def _read(
        self,
        connection: Connection,
        requests: queue.SimpleQueue[Any],
        generation: int,
        process: subprocess.Popen[bytes],
    ) -> None:
        try:
            while True:
                self._events.put((generation, connection.recv()))
                self._on_event()
        except (EOFError, OSError):
            pass
        requests.put(None)
        connection.close()
        self._events.put((generation, Died(_how_it_ended(process))))
        self._on_event()


class InProcessDetector:
    """The detector in a thread of this process. A judgement that hangs cannot be killed here: after
    `restart`, `Ready` comes when it has ended.

    Args:
        spec: how to make the detector.
        on_event: as for `DetectorWorker`.
    """

    def __init__(self, spec: DetectorSpec, on_event: Callable[[], None] = lambda: None) -> None:
        self._spec = spec
        self._on_event = on_event
        self._events: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._generation = 0
        self._ready: Ready | None = None

    def start(self) -> None:
        """See `DetectorHandle`."""
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, request_id: int, episode: Episode) -> None:
        """See `DetectorHandle`."""
        self._requests.put((self._generation, request_id, episode))

    def poll(self) -> list[WorkerEvent]:
        """See `DetectorHandle`."""
        events: list[WorkerEvent] = []
        with contextlib.suppress(queue.Empty):
            while True:
                generation, event = self._events.get_nowait()
                if generation == self._generation:
                    events.append(event)
        return events

    def restart(self) -> None:
        """See `DetectorHandle`."""
        self._generation += 1
        self._requests.put((self._generation, None, None))

    def close(self) -> None:
        """See `DetectorHandle`."""
        self._generation += 1
        self._requests.put(None)

    def _run(self) -> None:
        try:
            detector = make_detector(self._spec.factory, self._spec.kwargs)
            ready = Ready(detector.model_id, detector.config)
        except Exception as error:
            self._tell(0, LoadFailed(one_line(error)))
            return
        self._tell(0, ready)
        while (request := self._requests.get()) is not None:
            generation, request_id, episode = request
            if episode is None:
                self._tell(generation, ready)
            else:
                self._tell(generation, Answer(request_id, judge_safely(detector, episode)))

    def _tell(self, generation: int, event: WorkerEvent) -> None:
        self._events.put((generation, event))
        self._on_event()


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(timeout=5.0)
    except subprocess.TimeoutExpired:
        return "the detector's process closed its pipe"
    if code == -signal.SIGKILL:
        return "the detector's process was killed (signal 9): out of memory?"
    if code < 0:
        return f"the detector's process died of signal {-code} ({signal.strsignal(-code)})"
    return f"the detector's process ended with exit status {code}"


def _serve(connection: Connection) -> None:
    """The child: make the detector, answer requests until the pipe closes."""
    spec: DetectorSpec = connection.recv()
    try:
        detector = make_detector(spec.factory, spec.kwargs)
        connection.send(Ready(detector.model_id, detector.config))
    except Exception as error:
        connection.send(LoadFailed(one_line(error)))
        return
    while True:
        request_id, episode = connection.recv()
        connection.send(Answer(request_id, judge_safely(detector, episode)))


def _end_with_parent() -> None:
    """A hung judgement does not read the pipe, and so would outlive a parent that was killed."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _main() -> None:
    # Ctrl-C reaches the whole process group; the parent decides what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection = Connection(int(os.environ.pop(_FD)))
    with contextlib.suppress(EOFError, OSError):
        _serve(connection)


if __name__ == "__main__":
    # Run as a module this file is `__main__`; the parent's pickles name it by its real name.
    from ifailsense_ros.model import worker

    worker._main()
