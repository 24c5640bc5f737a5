"""`ifailsense data export`: episodes of any source as a LeRobot data set or as bags.

    ifailsense data export --from store:DATA?split=test --to lerobot3 --out DIR
    ifailsense data export --from lerobot:DIR --to rosbag2 --out BAGS

Stopped (Ctrl-C) it goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ifailsense_ros.core.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Command line.

    Returns:
        0, or 1 if something was left out (`--keep-going`).

    Raises:
        ConfigError, DataError: a mistake in what the user gave.
    """
    args = _parser().parse_args(argv)
    from ifailsense_ros.data.export.common import export_all
    from ifailsense_ros.data.readers import open_reader

    reader = open_reader(args.source, args.keep_going)
    export = _export(args)
    exported = export_all(export, reader)
    print(f"{args.out}: {exported} episodes more")
    if getattr(export, "uneven", 0):
        print(
            f"{export.uneven} episodes are not evenly spaced at the frame rate: their true stamps "
            "are in the column stamp_ns"
        )
    problems = [*reader.problems, *export.problems]
    for problem in problems:
        print(f"left out: {problem.where}: {problem.what}", file=sys.stderr)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ifailsense data export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--from", dest="source", required=True, metavar="NAME:PATH", help="what is read"
    )
    parser.add_argument("--to", required=True, choices=("lerobot3", "rosbag2"))
    parser.add_argument("--out", required=True, type=Path, help="folder of the export")
    parser.add_argument("--keep-going", action="store_true", help="list what cannot be read")
    lerobot = parser.add_argument_group("LeRobot")
    lerobot.add_argument("--fps", type=int, help="default: that of the first episode, at least 1")
    lerobot.add_argument("--codec", choices=("h264", "av1"), help="of the videos; default h264")
    lerobot.add_argument(
        "--episodes-per-file", type=int, help="default 50; what an interruption may cost"
    )
    rosbag = parser.add_argument_group("rosbag2")
    rosbag.add_argument("--storage", choices=("mcap", "sqlite3"), help="default mcap")
    rosbag.add_argument("--pictures", choices=("jpeg", "png", "raw"), help="default jpeg")
    return parser


def _export(args: argparse.Namespace) -> Any:
    """The export that the arguments ask for.

    Raises:
        ConfigError: a number below 1, or an option of the other format.
    """
    options = {
        "lerobot3": ("fps", "codec", "episodes_per_file"),
        "rosbag2": ("storage", "pictures"),
    }
    given = {
        name: getattr(args, name)
        for names in options.values()
        for name in names
        if getattr(args, name) is not None
    }
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if name not in options[args.to]:
            raise ConfigError(f"{option}: --to {args.to} has no such option")
        if isinstance(value, int) and value < 1:
            raise ConfigError(f"{option} {value}: must be at least 1")
    if args.to == "lerobot3":
        from ifailsense_ros.data.export.lerobot import LerobotExport

        return LerobotExport(args.out, keep_going=args.keep_going, **given)
    from ifailsense_ros.data.export.rosbag import RosbagExport

    return RosbagExport(args.out, keep_going=args.keep_going, **given)
