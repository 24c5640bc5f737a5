"""`ifailsense train fs`: re-train a checkpoint's FS blocks on your own labelled episodes.

    ifailsense train fs --data my_bags --labels labels.csv --checkpoint sim-tiny --out runs/mine

The vision-language model stays as it is; only the small classifiers on its hidden layers learn (the
paper's minimal post-training). A part of the episodes, no group of them split, is held out: figures
on it are printed, before and after. Stopped (Ctrl-C) it goes on where it was when the same command
is given again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ifailsense_ros.core.errors import ConfigError

if TYPE_CHECKING:
    from ifailsense_ros.train.own import OwnSettings


def main(argv: Sequence[str] | None = None) -> int:
    """Command line.

    Returns:
        0, 1 if episodes were left out, or 130 after Ctrl-C.

    Raises:
        CheckpointError, ConfigError, DataError: a mistake in what the user gave.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    settings = _settings(args)
    from tqdm import tqdm

    from ifailsense_ros.annotate.episodes import Episodes, labelled
    from ifailsense_ros.core.checkpoint import CheckpointConfig
    from ifailsense_ros.evaluate.metrics import summary
    from ifailsense_ros.model.device import choose_dtype, set_threads
    from ifailsense_ros.model.hub import find_checkpoint
    from ifailsense_ros.train import compute
    from ifailsense_ros.train.loop import Interrupted
    from ifailsense_ros.train.own import retrain
    from ifailsense_ros.train.own_card import figures_table
    from ifailsense_ros.train.own_data import Given
    from ifailsense_ros.train.provenance import command_of

    set_threads(args.threads)
    checkpoint = find_checkpoint(args.checkpoint)
    device = compute.set_up(args.precision, folder=args.out).device
    montage = CheckpointConfig.from_json(checkpoint).montage
    found = Episodes(args.data, labels=args.labels, num_pov=montage.num_pov)
    try:
        made = retrain(
            checkpoint,
            (Given(*one) for one in labelled(tqdm(found, desc="read", unit="episode"))),
            args.out,
            settings,
            summary,
            dtype=choose_dtype("auto", device),
            command=command_of(["fs", *argv]),
        )
    except Interrupted as stop:
        print(f"ifailsense train fs: {stop}", file=sys.stderr)
        return 130
    problems = [*found.problems, *made.problems]
    for problem in problems:
        print(f"left out: {problem.where}: {problem.what}", file=sys.stderr)
    print(figures_table(made.figures))
    print(f"\n{made.config.model_id} in {made.folder}")
    if made.config.calibration is not None and made.config.calibration.guard is None:
        print("too few labels for a guard: pictures unlike these are judged as well")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ifailsense train fs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="PATH",
        help="bags, folders of bags, LeRobot data sets, or name:path of a reader",
    )
    parser.add_argument(
        "--labels", type=Path, help="made by `ifailsense annotate`; default: what the data say"
    )
    parser.add_argument(
        "--checkpoint", default="sim-tiny", help="packaged checkpoint, a folder, or hub:..."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--held-out", type=float, default=0.25, metavar="SHARE")
    parser.add_argument(
        "--validation",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="chooses the step, calibrates",
    )
    parser.add_argument(
        "--by-episode", action="store_true", help="split within sessions: the figures flatter"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="begin with untrained blocks (hundreds of labels)"
    )
    parser.add_argument(
        "--no-wrong-instructions",
        action="store_true",
        help="do not ask about successes with the instruction of another task as well",
    )
    parser.add_argument("--steps", type=int, help="at most; default 400, --fresh 1600")
    parser.add_argument("--lr", type=float, help="default 2e-4, --fresh 2e-3")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--precision", default="auto", choices=("auto", "bf16", "fp32"))
    parser.add_argument("--threads", type=int, help="default: as many as PyTorch takes")
    return parser


def _settings(args: argparse.Namespace) -> OwnSettings:
    """The settings that the arguments ask for.

    Raises:
        ConfigError: a number outside its range.
    """
    for name, value, least in (
        ("--steps", args.steps, 1),
        ("--threads", args.threads, 1),
        ("--seed", args.seed, 0),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{name} {value}: must be at least {least}")
    if args.lr is not None and not args.lr > 0:
        raise ConfigError(f"--lr {args.lr}: must be above 0")
    train = 1 - args.held_out - args.validation
    if not min(args.held_out, args.validation, train) > 0:
        raise ConfigError(
            f"--held-out {args.held_out} --validation {args.validation}: both must be above 0, and "
            "leave something to train on"
        )
    from ifailsense_ros.train.own import OwnSettings

    return OwnSettings(
        shares=(train, args.validation, args.held_out),
        fresh=args.fresh,
        misaligned=not args.no_wrong_instructions,
        by_episode=args.by_episode,
        steps=args.steps,
        lr=args.lr,
        seed=args.seed,
    )
