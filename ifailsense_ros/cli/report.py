"""`ifailsense report RESULTS...`: the page of one results folder, or of several."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the sub-command."""
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULTS",
        help="folder that `ifailsense evaluate` wrote; detectors of several are compared",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (default: report.html in the folder)"
    )
    parser.add_argument(
        "--pictures",
        default="auto",
        choices=("auto", "inline", "beside"),
        help="montages in the page itself, or beside it in the results folder; auto: inline unless "
        "they are more than 64 MiB",
    )
    parser.add_argument(
        "--gallery",
        type=int,
        default=2000,
        metavar="N",
        help="at most so many episodes in the gallery, mistakes before others (default 2000)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the page.

    Returns:
        0.

    Raises:
        DataError: a folder holds no results.
        ConfigError: several folders without --out, or the page cannot be written.
    """
    from ifailsense_ros.evaluate.report.write import write_report

    made = write_report(args.results, args.out, pictures=args.pictures, most_shown=args.gallery)
    where = "in the page" if made.inline else "beside the page: pass on the folder with it"
    print(
        f"{made.path}: {made.episodes} episodes, {made.detectors} detectors, {made.problems} "
        f"problems; {made.size / 2**20:.1f} MiB, montages {where}"
    )
    return 0
