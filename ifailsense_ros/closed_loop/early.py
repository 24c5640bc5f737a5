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
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

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
from ifailsense_ros.closed_loop.early_figures import FRACTIONS, WAYS, Look, figures
from ifailsense_ros.closed_loop.experiment import FORMAT, Arms, Chunk, Loaded, chunks_of, load
from ifailsense_ros.closed_loop.monitors import Seen, Watching
from ifailsense_ros.closed_loop.scenes import Course, Move, setup_of
from ifailsense_ros.core.errors import DataError, IFailSenseError
from ifailsense_ros.evaluate.results import write_json
from ifailsense_ros.evaluate.spread import Done, Work, spread
from ifailsense_ros.sim import GENERATOR_VERSION

EARLY = "early.json"

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
