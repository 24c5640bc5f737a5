"""Jobs for tests of `evaluate.spread`, in a module of their own: workers import it by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.records import Problem
from ifailsense_ros.evaluate.spread import Done, Work

SCHEMA = pa.schema(
    [("job", pa.int64()), ("row", pa.int64()), ("text", pa.string()), ("factor", pa.float64())]
)


@dataclass(frozen=True)
class MadeUp:
    """A job of so many rows that may do something else first.

    Attributes:
        kill: how many workers it takes with it; 1000: each.
        signal: sent to the driver by its worker.
        raises: "data": our own error; "bug": another.
        marks: folder in which each begin leaves a file.
    """

    number: int
    marks: Path
    rows: int = 3
    kill: int = 0
    signal: int = 0
    raises: str = ""
    content: str = ""
    problem: str = ""

    @property
    def name(self) -> str:
        return f"{self.number} {self.content}"

    @property
    def where(self) -> str:
        return f"job {self.number}"

    def begins(self) -> int:
        """How often it was begun so far."""
        return len(list(self.marks.glob(f"{self.number}-*")))


def load(factor: float, error: str = "", kill: bool = False) -> float:
    if kill:
        os.kill(os.getpid(), signal.SIGKILL)
    if error:
        raise ConfigError(error)
    return factor


def do(job: MadeUp, factor: float) -> Done:
    begun = job.begins()
    (job.marks / f"{job.number}-{begun}-{os.getpid()}").touch()
    if begun < job.kill:
        os.kill(os.getpid(), signal.SIGKILL)
    if job.signal:
        os.kill(os.getppid(), job.signal)
        time.sleep(60)  # until somebody ends it
    if job.raises == "data":
        raise DataError(f"{job.where}: is damaged; copy it again")
    if job.raises:
        raise ZeroDivisionError("a bug")
    rows = [
        {"job": job.number, "row": k, "text": f"{job.number} {k}", "factor": factor}
        for k in range(job.rows)
    ]
    problems = [Problem(job.where, job.problem)] if job.problem else []
    return Done(rows, problems, {f"montages/{job.number}.jpg": b"picture %d" % job.number})


def to_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def from_table(table: pa.Table) -> Iterable[dict[str, Any]]:
    return table.to_pylist()


def made_up_work(factor: float = 1.0, **load_options: Any) -> Work[dict[str, Any]]:
    """Work whose settings are its factor."""
    return Work(partial(load, factor, **load_options), do, to_table, from_table, {"factor": factor})
