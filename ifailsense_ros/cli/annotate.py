"""`ifailsense annotate PATH...`: label episodes on a page of this machine, by keyboard."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ifailsense_ros.cli.detect import DETECTOR_HELP
from ifailsense_ros.core.errors import ConfigError, DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the sub-command."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="bags, folders of bags, LeRobot data sets, or name:path of a reader",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        default=Path("labels.csv"),
        help=".csv or .yaml, written after every key; default labels.csv",
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--results", type=Path, help="of `ifailsense evaluate`: verdicts on request")
    shown.add_argument("--detector", help=f"judges on request: {DETECTOR_HELP}")
    parser.add_argument("--keyframes", type=int, default=6, help="columns of a picture; default 6")
    parser.add_argument("--num-pov", type=int, default=2, choices=(1, 2), help="cameras of a bag")
    for name, default in (
        ("exo", "/exo/image"),
        ("gripper", "/gripper/image"),
        ("instruction", "/instruction"),
        ("episode", "/episode"),
    ):
        parser.add_argument(f"--{name}-topic", default=default, metavar="TOPIC")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--browser", action="store_true", help="open the page as well")


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C.

    Returns:
        0, or 1 if episodes could not be read.

    Raises:
        ConfigError, DataError: nothing to label, or a file of labels that cannot be used.
    """
    from tqdm import tqdm

    from ifailsense_ros.annotate.episodes import Episodes
    from ifailsense_ros.annotate.server import AnnotationServer
    from ifailsense_ros.annotate.session import Session
    from ifailsense_ros.annotate.verdicts import FreshVerdicts, KeptVerdicts, NoVerdicts
    from ifailsense_ros.data.rosbag import BagTopics

    if args.keyframes < 1:
        raise ConfigError(f"--keyframes {args.keyframes}: must be at least 1")
    if args.results is not None:
        verdicts = KeptVerdicts(args.results)
    else:
        verdicts = NoVerdicts() if args.detector is None else FreshVerdicts(args.detector)
    topics = BagTopics(
        args.exo_topic, args.gripper_topic, args.instruction_topic, args.episode_topic
    )
    labels = args.labels if args.labels.exists() else None
    found = Episodes(args.paths, labels=labels, num_pov=args.num_pov, topics=topics)
    episodes = list(tqdm(found, desc="find", unit="episode", leave=False))
    for problem in found.problems:
        print(f"left out: {problem.where}: {problem.what}", file=sys.stderr)
    if not episodes:
        raise DataError(f"{' '.join(args.paths)}: no episode that could be shown")
    session = Session(episodes, args.labels)
    try:
        with AnnotationServer(
            session, verdicts, port=args.port, keyframes=args.keyframes
        ) as server:
            try:
                print(f"{len(episodes)} episodes, labels in {args.labels}")
                print(f"open {server.url}")
                print(
                    "s success, f failure, u unsure, arrows, z undo, v verdict; Ctrl-C ends",
                    flush=True,
                )
                if args.browser:
                    import webbrowser

                    webbrowser.open(server.url)
                server.serve_forever()
            except KeyboardInterrupt:  # from the moment at which it is offered
                print()
    finally:
        session.close()
    counts = session.counts()
    said = sum(counts.values()) - counts["total"]
    print(
        f"{args.labels}: {counts['success']} success, {counts['failure']} failure, "
        f"{counts['unsure']} unsure, {counts['total'] - said} without a label"
    )
    return 1 if found.problems else 0
