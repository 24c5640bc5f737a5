"""`ifailsense label DATASET`: verdicts on a LeRobot data set, kept beside it, and copies with them.

    ifailsense label DATASET                                    verdicts beside the data set
    ifailsense label DATASET --export NEW                       a copy with the verdicts as labels
    ifailsense label DATASET --export NEW --keep success        a copy of the successes
    ifailsense label DATASET --keep success --dry-run           what that would keep and drop

Stopped (Ctrl-C) it goes on where it was when the same command is given again. The data set's own
files are never changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifailsense_ros.cli.detect import add_detector_arguments, detector_options
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.verdict import Outcome

if TYPE_CHECKING:
    from ifailsense_ros.evaluate.label import LerobotSource

_SPANS = 20
_VERDICTS = tuple(outcome.name.lower() for outcome in Outcome)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line.

    Returns:
        0, or 1 if an episode has no verdict because it cannot be read.

    Raises:
        ConfigError, DataError, CheckpointError: a mistake in what the user gave.
    """
    args = _parser().parse_args(argv)
    if args.keep is not None and args.drop is not None:
        raise ConfigError("--keep and --drop: give one of them")
    if (args.keep or args.drop) and not (args.export or args.dry_run):
        raise ConfigError("--keep and --drop say what --export NEW copies: give that, or --dry-run")
    from ifailsense_ros.evaluate.label import LerobotSource
    from ifailsense_ros.evaluate.verdict_sidecar import FOLDER

    options = {name: key for name in ("exo", "gripper") if (key := getattr(args, name))}
    source = LerobotSource(args.dataset, options)
    folder = args.out or args.dataset / FOLDER
    if args.dry_run:
        return _copy(args, folder)
    status = _label(args, source, folder)
    if args.export:
        _copy(args, folder)
    return status


def _label(args: argparse.Namespace, source: LerobotSource, folder: Path) -> int:
    from ifailsense_ros.data.readers.lerobot_meta import read_info
    from ifailsense_ros.evaluate.baselines.names import workers_within_budget
    from ifailsense_ros.evaluate.label import label
    from ifailsense_ros.evaluate.verdict_sidecar import SIDECAR

    read_info(source.path)  # before anything is made
    load, settings = _detector(args)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be made ({error.strerror}): name another folder with --out"
        ) from error
    done = label(
        source,
        folder,
        load,
        settings,
        montages=not args.no_montages,
        workers=workers_within_budget([args.detector], args.workers, args.ray),
        ray=args.ray,
        threads=args.threads,
        gpus=args.gpus,
    )
    counts = dict.fromkeys(_VERDICTS, 0)
    for row in done.rows():
        counts[row.verdict.lower()] += 1
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    print(f"{folder / SIDECAR}: {sum(counts.values())} episodes: {told}")
    problems = list(done.problems())
    for problem in problems:
        print(f"no verdict: {problem.where}: {problem.what}", file=sys.stderr)
    return 1 if problems else 0


def _detector(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """What makes the detector in each worker, and JSON values that say which it is."""
    from ifailsense_ros.core.checkpoint import CheckpointConfig, resolve_checkpoint
    from ifailsense_ros.evaluate.baselines.load import open_detector
    from ifailsense_ros.evaluate.baselines.names import is_baseline, name_for_verdicts
    from ifailsense_ros.model.handle import is_factory

    asked = detector_options(args)
    settings: dict[str, Any] = {"detector": name_for_verdicts(args.detector), **asked}
    if not (is_factory(args.detector) or is_baseline(args.detector)):
        checkpoint = CheckpointConfig.from_json(resolve_checkpoint(args.detector))
        settings["model_id"] = checkpoint.model_id
    return partial(open_detector, args.detector, **asked), settings


def _copy(args: argparse.Namespace, folder: Path) -> int:
    """The labelled or filtered copy, or what it would be."""
    from ifailsense_ros.data.export.lerobot_copy import LerobotCopy
    from ifailsense_ros.data.export.lerobot_plan import plan_copy
    from ifailsense_ros.evaluate.verdict_sidecar import copy_labels, read_verdicts

    verdicts = read_verdicts(folder)
    wanted = args.keep or frozenset(_VERDICTS) - (args.drop or frozenset())
    seen: dict[int, str] = {}

    def keep(index: int) -> bool:
        # Nobody knows of an episode that could not be judged.
        seen[index] = verdicts[index].verdict.lower() if index in verdicts else _VERDICTS[0]
        return seen[index] in wanted

    plan = plan_copy(args.dataset, keep)
    labels = None if args.no_column else copy_labels(verdicts, plan.kept)
    if args.export:
        copy = LerobotCopy(
            plan, args.export, labels, replace_labels=args.replace_labels, link=args.link
        )
    for doing, chosen in (("keep", True), ("drop", False)):
        mine = [index for index in sorted(seen) if (index in plan.kept) is chosen]
        counts = {v: sum(seen[i] == v for i in mine) for v in _VERDICTS}
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        print(f"{doing} {len(mine)} episodes" + (f": {told}: {_numbers(mine)}" if mine else ""))
    blank = sorted(set(seen) - set(verdicts))
    if blank:
        print(f"{len(blank)} of them have no verdict and count as unknown: {_numbers(blank)}")
    if args.dry_run:
        return 0
    copy.run()
    for name in copy.left_out:
        print(f"left out: {name}: may speak of episodes by their old numbers")
    print(f"{args.export}: {len(plan.kept)} episodes")
    return 0


def _numbers(indices: Sequence[int]) -> str:
    """Numbers as spans: "0-3, 7"."""
    spans: list[list[int]] = []
    for index in indices:
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    told = [str(a) if a == b else f"{a}-{b}" for a, b in spans[:_SPANS]]
    return ", ".join([*told, "..."] if len(spans) > _SPANS else told)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ifailsense label",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "dataset", type=Path, metavar="DATASET", help="folder of a LeRobotDataset, v3.0 or v2.x"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="of the verdicts; default DATASET/ifailsense"
    )
    add_detector_arguments(parser)
    for name, what in (("exo", "exocentric"), ("gripper", "gripper")):
        text = f"the {what} camera; default: by the usual names"
        parser.add_argument(f"--{name}", metavar="KEY", help=text)
    parser.add_argument("--no-montages", action="store_true", help="keep no pictures")
    work = parser.add_argument_group("where it runs")
    work.add_argument("--workers", type=int, metavar="N", help="processes; default one a core")
    work.add_argument("--threads", type=int, default=1, metavar="N", help="of each process")
    work.add_argument("--ray", metavar="ADDRESS", help="spread over a Ray cluster")
    work.add_argument("--gpus", type=float, default=0.0, metavar="SHARE", help="of each worker")
    copies = parser.add_argument_group("copies of the data set")
    copies.add_argument("--export", type=Path, metavar="NEW", help="write a labelled copy there")
    verdicts = f"of {', '.join(_VERDICTS)}; several with commas"
    copies.add_argument("--keep", type=_verdicts, metavar="VERDICT", help=f"only these: {verdicts}")
    copies.add_argument("--drop", type=_verdicts, metavar="VERDICT", help=f"not these: {verdicts}")
    copies.add_argument(
        "--no-column", action="store_true", help="filter only: add no labels to the copy"
    )
    copies.add_argument(
        "--replace-labels",
        action="store_true",
        help="put the verdicts where the data set has labels of its own",
    )
    copies.add_argument(
        "--link", action="store_true", help="hard links instead of copies of whole videos"
    )
    copies.add_argument(
        "--dry-run",
        action="store_true",
        help="judge and write nothing: say what would be kept and dropped",
    )
    return parser


def _verdicts(text: str) -> frozenset[str]:
    words = frozenset(text.lower().split(","))
    if not words or words - set(_VERDICTS):
        raise argparse.ArgumentTypeError(f"{text!r}: give {', '.join(_VERDICTS)}, with commas")
    return words
