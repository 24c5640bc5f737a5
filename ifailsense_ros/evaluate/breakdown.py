"""The figures of a file of predictions, over all and by what the pairs are about.

ifailsense figures dev.parquet [--out dev.json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ifailsense_ros.core.errors import DataError, IFailSenseError
from ifailsense_ros.data.failure_classes import CONTROL_FAILURES, FAILURE_CLASSES
from ifailsense_ros.evaluate.asked import POSITIVE
from ifailsense_ros.evaluate.metrics import RESAMPLES, compare, summary
from ifailsense_ros.evaluate.predictions import Prediction, read_predictions
from ifailsense_ros.evaluate.votes import redecided, rules_of

ALL_CONTROL = "six control classes"
NO_CONTRAST = "none"


def figures(predictions: Sequence[Prediction], resamples: int = RESAMPLES) -> dict:
    """`metrics.summary` of the pairs that count, clustered by scene."""
    kept = [p for p in predictions if p.counted]
    return summary(
        [p.label for p in kept],
        [p.outcome for p in kept],
        [p.cluster for p in kept],
        resamples=resamples,
    )


def grouped(
    predictions: Iterable[Prediction],
    key: Callable[[Prediction], str],
    resamples: int = RESAMPLES,
) -> dict[str, dict]:
    """`figures` of each group of pairs, by name."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for p in predictions:
        groups[key(p)].append(p)
    return {name: figures(found, resamples) for name, found in sorted(groups.items())}


def contrast_name(p: Prediction) -> str:
    """In what the wrong instruction differs: "colour", "verb+direction", ..."""
    return "+".join(p.contrast) or NO_CONTRAST


def by_class(predictions: Sequence[Prediction], resamples: int = RESAMPLES) -> dict[str, dict]:
    """Each class of failure with its own twins, in the order of `FAILURE_CLASSES`, and the six
    control classes together.

    `failure_recall` is the detection rate, `false_alarms` are those on the twins.
    """
    of_cluster: dict[str, set[str]] = defaultdict(set)
    for p in predictions:
        if p.kind in FAILURE_CLASSES:
            of_cluster[p.cluster].add(p.kind)
    found = {}
    for name, kinds in (*((k, {k}) for k in FAILURE_CLASSES), (ALL_CONTROL, {*CONTROL_FAILURES})):
        kept = [
            p
            for p in predictions
            if p.kind in kinds or (p.kind == POSITIVE and of_cluster[p.cluster] & kinds)
        ]
        if any(p.kind in kinds for p in kept):
            found[name] = figures(kept, resamples)
    return found


def breakdown(predictions: Sequence[Prediction], resamples: int = RESAMPLES) -> dict:
    """All figures: over all pairs, by category, contrast, phrasing, failure class, way to vote."""
    found: dict = {
        "all": figures(predictions, resamples),
        "category": grouped(predictions, lambda p: p.category, resamples),
    }
    if any(p.contrast for p in predictions):
        found["contrast"] = grouped(predictions, contrast_name, resamples)
    if any(p.phrasing >= 0 for p in predictions):
        found["phrasing"] = grouped(predictions, lambda p: str(p.phrasing), resamples)
    if classes := by_class(predictions, resamples):
        found["failure_class"] = classes
    found["votes"] = {
        rule: figures(redecided(predictions, rule), resamples) for rule in rules_of(predictions)
    }
    return found


def compared(a: Sequence[Prediction], b: Sequence[Prediction]) -> dict:
    """`metrics.compare` of two detectors on the pairs that both judged.

    Raises:
        DataError: they judged none in common.
    """
    of_b = {p.pair_id: p for p in b if p.counted}
    both = [(p, of_b[p.pair_id]) for p in a if p.counted and p.pair_id in of_b]
    if not both:
        raise DataError("the two files of predictions have no pair in common")
    return compare([p.right for p, _ in both], [q.right for _, q in both],
                   [p.cluster for p, _ in both])  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ifailsense figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("predictions", type=Path, help="made by `ifailsense predict`")
    parser.add_argument("--against", type=Path, help="other predictions of the same pairs")
    parser.add_argument("--out", type=Path, help="JSON file, beside standard output")
    args = parser.parse_args(argv)
    try:
        found, meta = read_predictions(args.predictions)
        result = {"made": meta, **breakdown(found)}
        if args.against is not None:
            other, other_meta = read_predictions(args.against)
            result["against"] = {"made": other_meta, **compared(found, other)}
    except IFailSenseError as error:
        print(f"ifailsense figures: {error}", file=sys.stderr)
        return 2
    text = json.dumps(result, indent=1)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
