"""`ifailsense evaluate PATH...`: bags and data sets judged, counted, and shown."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ifailsense_ros.cli.detect import DETECTOR_HELP
from ifailsense_ros.core.errors import ConfigError

TOPICS = (
    ("exo", "/exo/image", "exocentric camera"),
    ("gripper", "/gripper/image", "gripper camera"),
    ("instruction", "/instruction", "std_msgs/String"),
    ("episode", "/episode", "ifailsense_ros/EpisodeEvent"),
    ("success", "/episode/success", "std_msgs/Bool, the label"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the sub-command."""
    parser.epilog = (
        "Stopped and given again, the command goes on with what is left. Exit status: 0; 1 if "
        "something could not be judged (it is listed, and the rest is done); 2 for a mistake."
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="bag, folder of bags, LeRobot data set, data set of `ifailsense data build`, episode "
        "store, or format:path (docs/readers.md)",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help=".csv or .yaml: path, key, label"
    )
    parser.add_argument(
        "--detector",
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"one or more (default sim-tiny): {DETECTOR_HELP}",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results"), help="folder to make (default: results)"
    )
    parser.add_argument("--split", help="of data sets and stores, where there are several")
    parser.add_argument(
        "--num-pov", type=int, choices=(1, 2), help="N that every detector must look at"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument(
        "--no-guard", action="store_true", help="judge pictures unlike any in training as well"
    )
    parser.add_argument(
        "--workers", type=int, help="processes (default: one a core; few bags: none; a GPU: one)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of each process (default 1)")
    parser.add_argument("--ray", metavar="ADDRESS", help="spread over a Ray cluster")
    parser.add_argument(
        "--gpus", type=float, default=0.0, help="share of a GPU each worker gets from Ray"
    )
    parser.add_argument("--no-montages", action="store_true", help="keep no pictures")
    parser.add_argument("--no-report", action="store_true", help="write no HTML page")
    for name, default, what in TOPICS:
        parser.add_argument(
            f"--{name}-topic", default=default, metavar="TOPIC", help=f"{what} (default {default})"
        )


def run(args: argparse.Namespace) -> int:
    """Evaluate, and print the tables.

    Returns:
        0; 1 if something could not be judged; 130 after Ctrl-C.

    Raises:
        IFailSenseError: a mistake: nothing was judged.
    """
    from rich.console import Console

    from ifailsense_ros.data.rosbag import BagTopics
    from ifailsense_ros.evaluate.labels import LabelBook
    from ifailsense_ros.evaluate.run import Detectors, default_log, evaluate
    from ifailsense_ros.evaluate.tables import print_figures, print_problems

    for name, value in (("workers", args.workers), ("threads", args.threads)):
        if value is not None and value < (name == "threads"):
            raise ConfigError(f"--{name} {value}: is too few")
    names = args.detector or ["sim-tiny"]
    try:
        found = evaluate(
            args.paths,
            Detectors(tuple(names), args.device, not args.no_guard, args.num_pov),
            args.out,
            split=args.split,
            topics=BagTopics(*(getattr(args, f"{name}_topic") for name, *_ in TOPICS)),
            labels=None if args.labels is None else LabelBook(args.labels),
            montages=not args.no_montages,
            workers=args.workers,
            ray=args.ray,
            threads=args.threads,
            gpus=args.gpus,
            command=["ifailsense", *args.argv],
            opened=default_log(args.out),
        )
    except KeyboardInterrupt:
        print("ifailsense: stopped; the same command goes on", file=sys.stderr)
        return 130
    console = Console()
    print_problems(found.problems, Console(stderr=True))
    print_figures(found.figures, console)
    made = [f"{found.rows} results in {args.out}"]
    if not args.no_report and found.rows:
        from ifailsense_ros.evaluate.report.write import write_report

        made.append(f"open {write_report([args.out]).path} in a browser")
    console.print("; ".join(made), highlight=False, markup=False, soft_wrap=True)
    return 1 if found.problems else 0
