"""`ifailsense data build|show|check`: data sets for semantic misalignment failures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ifailsense_ros.core.errors import ConfigError


def build(argv: Sequence[str]) -> int:
    """Pair expert episodes with right and wrong instructions."""
    parser = argparse.ArgumentParser(prog="ifailsense data build", description=build.__doc__)
    parser.add_argument(
        "--from",
        dest="sources",
        action="append",
        required=True,
        metavar="NAME:PATH",
        help="a source, as in store:data/train or calvin:task_D_D; can be given several times",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--seed", type=int, default=0, help="of splits and pairs")
    splits = parser.add_mutually_exclusive_group()
    splits.add_argument(
        "--split", metavar="NAME=SHARE,...", help="as in train=0.8,validation=0.1,test=0.1"
    )
    splits.add_argument("--as-split", metavar="NAME", help="everything in one split")
    parser.add_argument("--keyframes", type=int, default=4, help="T")
    parser.add_argument("--pov", type=int, default=2, help="N: 1 exocentric, 2 gripper as well")
    parser.add_argument("--size", type=int, default=224, help="pixels of a stored picture")
    parser.add_argument("--keep-going", action="store_true", help="list problems, do not stop")
    parser.add_argument(
        "--experts",
        action="store_true",
        help="episodes without a label are successes; where no task is named, each instruction is "
        "a task of its own",
    )
    parser.add_argument(
        "--balance",
        action="store_true",
        help="leave out what keeps a task from being asked for equally often with either label",
    )
    parser.add_argument(
        "--infeasible", action="store_true", help="add infeasible negatives, which do not count"
    )
    parser.add_argument(
        "--unfiltered",
        action="store_true",
        help="add negatives drawn without oracle and feasibility, which do not count",
    )
    parser.add_argument(
        "--test-phrasings",
        type=int,
        default=0,
        metavar="N",
        help="keep N sentences of each task for the test split, where a source has not done so",
    )
    parser.add_argument("--licence", default="", help="of the data, for the data card")
    args = parser.parse_args(argv)
    for name, least in (("keyframes", 1), ("pov", 1), ("size", 1), ("test_phrasings", 0)):
        if (value := getattr(args, name)) < least:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} {value}: must be at least {least}")

    from ifailsense_ros.data.build import BuildSettings
    from ifailsense_ros.data.build import build as build_data_set
    from ifailsense_ros.data.pairs import PairSettings
    from ifailsense_ros.data.sinks import Shape
    from ifailsense_ros.data.splits import Shares

    shares = None
    if args.split is not None:
        shares = Shares.parse(args.split)
    elif args.as_split is not None:
        shares = Shares.whole(args.as_split)
    settings = BuildSettings(
        sources=tuple(args.sources),
        shares=shares,
        shape=Shape(args.keyframes, args.pov, args.size),
        pairs=PairSettings(
            seed=args.seed,
            balance=args.balance,
            infeasible=args.infeasible,
            unfiltered=args.unfiltered,
            test_phrasings=args.test_phrasings,
        ),
        keep_going=args.keep_going,
        experts=args.experts,
        licence=args.licence,
    )
    command = ["ifailsense", "data", "build", *argv]
    data = build_data_set(settings, args.out, command)
    summary = data.summary
    counted = sum(1 for _ in data.rows(counted=True))
    print(f"{args.out}: {counted} pairs that count, of {summary['pairs']}")
    if summary["problems"]:
        print(f"{summary['problems']} problems: see {args.out / 'problems.parquet'}")
    print(f"manifest.parquet {summary['sha256']['manifest.parquet']}")
    return 0


def show(argv: Sequence[str]) -> int:
    """Print counts, and write the data card and a contact sheet."""
    parser = argparse.ArgumentParser(prog="ifailsense data show", description=show.__doc__)
    parser.add_argument("data", type=Path, help="folder of the data set")
    parser.add_argument("--out", type=Path, help="folder for card.md and sheet.png; default: DATA")
    parser.add_argument("--no-sheet", action="store_true", help="numbers only")
    args = parser.parse_args(argv)

    from ifailsense_ros.data.card import write_card
    from ifailsense_ros.data.manifest import DataSet

    out = args.out or args.data
    print(write_card(DataSet(args.data), out, with_sheet=not args.no_sheet))
    print(f"written to {out}")
    return 0


def check(argv: Sequence[str]) -> int:
    """Check hashes, leaks between splits, balance, labels and pictures; 1 if a rule is broken."""
    parser = argparse.ArgumentParser(prog="ifailsense data check", description=check.__doc__)
    parser.add_argument("data", type=Path, nargs="+", help="folders, seen as one data set")
    parser.add_argument("--no-pictures", action="store_true", help="do not decode the pictures")
    parser.add_argument(
        "--shared-phrasings",
        action="store_true",
        help="test instructions may occur in training, as in the paper",
    )
    args = parser.parse_args(argv)

    from ifailsense_ros.data.checks import check as check_data_sets

    findings = check_data_sets(
        args.data, pictures=not args.no_pictures, shared_phrasings=args.shared_phrasings
    )
    broken = 0
    for finding in findings:
        broken += not finding.kept
        print(f"{'ok  ' if finding.kept else 'FAIL'}  {finding.rule:15} {finding.detail}")
    return 1 if broken else 0
