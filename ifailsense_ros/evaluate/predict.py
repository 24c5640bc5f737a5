"""What a checkpoint says of every pair of a data set, kept for all later figures.

    ifailsense predict --detector sim-tiny --data data/smf --split dev --out dev.parquet

As in the node, pictures unlike any in training are UNKNOWN, which every accuracy counts as wrong;
`--no-guard` judges them all the same. Stopped and given again, it goes on behind the last finished
shard. Opening a test split is noted in `docs/results/opened.csv` (DESIGN 9.7: test once). With
`--phrasings-of TRAIN` the same pairs are asked in the words of the training split, as in the paper.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ifailsense_ros import __version__
from ifailsense_ros.core.errors import IFailSenseError
from ifailsense_ros.data.ablation import ABLATIONS, Ablation
from ifailsense_ros.data.smf import Phrasings
from ifailsense_ros.evaluate.asked import AskedSet, phrasings_of
from ifailsense_ros.evaluate.predictions import (
    BatchDetector,
    Prediction,
    predict_shard,
    read_predictions,
    said_as,
    shown_to,
    write_predictions,
)

TEST = "test"
OPENED = Path("docs/results/opened.csv")
OPENED_COLUMNS = ("date", "checkpoint", "data", "data_hash", "ablation", "phrasings", "command")
OWN, SHARED = "own", "shared"


def meta_of(
    detector: BatchDetector,
    asked: AskedSet,
    ablation: Ablation,
    phrasings: str,
    command: Sequence[str],
) -> dict[str, Any]:
    """How predictions are made: enough to say what a figure is about, and to make it again.

    Args:
        detector: that judges.
        asked: the pairs.
        ablation: what the detector is not shown.
        phrasings: `OWN`, or `SHARED` and where they are from; and how they are said, if otherwise.
        command: how it was called.
    """
    config = detector.config
    guard = None if config.calibration is None else config.calibration.guard
    return {
        "checkpoint": detector.model_id,
        "checkpoint_hash": config.short_hash,
        "training_data_hash": config.training_data_hash,
        "data": asked.name,
        "data_hash": asked.hash,
        "generators": list(asked.generators),
        "split": asked.split,
        "every_pair": asked.every_pair,
        "ablation": ablation.name,
        "phrasings": phrasings,
        "montage": asdict(config.montage),
        "hooked_layers": list(config.hooked_layers),
        "abstain_rule": config.abstain_rule,
        "guard": getattr(detector, "is_guarded", False),
        "guard_threshold": None if guard is None else guard.threshold,
        "release": __version__,
        "command": shlex.join(command),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def predict_to(
    path: str | Path,
    detector: BatchDetector,
    asked: AskedSet,
    *,
    ablation: Ablation | None = None,
    phrasings: Phrasings | None = None,
    shared_from: str = "",
    say: str | None = None,
    command: Sequence[str] = (),
    opened: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Judge a whole split into one file, or finish a run that was stopped.

    Args:
        path: parquet file to make.
        detector: judges in this thread.
        asked: the pairs.
        ablation: None: what the checkpoint was trained for.
        phrasings: other words to ask in, from `shared_from`.
        say: frame that each sentence is put in (`predictions.said_as`).
        command: for the record.
        opened: list in which the opening of a test split is noted; None: nowhere.
        progress: whether to draw a bar.

    Returns:
        What is written beside the rows.
    """
    path = Path(path)
    shown = shown_to(detector, ablation)
    words = OWN if phrasings is None else f"{SHARED} from {shared_from}"
    if say is not None:
        words = f"{words}, said as {say!r}"
    meta = meta_of(detector, asked, shown, words, command)
    parts = path.with_name(f"{path.name}.parts")
    # Going on with a run that was stopped opens nothing anew.
    if opened is not None and asked.split == TEST and not parts.exists():
        note_opening(opened, meta)
    total = asked.pair_count()
    done: list[Path] = []
    with tqdm(
        total=total, desc=f"judge {asked.name} {asked.split}", unit="pair", disable=not progress
    ) as bar:
        for number, shard in enumerate(asked.shards()):
            part = parts / f"{number:05d}.parquet"
            if not _is_of(part, meta):
                rows = predict_shard(detector, shard, shown, phrasings, say, bar)
                write_predictions(part, rows, meta)
            else:
                bar.update(len(read_predictions(part)[0]))
            done.append(part)
    write_predictions(path, _joined(done), meta)
    shutil.rmtree(parts)
    return meta


def _joined(parts: Sequence[Path]) -> Iterator[Prediction]:
    for part in parts:
        yield from read_predictions(part)[0]


def _is_of(part: Path, meta: Mapping[str, Any]) -> bool:
    """Whether a part was made by the same detector on the same data in the same way."""
    if not part.exists():
        return False
    changing = ("date", "command")
    _, found = read_predictions(part)
    return {k: v for k, v in found.items() if k not in (*changing, "format")} == {
        k: v for k, v in meta.items() if k not in changing
    }


def note_opening(path: Path, meta: Mapping[str, Any]) -> None:
    """Add a line to the list of openings of test splits, which people commit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        if fresh:
            out.writerow(OPENED_COLUMNS)
        out.writerow([meta[name] for name in OPENED_COLUMNS])


def default_log(out: Path) -> Path:
    """`OPENED` where the command runs in a checkout, else beside the output."""
    return OPENED if OPENED.parent.is_dir() else out.parent / OPENED.name


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="ifailsense predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--detector", default="sim-tiny", help="checkpoint, or baseline:...")
    parser.add_argument("--data", type=Path, required=True, help="data set or episode store")
    parser.add_argument("--split", required=True, help="train, validation, dev or test")
    parser.add_argument("--out", type=Path, required=True, help="parquet file to make")
    parser.add_argument(
        "--ablation", choices=ABLATIONS, help="default: what a control was trained with, or none"
    )
    parser.add_argument("--phrasings-of", type=Path, help="data whose train split lends its words")
    parser.add_argument(
        "--say",
        metavar="FRAME",
        help="how each sentence is said, e.g. 'Could you {instruction}?' or '{Instruction}.'",
    )
    parser.add_argument("--every-pair", action="store_true", help="also pairs that do not count")
    parser.add_argument(
        "--opened-log", type=Path, help=f"list of openings of test splits; default {OPENED}"
    )
    parser.add_argument(
        "--no-guard",
        action="store_true",
        help="judge pictures unlike any in training as well; their distance is kept in any case",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(arguments)
    from ifailsense_ros.evaluate.baselines.load import open_detector

    try:
        if args.say is not None:
            said_as("", args.say)  # a mistake is said now
        asked = AskedSet(args.data, args.split, every_pair=args.every_pair)
        shared = None if args.phrasings_of is None else phrasings_of(args.phrasings_of)
        detector = open_detector(
            args.detector, args.device, num_threads=args.threads, guard=not args.no_guard
        )
        meta = predict_to(
            args.out,
            detector,
            asked,
            ablation=None if args.ablation is None else Ablation(args.ablation),
            phrasings=shared,
            shared_from="" if args.phrasings_of is None else args.phrasings_of.name,
            say=args.say,
            command=["ifailsense", "predict", *arguments],
            opened=args.opened_log or default_log(args.out),
        )
    except IFailSenseError as error:
        print(f"ifailsense predict: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ifailsense predict: stopped; the same command goes on", file=sys.stderr)
        return 130
    print(json.dumps(meta, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
