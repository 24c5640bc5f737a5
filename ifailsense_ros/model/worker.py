"""The process that owns the detector, and the handle by which the node's process uses it.

A detector that hangs or dies can so be killed and restarted, the interpreter lock is not shared
with the cameras, and the node's process never imports torch. Nothing here blocks the caller but
`close`, for two seconds at most if the killed process sits in a driver: writing and reading is done
by threads that only move messages; `poll` gives what has come.

The child is a fresh interpreter on one end of a socket pair, not multiprocessing's spawn: that
would import the parent's main module (the node, and with it rclpy) again in the child.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from ifailsense_ros.core.episode import Episode
from ifailsense_ros.model.handle import (
    Answer,
    DetectorSpec,
    Died,
    LoadFailed,
    Ready,
    WorkerEvent,
    judge_together,
    make_detector,
    one_line,
    warm_up,
)

_FD = "IFAILSENSE_WORKER_FD"


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
        try:
            connection = self._spawn()
        except OSError as error:  # no memory, no file descriptors
            text = f"the detector's process cannot be started: {one_line(error)}"
            self._events.put((self._generation, LoadFailed(text)))
            self._on_event()
            return
        self._deadline = time.monotonic() + self._start_timeout_s
        self._requests = queue.SimpleQueue()
        self._requests.put(self._spec)
        for target in (self._write, self._read):
            arguments = (connection, self._requests, self._generation, self._process)
            threading.Thread(target=target, args=arguments, daemon=True).start()

    def _spawn(self) -> Connection:
        """Start the process; returns our end of what connects us."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
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
            return Connection(ours.detach())

    def submit(self, request_id: int, episode: Episode) -> None:
        """See `DetectorHandle`."""
        self._requests.put((request_id, episode))

    def submit_batch(self, requests: Sequence[tuple[int, Episode]]) -> None:
        """Have several episodes judged, in one pass if the detector can. As `submit`: only when
        all of the last batch have been answered. An `Answer` comes for each, in this order.
        """
        self._requests.put(list(requests))

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
                if isinstance(event, LoadFailed):
                    self.close()
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
            how = _how_it_ended(process)
        except Exception as error:  # whatever unpickling does: say it, or nobody hears of it
            how = f"the detector's process sent what cannot be read: {one_line(error)}"
        requests.put(None)
        connection.close()
        self._events.put((generation, Died(how)))
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
        warm_up(detector)
        connection.send(Ready(detector.model_id, detector.config))
    except Exception as error:
        connection.send(LoadFailed(one_line(error)))
        return
    while True:
        request = connection.recv()
        requests = request if isinstance(request, list) else [request]
        judgements = judge_together(detector, [episode for _, episode in requests])
        for (request_id, _), judgement in zip(requests, judgements, strict=True):
            connection.send(Answer(request_id, judgement))
        if getattr(detector, "is_lost", False):
            return  # the device failed for good; a new process can use it again


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
