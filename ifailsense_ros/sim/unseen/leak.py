"""Does the first frame tell the task? ``python -m ifailsense_ros.sim.unseen.leak --data DIR``.

A ridge regression on shrunk pictures guesses, scene by scene, which of the two opposite tasks was
performed; each episode is guessed by a regression that has not seen it. From the first frame that
must be no better than with shuffled labels; from the last frame it must be, or the probe is blind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ifailsense_ros.core.errors import DataError, IFailSenseError
from ifailsense_ros.data.episode_store import EpisodeRow, read_episodes
from ifailsense_ros.data.records import EXPERT

from .tasks import PAIRS, TASKS

SIDE = 16
_FOLDS = 5
_SHUFFLES = 200


@dataclass(frozen=True)
class Probe:
    """How often the probe was right.

    Attributes:
        right, total: episodes, by scene.
        chance: lowest and highest accuracy over all scenes of the middle 95 % of shuffles.
    """

    right: dict[str, int]
    total: dict[str, int]
    chance: tuple[float, float]

    @property
    def accuracy(self) -> float:
        return sum(self.right.values()) / sum(self.total.values())


def features(row: EpisodeRow, keyframe: int) -> np.ndarray:
    """All PoV of one keyframe, shrunk to `SIDE`, float64 (N * SIDE * SIDE * 3,)."""
    views = row.decode_images()[:, keyframe]
    small = [cv2.resize(view, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for view in views]
    return np.concatenate([picture.ravel() for picture in small]) / 255.0


def _guesses(kernel: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Held-out guesses (n, k) in -1..1 of ridge regressions on labels (n, k) of +1 and -1."""
    out = np.zeros_like(labels)
    for fold in np.unique(folds):
        seen, held = folds != fold, folds == fold
        gram = kernel[np.ix_(seen, seen)]
        ridge = np.trace(gram) / len(gram) * np.eye(len(gram))
        mean = labels[seen].mean(axis=0)
        out[held] = mean + kernel[np.ix_(held, seen)] @ np.linalg.solve(
            gram + ridge, labels[seen] - mean
        )
    return out


def probe(rows: Iterable[EpisodeRow], keyframe: int, seed: int = 0) -> Probe:
    """Guess the tasks of expert episodes from one keyframe.

    Args:
        rows: of a store; others than experts are passed over.
        keyframe: index of it; -1 is the last.
        seed: of folds and shuffles.

    Raises:
        DataError: no scene has at least two episodes a fold.
    """
    by_scene: dict[str, list[tuple[np.ndarray, float]]] = {scene: [] for scene in PAIRS}
    for row in rows:
        if row.kind == EXPERT and row.task in TASKS:
            by_scene[TASKS[row.task].scene].append((features(row, keyframe), TASKS[row.task].sign))
    rng = np.random.default_rng(seed)
    right: dict[str, int] = {}
    total: dict[str, int] = {}
    shuffled = np.zeros(_SHUFFLES)
    for scene, found in by_scene.items():
        if len(found) < 2 * _FOLDS:
            continue
        pixels = np.array([pixel for pixel, _ in found])
        pixels = (pixels - pixels.mean(axis=0)) / (pixels.std(axis=0) + 1e-3)
        truth = np.array([sign for _, sign in found])[:, None]
        labels = np.hstack([truth, *(rng.permutation(truth) for _ in range(_SHUFFLES))])
        folds = rng.permutation(len(found)) % _FOLDS
        hits = (_guesses(pixels @ pixels.T, labels, folds) > 0) == (labels > 0)
        right[scene], total[scene] = int(hits[:, 0].sum()), len(found)
        shuffled += hits[:, 1:].sum(axis=0)
    if not total:
        raise DataError(f"too few expert episodes of this world: {2 * _FOLDS} a scene are needed")
    low, high = np.quantile(shuffled / sum(total.values()), (0.025, 0.975))
    return Probe(right, total, (float(low), float(high)))


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 1 if the first frame tells the task."""
    parser = argparse.ArgumentParser(prog="leak", description=__doc__.split("\n\n")[1])
    parser.add_argument("--data", type=Path, required=True, help="store of the unseen world")
    parser.add_argument("--split", help="only this split")
    args = parser.parse_args(arguments)
    try:
        first = probe(read_episodes(args.data, args.split), 0)
        last = probe(read_episodes(args.data, args.split), -1)
    except IFailSenseError as error:
        print(f"leak: {error}", file=sys.stderr)
        return 2
    print("scene          episodes  first frame  last frame")
    for scene, total in first.total.items():
        shares = (first.right[scene] / total, last.right[scene] / total)
        print(f"{scene:15}{total:8}{shares[0]:13.2f}{shares[1]:12.2f}")
    total = sum(first.total.values())
    print(f"{'all':15}{total:8}{first.accuracy:13.3f}{last.accuracy:12.3f}")
    print(f"with shuffled labels, middle 95 %: {first.chance[0]:.3f} to {first.chance[1]:.3f}")
    return int(first.accuracy > first.chance[1])


if __name__ == "__main__":
    sys.exit(main())
