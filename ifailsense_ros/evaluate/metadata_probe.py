"""Can a failure be told from its twin without looking? ``ifailsense data probe --data DIR``

A logistic regression sees numbers about an episode, never a picture, and is judged on pairs it was
not fitted to (DESIGN section 9, rule 4). Three sets of numbers must stay at chance:

- ``timing``: duration, number of states, stamps of the keyframes;
- ``start``: brightness and JPEG size of the first pictures, before anything has happened;
- ``exo``: duration, mean brightness and file size of the exocentric pictures.

Two more are looked at, and not held to chance, since they carry what truly happened: a block in the
hand fills the wrist camera, and flat colour makes small files.

- ``both``: as ``exo``, over both cameras;
- ``per_picture``: brightness and size of every picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binomtest

from ifailsense_ros.core.errors import DataError, IFailSenseError
from ifailsense_ros.data.episode_store import EpisodeRow, read_episodes
from ifailsense_ros.data.failure_classes import CONTROL_FAILURES, FAILURE_CLASSES
from ifailsense_ros.data.records import EXPERT

AT_CHANCE = ("timing", "start", "exo")
"""The sets of numbers that must not tell."""

FEATURES = (*AT_CHANCE, "both", "per_picture")
ALL_CONTROL = "control failures"
_FOLDS = 5
_PENALTY = 1.0


def features_of(row: EpisodeRow) -> dict[str, list[float]]:
    """The numbers of an episode, by set.

    Raises:
        DataError: stored without pictures, or with broken ones.
    """
    pictures = row.decode_images()  # (N, T, H, W, 3)
    brightness = pictures.mean(axis=(2, 3, 4))
    sizes = np.array([len(data) for data in row.images], float).reshape(brightness.shape)
    return {
        "timing": [row.duration_s, len(row.states), *row.stamps_ns],
        "start": [*brightness[:, 0], *sizes[:, 0]],
        "exo": [row.duration_s, float(brightness[0].mean()), float(sizes[0].sum())],
        "both": [row.duration_s, float(brightness.mean()), float(sizes.sum())],
        "per_picture": [*brightness.ravel(), *sizes.ravel()],
    }


@dataclass(frozen=True)
class ProbeResult:
    """How often a probe was right, on pairs it was not fitted to.

    Attributes:
        right, total: episodes.
        accuracy: 0.5 is chance.
        interval: 95 percent, Wilson.
    """

    right: int
    total: int

    @property
    def accuracy(self) -> float:
        return self.right / self.total

    @property
    def interval(self) -> tuple[float, float]:
        found = binomtest(self.right, self.total).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


def _fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights (d + 1,) of a logistic regression with a ridge penalty; the last is the offset."""
    signs = 2 * y - 1.0

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (x @ w[:-1] + w[-1])
        pull = -signs * expit(-margins)
        value = np.logaddexp(0.0, -margins).sum() + 0.5 * _PENALTY * (w[:-1] @ w[:-1])
        return value, np.append(x.T @ pull + _PENALTY * w[:-1], pull.sum())

    return minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x


def probe(x: np.ndarray, failed: np.ndarray, pair: np.ndarray, seed: int = 0) -> ProbeResult:
    """Cross-validated accuracy of telling failures from their twins.

    Args:
        x: numbers (n, d).
        failed: bool (n,).
        pair: int (n,), the same for a failure and its twin: both are fitted to, or neither.
        seed: of the folds.

    Raises:
        DataError: fewer pairs than folds.
    """
    pairs = np.unique(pair)
    if len(pairs) < _FOLDS:
        raise DataError(f"{len(pairs)} pairs are too few for a probe: record at least {_FOLDS}")
    fold_of = dict(
        zip(np.random.default_rng(seed).permutation(pairs), np.arange(len(pairs)) % _FOLDS,
            strict=True)
    )  # fmt: skip
    folds = np.array([fold_of[p] for p in pair])
    right = 0
    for fold in range(_FOLDS):
        seen, held = folds != fold, folds == fold
        mean, spread = x[seen].mean(axis=0), x[seen].std(axis=0)
        scaled = (x - mean) / np.where(spread > 1e-9, spread, 1.0)
        w = _fit(scaled[seen], failed[seen].astype(float))
        says = scaled[held] @ w[:-1] + w[-1] > 0
        right += int((says == failed[held]).sum())
    return ProbeResult(right, len(failed))


def _pairs_of(rows: Iterable[EpisodeRow]) -> dict[str, list[tuple[dict, bool, int]]]:
    """Features, label and pair number of every failure and its twin, by class."""
    twins: dict[tuple[str, int, int], dict] = {}
    failures: list[tuple[str, tuple[str, int, int], dict]] = []
    for row in rows:
        key = (row.split, row.index, row.attempt)
        numbers = features_of(row)
        if row.kind == EXPERT:
            twins[key] = numbers
        else:
            failures.append((row.kind, key, numbers))
    found = defaultdict(list)
    for number, (kind, key, numbers) in enumerate(failures):
        if key not in twins:
            raise DataError(
                f"{'/'.join(map(str, key))}: the {kind} has no successful twin beside it"
            )
        found[kind] += [(twins[key], False, number), (numbers, True, number)]
    return found


def probe_failures(rows: Iterable[EpisodeRow]) -> dict[str, dict[str, ProbeResult]]:
    """The probe on every class of a failure set, and on all six control failures together.

    Returns:
        class (or `ALL_CONTROL`) -> set of numbers -> result.

    Raises:
        DataError: no failures, one without its twin, or too few of a class.
    """
    found = _pairs_of(rows)
    if not found:
        raise DataError("no failures in the store: give one of `ifailsense sim record-failures`")
    groups = {kind: found[kind] for kind in FAILURE_CLASSES if kind in found}
    control = [entry for kind in CONTROL_FAILURES for entry in found.get(kind, [])]
    if control:
        groups[ALL_CONTROL] = control
    return {name: _probe_sets(entries) for name, entries in groups.items()}


def _probe_sets(entries: Sequence[tuple[dict, bool, int]]) -> dict[str, ProbeResult]:
    failed = np.array([failed for _, failed, _ in entries])
    pair = np.array([number for _, _, number in entries])
    return {
        name: probe(np.array([numbers[name] for numbers, _, _ in entries]), failed, pair)
        for name in FEATURES
    }


def main(argv: list[str] | None = None) -> int:
    """Command line; returns 1 where numbers tell that must not.

    A single control failure is not held to chance by itself: of so many intervals one in twenty
    lies above it anyway.
    """
    parser = argparse.ArgumentParser(
        prog="ifailsense data probe", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="store with failures and twins")
    parser.add_argument("--split", help="only this split")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    args = parser.parse_args(argv)
    try:
        results = probe_failures(read_episodes(args.data, args.split))
    except IFailSenseError as error:
        print(f"ifailsense data probe: {error}", file=sys.stderr)
        return 2
    print(f"{'class':27}{'pairs':>6}" + "".join(f"{name:>24}" for name in FEATURES))
    for name, by_set in results.items():
        cells = "".join(
            f"{r.accuracy:>10.3f} ({r.interval[0]:.3f}-{r.interval[1]:.3f})"
            for r in by_set.values()
        )
        print(f"{name:27}{by_set['timing'].total // 2:6}{cells}")
    if args.out is not None:
        table = {
            name: {
                s: {"accuracy": r.accuracy, "interval_95": r.interval, "episodes": r.total}
                for s, r in by_set.items()
            }
            for name, by_set in results.items()
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(table, indent=1) + "\n")
    tell = [
        f"{name} by {s}"
        for name, by_set in results.items()
        for s in AT_CHANCE
        if name not in CONTROL_FAILURES and by_set[s].interval[0] > 0.5
    ]
    if tell:
        print(f"told above chance: {', '.join(tell)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
