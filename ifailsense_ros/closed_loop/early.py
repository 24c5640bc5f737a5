"""How early is a failure announced, and at what price?

    ifailsense closed-loop early --detector sim-tiny --out runs/closed_loop_early

First attempts at the experiment's tasks are judged at several fractions of their time, as the
monitor node does for its early warnings (`~/verdict/provisional`), and at their end. A warning is a
p_success below a threshold. Half of the tasks choose the threshold for a false alarm rate, the
other half say what comes of it, and the other way round. Writes `early.json`; stopped, the same
command goes on.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from rich.table import Table

from ifailsense_ros.closed_loop.command import (
    add_common_arguments,
    in_words,
    made_by,
    make_console,
    model_id_of,
    settings_of,
)
from ifailsense_ros.closed_loop.experiment import FORMAT, Arms, Chunk, Loaded, chunks_of, load
from ifailsense_ros.closed_loop.monitors import Seen, Watching
from ifailsense_ros.closed_loop.scenes import Course, Move, setup_of
from ifailsense_ros.core.errors import DataError, IFailSenseError
from ifailsense_ros.evaluate.metrics import RESAMPLES, SEED
from ifailsense_ros.evaluate.results import write_json
from ifailsense_ros.evaluate.spread import Done, Work, spread
from ifailsense_ros.sim import GENERATOR_VERSION
from ifailsense_ros.sim.tasks import CATEGORIES

FRACTIONS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of an attempt's time; the last one is its end."""

ALARM_RATES = (0.01, 0.05, 0.1, 0.2)
"""Shares of successful attempts that may be called failures."""

WAYS = {
    "early": "on the way and at the end, one threshold",
    "timed": "on the way and at the end, a threshold for each moment",
    "end": "at the end alone",
}
"""What is judged. The first is what a planner can do that does not know how long a motion takes."""

EARLY = "early.json"


@dataclass(frozen=True)
class Look:
    """An attempt, and what the detector thought of it on its way.

    Attributes:
        seed, index: of the task.
        success: the oracle's word.
        duration_s: of the attempt.
        p_success: at each of `FRACTIONS`; NaN where it could not say.
    """

    seed: int
    index: int
    success: bool
    duration_s: float
    p_success: tuple[float, ...]


_SCHEMA = pa.schema(
    [
        ("seed", pa.int32()),
        ("index", pa.int32()),
        ("success", pa.bool_()),
        ("duration_s", pa.float64()),
        ("p_success", pa.list_(pa.float64())),
    ]
)


def looks_table(rows: Sequence[Look]) -> pa.Table:
    """Rows as a parquet table."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=_SCHEMA)


def looks_of_table(table: pa.Table) -> list[Look]:
    """Rows of a parquet table."""
    return [Look(**{**row, "p_success": tuple(row["p_success"])}) for row in table.to_pylist()]


def look_at_chunk(chunk: Chunk, loaded: Loaded) -> Done:
    """The first attempts of a chunk's tasks, with the detector's early warnings."""
    (monitor,) = (m for m in loaded.monitors if isinstance(m, Watching))
    rows = []
    for index in range(chunk.first, chunk.end):
        course = Course(loaded.stage, setup_of(chunk.split, chunk.seed, index, chunk.look))
        rows.append(look(course, monitor))
    return Done(rows)


def look(course: Course, monitor: Watching) -> Look:
    """The first attempt at a task, judged on its way."""
    moves = (Move(0),)
    attempt = course.attempt(moves)
    seen = Seen(attempt, 1, partial(course.episode, moves))
    count = len(attempt.states)
    said = tuple(monitor.warn(seen, samples_at(fraction, count)) for fraction in FRACTIONS)
    setup = course.setup
    return Look(setup.seed, setup.index, attempt.success, attempt.duration_s, said)


def samples_at(fraction: float, count: int) -> int:
    """How many of an attempt's samples have been seen at a fraction of its time."""
    return round(fraction * (count - 1)) + 1


# --- figures --------------------------------------------------------------------------------------


def figures(looks: Sequence[Look], resamples: int = RESAMPLES) -> dict:
    """What early warnings are worth.

    Returns:
        `attempts`, `failures`; under `at` by fraction how well p_success at that moment tells
        failures from successes (`auc`, `detected` at 5 % false alarms); under `announced` by false
        alarm rate and by one of `WAYS`: false alarms, failures announced, and the seconds before
        the end at which those announced were, in the mean and in the median. All with intervals
        over tasks (_95).

    Raises:
        ValueError: no failure, or no success.
    """
    rows = sorted(looks, key=lambda row: (row.seed, row.index))
    # What could not be said is no warning.
    said = np.nan_to_num(np.array([row.p_success for row in rows]), nan=1.0)
    good = np.array([row.success for row in rows])
    if good.all() or not good.any():
        raise ValueError("there must be failures and successes")
    left = np.array([[(1 - f) * row.duration_s for f in FRACTIONS] for row in rows])
    # Tasks take turns by category: whole turns, so that both halves have all categories.
    half = np.array([row.index // len(CATEGORIES) % 2 for row in rows])
    rng = np.random.default_rng(SEED)
    draws = rng.integers(len(rows), size=(resamples, len(rows)))
    out: dict = {"attempts": len(rows), "failures": int((~good).sum()), "at": {}, "announced": {}}
    for number, fraction in enumerate(FRACTIONS):
        p = said[:, [number]]
        found: dict = {}
        _put(found, "auc", draws, lambda some, p=p: _auc(p[some, 0], good[some]))
        warned = _crossed(p, good, half, 0.05)
        _put_announced(found, draws, warned, left[:, [number]], good)
        out["at"][f"{fraction:g}"] = found
    for rate in ALARM_RATES:
        out["announced"][f"{rate:g}"] = by_way = {}
        for way in WAYS:
            columns = slice(-1, None) if way == "end" else slice(None)
            warned = _crossed(said[:, columns], good, half, rate, one=way == "early")
            _put_announced(by_way.setdefault(way, {}), draws, warned, left[:, columns], good)
    return out


def thresholds(p: np.ndarray, good: np.ndarray, rate: float, *, one: bool) -> np.ndarray:
    """The highest thresholds for which at most a share of the successes is below them at any of its
    moments.

    Args:
        p: p_success, (attempts, moments).
        good: which attempts are successes; at least one.
        rate: the share.
        one: the same for all moments; else each moment's lies at the same rank of its successes.

    Returns:
        (moments,).
    """
    of_good = p[good]
    ranks = np.sort(of_good.min(1, keepdims=True) if one else of_good, axis=0)
    found = ranks[0]
    for rank in ranks:
        if (of_good < rank).any(1).mean() > rate:
            break
        found = rank
    return np.broadcast_to(found, p.shape[1:])


def _crossed(
    p: np.ndarray, good: np.ndarray, half: np.ndarray, rate: float, *, one: bool = True
) -> np.ndarray:
    """Which moments warn, (attempts, moments); each half with the thresholds of the other one."""
    warned = np.zeros(p.shape, bool)
    for number in (0, 1):
        others = half != number
        if good[others].any():
            warned[~others] = p[~others] < thresholds(p[others], good[others], rate, one=one)
    return warned


def _put_announced(
    out: dict, draws: np.ndarray, warned: np.ndarray, left: np.ndarray, good: np.ndarray
) -> None:
    announced = warned.any(1)
    first = left[np.arange(len(left)), warned.argmax(1)]
    shares = {
        "false_alarms": lambda some: _mean(announced[some][good[some]]),
        "detected": lambda some: _mean(announced[some][~good[some]]),
        "lead_s": lambda some: _mean(first[some][announced[some] & ~good[some]]),
        "median_lead_s": lambda some: _median(first[some][announced[some] & ~good[some]]),
    }
    for name, figure in shares.items():
        _put(out, name, draws, figure)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _auc(p: np.ndarray, good: np.ndarray) -> float:
    """How often a failure looks worse than a success; ties count half."""
    bad = np.sort(p[~good])
    if not len(bad) or not good.any():
        return math.nan
    below = np.searchsorted(bad, p[good], "left") + np.searchsorted(bad, p[good], "right")
    return float(below.mean() / (2 * len(bad)))


def _put(out: dict, name: str, draws: np.ndarray, figure) -> None:
    value = figure(np.arange(draws.shape[1]))
    drawn = np.array([figure(some) for some in draws])
    drawn = drawn[~np.isnan(drawn)]
    if math.isnan(value) or not len(drawn):
        out[name] = out[f"{name}_95"] = None
        return
    out[name] = round(value, 4)
    out[f"{name}_95"] = [round(float(q), 4) for q in np.quantile(drawn, [0.025, 0.975])]


# --- the command ----------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status: 1 where something could not be done."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="ifailsense closed-loop early",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common_arguments(parser, "runs/closed_loop_early")
    args = parser.parse_args(arguments)
    command = ["ifailsense", "closed-loop", "early", *arguments]
    try:
        settings = settings_of(args)
        model_id = model_id_of(args.detector, args.device)
        work: Work[Look] = Work(
            partial(load, Arms(settings, args.detector, args.device)),
            look_at_chunk,
            looks_table,
            looks_of_table,
            {
                "format": FORMAT,
                "generator": GENERATOR_VERSION,
                "model": model_id,
                "policy": asdict(settings.policy),
                "fractions": list(FRACTIONS),
            },
        )
        done = spread(
            chunks_of(settings), work, args.out, workers=args.workers, title="early warnings"
        )
        problems = list(done.problems())
        for problem in problems:
            print(f"{problem.where}: {problem.what}", file=sys.stderr)
        try:
            found = figures(list(done.rows()))
        except ValueError as error:
            raise DataError(f"{args.out}: {error} among the attempts; take more --tasks") from None
        content = {"made": made_by(settings, model_id, command), "figures": found}
        write_json(args.out / EARLY, content)
    except IFailSenseError as error:
        print(f"ifailsense closed-loop early: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ifailsense closed-loop early: stopped; the same command goes on", file=sys.stderr)
        return 130
    print_figures(found)
    print(f"in {args.out}")
    return 1 if problems else 0


def print_figures(found: dict) -> None:
    """The table of false alarm rates."""
    title = f"{found['attempts']} attempts, {found['failures']} of them failures"
    table = Table(title=title)
    for column in ("allowed", "judged", "false alarms", "announced", "seconds before the end"):
        table.add_column(column)
    for rate, by_way in found["announced"].items():
        for way, row in by_way.items():
            words = (in_words(row, "false_alarms"), in_words(row, "detected"))
            table.add_row(rate, WAYS[way], *words, in_words(row, "lead_s", 2))
    make_console().print(table)


if __name__ == "__main__":
    sys.exit(main())
