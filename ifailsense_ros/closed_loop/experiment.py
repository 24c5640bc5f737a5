"""The experiment without ROS: every task with every monitor, one row a try.

Tasks are spread over processes and survive Ctrl-C as evaluations do (`evaluate.spread`): the same
command goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import pyarrow as pa

from ifailsense_ros.closed_loop.monitors import SIMPLE, Monitor, Seen, Watching, simple_monitor
from ifailsense_ros.closed_loop.recovery import Next, Recovery
from ifailsense_ros.closed_loop.scenes import Course, Move, Stage, setup_of
from ifailsense_ros.closed_loop.settings import Settings
from ifailsense_ros.core.verdict import Reason
from ifailsense_ros.data.records import Problem
from ifailsense_ros.evaluate.spread import Done, Work, spread
from ifailsense_ros.sim import GENERATOR_VERSION

FORMAT = 1
"""Of the rows; raised when the policy, the planner or a column changes its meaning."""

CHUNK = 10
NO_VERDICT = -1
WARNING_SAMPLES = 5
"""Between two early warnings: half a second."""


@dataclass(frozen=True)
class Try:
    """One attempt at a task, and what came of it.

    Attributes:
        monitor: whose planner it was.
        seed, index: of the task.
        task, category, instruction: what was asked for.
        tries: number of the attempt, from 1.
        policy_seed: the policy was asked with.
        kind, performed, done, success: see `sim.policy.Attempt`.
        outcome, reason, p_success: the verdict; `NO_VERDICT`, 0 and NaN where there was none.
        given_up: the planner stopped it after early warnings.
        choice: the planner's, a value of `Next`.
        duration_s, home_s: of the attempt, and of the way home before it.
    """

    monitor: str
    seed: int
    index: int
    task: str
    category: str
    instruction: str
    tries: int
    policy_seed: int
    kind: str
    performed: str
    done: bool
    success: bool
    outcome: int
    reason: int
    p_success: float
    given_up: bool
    choice: str
    duration_s: float
    home_s: float


_TYPES = {"int": pa.int32(), "float": pa.float64(), "bool": pa.bool_(), "str": pa.string()}
SCHEMA = pa.schema([(f.name, _TYPES[str(f.type)]) for f in fields(Try)])


def tries_table(rows: Sequence[Try]) -> pa.Table:
    """Rows as a parquet table."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)


def tries_of_table(table: pa.Table) -> list[Try]:
    """Rows of a parquet table."""
    return [Try(**row) for row in table.to_pylist()]


@dataclass(frozen=True)
class Chunk:
    """Some tasks in a row, of one seed: what a worker is given."""

    split: str
    seed: int
    first: int
    end: int
    look: str

    @property
    def name(self) -> str:
        """See `spread.Job`."""
        return f"{self.split}/{self.look}/{self.seed}/{self.first}-{self.end}"

    @property
    def where(self) -> str:
        """See `spread.Job`."""
        return f"tasks {self.first} to {self.end - 1} of seed {self.seed}"


@dataclass(frozen=True)
class Arms:
    """Which monitors are compared.

    Attributes:
        settings: the experiment's.
        detector: a `--detector`; "": none.
        device: where it runs.
    """

    settings: Settings
    detector: str = ""
    device: str = "auto"


@dataclass(frozen=True)
class Loaded:
    """What a worker keeps from chunk to chunk."""

    settings: Settings
    stage: Stage
    monitors: Sequence[Monitor]


def load(arms: Arms, threads: int = 1) -> Loaded:
    """World, camera and detector, once a process.

    Raises:
        IFailSenseError: no such detector, or no OpenGL for its pictures.
    """
    from ifailsense_ros.evaluate.baselines.load import open_detector

    monitors = [simple_monitor(name) for name in SIMPLE]
    if arms.detector:
        detector = open_detector(arms.detector, arms.device, num_threads=threads)
        monitors.append(Watching(detector))
    looks = any(monitor.looks for monitor in monitors)
    return Loaded(arms.settings, Stage(arms.settings, pictures=looks), monitors)


def do_chunk(chunk: Chunk, loaded: Loaded) -> Done:
    """All tasks of a chunk with all monitors."""
    rows: list[Try] = []
    for index in range(chunk.first, chunk.end):
        course = Course(loaded.stage, setup_of(chunk.split, chunk.seed, index, chunk.look))
        for monitor in loaded.monitors:
            rows += carry_out(course, monitor, loaded.settings)
    return Done(rows)


def carry_out(course: Course, monitor: Monitor, settings: Settings) -> Iterator[Try]:
    """One task with one monitor, try by try."""
    setup, recovery, moves = course.setup, Recovery(settings.planner), []
    choice = Next.RETRY
    while choice in (Next.RETRY, Next.REGROUND):
        tries, policy_seed = recovery.tries, recovery.seed
        moves.append(Move(policy_seed))
        given_up = _given_up(course, moves, monitor, recovery, settings)
        attempt = course.attempt(moves)
        judgement = monitor.judge(_seen(course, moves)) if attempt.done else None
        outcome = None if judgement is None else judgement.outcome
        choice = recovery.after(attempt.done, outcome, given_up=given_up)
        yield Try(
            monitor=monitor.name,
            seed=setup.seed,
            index=setup.index,
            task=setup.task.name,
            category=setup.task.category,
            instruction=setup.instruction,
            tries=tries,
            policy_seed=policy_seed,
            kind=attempt.kind,
            performed=attempt.performed,
            done=attempt.done,
            success=attempt.success,
            outcome=NO_VERDICT if outcome is None else int(outcome),
            reason=int(Reason.NONE if judgement is None else judgement.reason),
            p_success=math.nan if judgement is None else judgement.p_success,
            given_up=given_up,
            choice=choice.value,
            duration_s=attempt.duration_s,
            home_s=attempt.home_s,
        )


def _seen(course: Course, moves: Sequence[Move]) -> Seen:
    return Seen(course.attempt(moves), len(moves), partial(course.episode, tuple(moves)))


def _given_up(
    course: Course, moves: list[Move], monitor: Monitor, recovery: Recovery, settings: Settings
) -> bool:
    """Let early warnings come in while the attempt runs; where the planner gives it up, the last
    of the moves is cut short.
    """
    if not settings.planner.give_up_below or not isinstance(monitor, Watching):
        return False
    seen = _seen(course, moves)
    for samples in range(WARNING_SAMPLES + 1, len(seen.attempt.states), WARNING_SAMPLES):
        if recovery.warned(monitor.warn(seen, samples)):
            moves[-1] = Move(moves[-1].seed, samples)
            return True
    return False


def chunks_of(settings: Settings) -> Iterator[Chunk]:
    """All tasks of the experiment."""
    tasks = settings.tasks
    for seed in tasks.seeds:
        for first in range(0, tasks.count, CHUNK):
            end = min(first + CHUNK, tasks.count)
            yield Chunk(tasks.split, seed, first, end, tasks.look)


def run(
    arms: Arms,
    model_id: str,
    folder: str | Path,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> tuple[Iterable[Try], list[Problem]]:
    """Every task with every monitor, or what is left of it.

    Args:
        arms: monitors and settings.
        model_id: the detector's; another one begins anew.
        folder: where finished chunks are kept.
        workers, progress: see `spread.spread`.

    Returns:
        the tries in the order of tasks and monitors; what could not be done.

    Raises:
        ConfigError: another run in the folder, or workers that are lost while they load.
        IFailSenseError: `load` raised it.
    """
    settings = {
        "format": FORMAT,
        "generator": GENERATOR_VERSION,
        "model": model_id,
        "policy": asdict(arms.settings.policy),
        "planner": asdict(arms.settings.planner),
    }
    work: Work[Try] = Work(partial(load, arms), do_chunk, tries_table, tries_of_table, settings)
    done = spread(
        chunks_of(arms.settings),
        work,
        folder,
        workers=workers,
        title="closed loop",
        progress=progress,
    )
    return done.rows(), list(done.problems())
