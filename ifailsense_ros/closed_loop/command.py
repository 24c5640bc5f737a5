"""Does a robot that listens to the monitor get more done? Every task with every monitor, headless.

    ifailsense closed-loop --detector sim-tiny --out runs/closed_loop

The settings are fixed (`ifailsense_ros/closed_loop/settings.yaml`): 500 tasks of each of three
seeds, with no monitor, the oracle, the detector, always retrying once, and the gripper's own word.
Writes `tries.parquet` (one row a try) and `figures.json` to the folder; stopped, the same command
goes on. `ifailsense closed-loop report` puts the figures into docs/closed_loop.md, `closed-loop
early` measures early warnings, `closed-loop film` shows a rescue.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from ifailsense_ros import __version__
from ifailsense_ros.closed_loop.experiment import SCHEMA, Arms, Try, run, tries_table
from ifailsense_ros.closed_loop.figures import figures
from ifailsense_ros.closed_loop.settings import Settings, load_settings
from ifailsense_ros.core.errors import ConfigError, DataError, IFailSenseError
from ifailsense_ros.evaluate.results import write_json
from ifailsense_ros.sim.rollout import SPLITS

TRIES, FIGURES = "tries.parquet", "figures.json"


def add_common_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """What the commands of the closed loop have in common."""
    parser.add_argument("--detector", default="sim-tiny", help="checkpoint, or baseline:...")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--settings", type=Path, help="another settings.yaml: not a result")
    parser.add_argument("--split", choices=sorted(SPLITS), help="other scenes: not a result")
    parser.add_argument("--seeds", help="such as 801,802; default: as in the settings")
    parser.add_argument("--tasks", type=int, help="of each seed; default: as in the settings")
    parser.add_argument("--workers", type=int, help="processes; default: one a core")
    parser.add_argument("--out", type=Path, default=Path(out), help=f"default {out}")


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings, with what the command line changes.

    Raises:
        ConfigError: naming the option that is wrong.
    """
    settings = load_settings(args.settings)
    changed: dict[str, Any] = {}
    if args.split:
        changed["split"] = args.split
    if args.seeds:
        try:
            changed["seeds"] = tuple(int(word) for word in args.seeds.split(","))
        except ValueError:
            raise ConfigError(f"--seeds {args.seeds}: give numbers, as in 801,802") from None
    if args.tasks is not None:
        changed["count"] = args.tasks
    tasks = replace(settings.tasks, **changed)
    if tasks.count < 1 or min(tasks.seeds) < 0:
        raise ConfigError("--tasks must be at least 1, and --seeds not negative")
    return replace(settings, tasks=tasks)


def model_id_of(spec: str, device: str) -> str:
    """What the detector calls itself.

    Raises:
        IFailSenseError: there is no such detector, or it cannot be loaded.
    """
    from ifailsense_ros.evaluate.baselines.load import open_detector

    return open_detector(spec, device).model_id


def made_by(settings: Settings, model_id: str, command: Sequence[str]) -> dict[str, Any]:
    """What figures are about, and how to make them again."""
    return {
        "detector": model_id,
        "settings": asdict(settings),
        "fixed": settings == load_settings(),
        "release": __version__,
        "command": shlex.join(command),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status: 1 where something could not be done."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="ifailsense closed-loop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common_arguments(parser, "runs/closed_loop")
    parser.add_argument(
        "--no-detector", action="store_true", help="simple monitors only: no pictures, no OpenGL"
    )
    args = parser.parse_args(arguments)
    command = ["ifailsense", "closed-loop", *arguments]
    try:
        settings = settings_of(args)
        spec = "" if args.no_detector else args.detector
        model_id = model_id_of(spec, args.device) if spec else ""
        rows, problems = run(
            Arms(settings, spec, args.device), model_id, args.out, workers=args.workers
        )
        for problem in problems:
            print(f"{problem.where}: {problem.what}", file=sys.stderr)
        _write(args.out / TRIES, rows)
        found = figures(_read(args.out / TRIES))
        content = {"made": made_by(settings, model_id, command), "figures": found}
        write_json(args.out / FIGURES, content)
    except IFailSenseError as error:
        print(f"ifailsense closed-loop: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ifailsense closed-loop: stopped; the same command goes on", file=sys.stderr)
        return 130
    print_figures(found, make_console())
    print(f"in {args.out}")
    return 1 if problems else 0


def _write(path: Path, rows: Iterable[Try]) -> None:
    part, rows = path.with_name(f"{path.name}.part"), iter(rows)
    with pq.ParquetWriter(part, SCHEMA, compression="zstd") as writer:
        while some := list(islice(rows, 1000)):
            writer.write_table(tries_table(some))
    os.replace(part, path)


def _read(path: Path) -> Iterator[Try]:
    with pq.ParquetFile(path) as file:
        if not file.metadata.num_rows:
            raise DataError(f"{path}: no task could be tried; what is printed above says why")
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                yield Try(**row)


def make_console() -> Console:
    """A console; wide enough for a table where there is no terminal to fit into."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def print_figures(found: dict, console: Console) -> None:
    """The table of the monitors."""
    title = f"{found['tasks']} tasks, seeds {', '.join(map(str, found['seeds']))}"
    table = Table(title=title)
    for column in ("monitor", "success", "tries", "seconds", "wasted", "missed", "help", "closed"):
        table.add_column(column)
    for name, row in found["monitors"].items():
        table.add_row(
            name,
            in_words(row, "success"),
            in_words(row, "tries", 2),
            in_words(row, "seconds", 1),
            in_words(row, "wasted_retries"),
            in_words(row, "missed_failures"),
            in_words(row, "help"),
            in_words(row, "closed") if "closed" in row else "",
        )
    console.print(table)


def in_words(row: dict, name: str, digits: int = 3) -> str:
    """A figure with its interval."""
    if row[name] is None:
        return "-"
    low, high = row[f"{name}_95"]
    return f"{row[name]:.{digits}f} ({low:.{digits}f}\u2013{high:.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
