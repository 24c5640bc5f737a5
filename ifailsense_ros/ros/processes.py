"""Child processes of the demo and of replays: started together, watched, and always ended."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_ROOT = Path(__file__).resolve().parents[2]
_INTERRUPT_S = 10.0
_TERMINATE_S = 3.0


class ChildDied(Exception):
    """A process ended that should still be running; the text is for people."""


@dataclass(frozen=True)
class Line:
    """A line that a child printed on stdout."""

    child: str
    text: str


@dataclass
class _Child:
    name: str
    process: subprocess.Popen[str]
    log: Path
    reader: threading.Thread
    may_end: bool


class Processes:
    """A group of children; as a context manager it ends them in every case.

    Each runs in a session of its own, so that Ctrl-C in the terminal reaches only the parent,
    which then ends them in order. Their stderr goes to `<name>.log`.

    Args:
        log_dir: folder for the logs; must exist.
        environment: of the children.
        cwd: working folder of the children.

    Attributes:
        lines: what the children print on stdout.
        interrupt_s: how long a child may take to end after SIGINT, seconds.
    """

    def __init__(self, log_dir: Path, environment: Mapping[str, str], cwd: Path) -> None:
        self.lines: queue.Queue[Line] = queue.Queue()
        self.interrupt_s = _INTERRUPT_S
        self._log_dir = log_dir
        self._environment = dict(environment)
        self._cwd = cwd
        self._children: list[_Child] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str], *, may_end: bool = False) -> None:
        """Start a child.

        Args:
            name: for messages and the log file.
            command: program and arguments.
            may_end: it may end by itself with status 0; otherwise that is an error.
        """
        log = self._log_dir / f"{name}.log"
        # Interrupted between birth and registration, a child would never be ended by anybody.
        with _deferred_interrupts(), log.open("w", encoding="utf-8") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                errors="replace",
                env=self._environment,
                cwd=self._cwd,
                start_new_session=True,
            )
            reader = threading.Thread(target=self._read, args=(name, process), daemon=True)
            self._children.append(_Child(name, process, log, reader, may_end))
            reader.start()

    def check(self) -> None:
        """See that everybody who should be alive is.

        Raises:
            ChildDied: names the process, its exit status, its log and its last words.
        """
        for child in self._children:
            status = child.process.poll()
            if status is None or (child.may_end and status == 0):
                continue
            raise ChildDied(
                f"the {child.name} process ended with {_describe(status)}; its log is "
                f"{child.log}{_last_words(child.log)}"
            )

    def ended(self, name: str) -> bool:
        """Whether that child has ended and everything it printed is in `lines`."""
        child = next(c for c in self._children if c.name == name)
        return child.process.poll() is not None and not child.reader.is_alive()

    def stop(self) -> None:
        """End all children, the last started first: SIGINT, then SIGTERM, then SIGKILL."""
        # A second Ctrl-C while we clean up must not leave anybody behind.
        with _ignored_interrupts():
            for child in reversed(self._children):
                for number, patience in (
                    (signal.SIGINT, self.interrupt_s),
                    (signal.SIGTERM, _TERMINATE_S),
                    (signal.SIGKILL, _TERMINATE_S),
                ):
                    if _ends(child.process, number, patience):
                        break
            for child in self._children:
                # What a child started itself (the monitor's worker) is in its session.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.process.pid, signal.SIGKILL)
                child.reader.join(timeout=1.0)
                if child.process.stdout is not None:
                    child.process.stdout.close()
            self._children.clear()

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError):  # closed by stop()
            for text in process.stdout:
                self.lines.put(Line(name, text.rstrip("\n")))


def ros_environment(domain_id: int) -> dict[str, str]:
    """Of the children: a ROS domain of their own on this machine only."""
    variables = dict(os.environ)
    variables["ROS_DOMAIN_ID"] = str(domain_id)
    variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    # Idle threads of a small model must not burn the cores that the cameras need.
    variables["OMP_WAIT_POLICY"] = "PASSIVE"
    if (_ROOT / "package.xml").is_file():
        # In a checkout its code runs, and not an older installed copy.
        variables["PYTHONPATH"] = os.pathsep.join(
            [str(_ROOT), *filter(None, [variables.get("PYTHONPATH")])]
        )
    return variables


def _ends(process: subprocess.Popen[str], number: signal.Signals, patience: float) -> bool:
    if process.poll() is not None:
        return True
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return True
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def _handled_interrupts(handler: Callable[[int, FrameType | None], None] | signal.Handlers):
    """SIGINT and SIGTERM go to `handler` inside the block; only the main thread can do that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _ignored_interrupts():
    return _handled_interrupts(signal.SIG_IGN)


@contextlib.contextmanager
def _deferred_interrupts():
    """A signal inside the block takes effect right behind it."""
    caught: list[int] = []
    with _handled_interrupts(lambda number, _: caught.append(number)):
        yield
    if caught:
        signal.raise_signal(caught[0])


def _describe(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"


def _last_words(log: Path, lines: int = 12) -> str:
    with contextlib.suppress(OSError), log.open(encoding="utf-8", errors="replace") as file:
        tail = [line.rstrip() for line in deque(file, maxlen=lines)]
        if tail:
            return ":\n  " + "\n  ".join(tail)
    return " (empty)"
