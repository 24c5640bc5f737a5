"""Figures of docs/calibration.md: what a calibrated checkpoint keeps of its promises on other data,
and what its guard refuses.

    python scripts/calibration_figures.py --checkpoint DIR --data DATASET --split dev
    python scripts/calibration_figures.py --checkpoint DIR --data DATASET --split validation \\
        --guard --episodes 20 --photos FOLDER

The second one spoils montages on purpose. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from ifailsense_ros.core.calibration import Limits, calibrated, reliability, sigmoid, vote_log_odds
from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.errors import IFailSenseError
from ifailsense_ros.core.montage import MontageGeometry, fit_cell
from ifailsense_ros.core.verdict import Judgement, Outcome
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.experts import ExpertSet, episode_of, with_keyframes
from ifailsense_ros.model.checkpoint import LoadedCheckpoint, load_checkpoint
from ifailsense_ros.model.detector import FailSenseDetector
from ifailsense_ros.train.calibrate import Measurements, measure
from ifailsense_ros.train.calibration_fits import scaled

RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
Cells = np.ndarray  # (N, T, h, w, 3) uint8, the views of an episode at cell size


def coverage(loaded: LoadedCheckpoint, found: Measurements) -> dict:
    """Error rates and UNKNOWNs at each promised rate, and the reliability before and after."""
    config = loaded.config
    degrees = config.calibration.temperatures
    weights = (*config.vote_weights.fs, config.vote_weights.vlm)
    odds = vote_log_odds(scaled(found.logits, degrees), weights)
    voted = found.outcomes != Outcome.UNKNOWN
    labels = found.labels
    out: dict = {
        "pairs": len(labels),
        "successes": int(labels.sum()),
        "vlm_abstained": int((~voted).sum()),
        "expected_calibration_error": {
            name: round(reliability(p[voted], labels[voted]).ece, 4)
            for name, p in (
                ("before", sigmoid(vote_log_odds(found.logits, weights))),
                ("after", sigmoid(odds / degrees.vote)),
            )
        },
        "log_loss": {
            name: round(reliability(p[voted], labels[voted]).log_loss, 4)
            for name, p in (
                ("before", sigmoid(vote_log_odds(found.logits, weights))),
                ("after", sigmoid(odds / degrees.vote)),
            )
        },
        "promises": [],
    }
    for rate in (None, *RATES):
        limits = Limits.of(loaded.calibration.scores, rate, rate)
        said = np.array(
            [
                calibrated(Judgement(Outcome(o), p_success=0.5), z, degrees.vote, limits).outcome
                for o, z in zip(found.outcomes, odds, strict=True)
            ]
        )
        out["promises"].append(
            {
                "rate": rate,
                "missed_failures": round(float((said[~labels] == Outcome.SUCCESS).mean()), 4),
                "false_alarms": round(float((said[labels] == Outcome.FAILURE).mean()), 4),
                "unknown": round(float((said == Outcome.UNKNOWN).mean()), 4),
            }
        )
    return out


# --- the guard ------------------------------------------------------------------------------------


def _each(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Cells], Cells]:
    def changed(cells: Cells) -> Cells:
        return np.stack([np.stack([change(view.copy()) for view in row]) for row in cells])

    return changed


def _blur(sigma: float) -> Callable[[Cells], Cells]:
    return _each(lambda view: cv2.GaussianBlur(view, (0, 0), sigma))


def _zoom(view: np.ndarray) -> np.ndarray:
    h, w = view.shape[:2]
    return cv2.resize(view[h // 5 : h - h // 5, w // 5 : w - w // 5], (w, h))


def _tilt(view: np.ndarray) -> np.ndarray:
    h, w = view.shape[:2]
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), 30, 1.0)
    return cv2.warpAffine(view, turn, (w, h), borderMode=cv2.BORDER_REFLECT)


def _cover(view: np.ndarray) -> np.ndarray:
    h, w = view.shape[:2]
    view[h // 4 : -h // 4, w // 4 : -w // 4] = 90
    return view


def _jpeg(view: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1)


def _scale(factor: float) -> Callable[[Cells], Cells]:
    return lambda cells: np.clip(cells * factor, 0, 255).astype(np.uint8)


def spoiled(rng: np.random.Generator) -> dict[str, Callable[[Cells], Cells]]:
    """Ways to spoil a montage's cells, by name; the last five are mild."""

    def shuffled(cells: Cells) -> Cells:
        flat = cells.reshape(-1, *cells.shape[2:])
        return flat[rng.permutation(len(flat))].reshape(cells.shape)

    return {
        "as it is": lambda c: c,
        "noise": lambda c: rng.integers(0, 256, c.shape, dtype=np.uint8),
        "one grey": lambda c: np.full_like(c, rng.integers(0, 256)),
        "cells shuffled": shuffled,
        "PoV exchanged": lambda c: c[::-1],
        "upside down": lambda c: c[:, :, ::-1],
        "mirrored": lambda c: c[:, :, :, ::-1],
        "columns shuffled (time)": lambda c: c[:, rng.permutation(c.shape[1])],
        "colours inverted": lambda c: 255 - c,
        "red and blue exchanged": lambda c: c[..., ::-1],
        "blurred, sigma 4 px": _blur(4),
        "blurred, sigma 2 px": _blur(2),
        "a quarter of the light": _scale(0.25),
        "gripper camera black": lambda c: np.stack([c[0], *np.zeros_like(c[1:])]),
        "middle covered": _each(_cover),
        "moved by a quarter": _each(lambda v: np.roll(v, v.shape[1] // 4, 1)),
        "zoomed in": _each(_zoom),
        "tilted by 30 degrees": _each(_tilt),
        "90 % of the light": _scale(0.9),
        "110 % of the light": _scale(1.1),
        "moved by 2 px": _each(lambda v: np.roll(v, 2, 1)),
        "blurred, sigma 0.5 px": _blur(0.5),
        "JPEG quality 50": _each(_jpeg),
    }


def photographs(folder: Path, shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[Cells]:
    """Each photograph of a folder as two cameras see it: as a whole and near, moving a little."""
    n, t, h, w = shape[:4]
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".jpg", ".png")):
        picture = cv2.imread(str(path))
        if picture is None or min(picture.shape[:2]) < 100:
            continue
        picture = picture[..., ::-1]
        rows = []
        for share in (0.9, 0.4)[:n]:
            side = int(share * min(picture.shape[:2]))
            room = np.array(picture.shape[:2]) - side
            corner = rng.integers(0, room + 1)
            views = []
            for _ in range(t):
                y, x = np.clip(corner + rng.integers(-4, 5, 2), 0, room)
                views.append(
                    fit_cell(
                        np.ascontiguousarray(picture[y : y + side, x : x + side]),
                        MontageGeometry(n, t, h, w),
                    )
                )
            rows.append(views)
        yield np.array(rows)


def refused(loaded: LoadedCheckpoint, episodes: list[Episode], photos: Path | None) -> dict:
    """How many spoiled montages the guard refuses, and how far they are."""
    detector = FailSenseDetector(loaded)
    guard, settings = loaded.calibration.guard, loaded.config.calibration.guard
    m = loaded.config.montage
    geometry = MontageGeometry(m.num_pov, m.num_keyframes, m.cell_height, m.cell_width)
    rng = np.random.default_rng(0)
    views = [
        np.stack([[fit_cell(k.views[n], geometry) for k in e.keyframes] for n in range(m.num_pov)])
        for e in episodes
    ]
    kinds: dict[str, list[Cells]] = {
        name: [change(v) for v in views] for name, change in spoiled(rng).items()
    }
    if photos is not None:
        kinds["photographs"] = list(photographs(photos, views[0].shape, rng))
    out = {"threshold": settings.threshold, "kinds": {}}
    for name, some in kinds.items():
        asked = [_episode(cells) for cells in some]
        distances = guard.distances(detector.cells_of(asked))
        out["kinds"][name] = {
            "montages": len(some),
            "refused": round(float((distances > settings.threshold).mean()), 3),
            "median_distance": round(float(np.median(distances)), 2),
        }
        print(name, out["kinds"][name], file=sys.stderr, flush=True)
    return out


def _episode(cells: Cells) -> Episode:
    frames = tuple(
        Keyframe(t, tuple(np.ascontiguousarray(view) for view in cells[:, t]))
        for t in range(cells.shape[1])
    )
    return Episode(None, "", frames, 0, len(frames))


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="calibrated")
    parser.add_argument("--data", type=Path, required=True, help="data set or episode store")
    parser.add_argument("--split", required=True)
    parser.add_argument("--episodes", type=int, default=10**9, help="only the first so many")
    parser.add_argument("--guard", action="store_true", help="the guard on spoiled montages")
    parser.add_argument("--photos", type=Path, help="folder of photographs for the guard")
    args = parser.parse_args()
    try:
        loaded = load_checkpoint(args.checkpoint)
        if loaded.calibration is None:
            raise IFailSenseError(f"{args.checkpoint} is not calibrated")
        asked = ExpertSet(args.data, args.split)
        asked.experts = asked.experts[: args.episodes]
        if args.guard:
            montage = loaded.config.montage
            episodes = [
                with_keyframes(episode_of(row, montage.num_pov), montage.num_keyframes)
                for index, row in asked.rows()
                if index < args.episodes
            ]
            figures = refused(loaded, episodes, args.photos)
        else:
            config = replace(loaded.config, calibration=None)
            raw = FailSenseDetector(replace(loaded, config=config, calibration=None))
            found = measure(raw, asked, Ablation())
            figures = coverage(loaded, found)
            if loaded.calibration.guard is not None:
                far = loaded.calibration.guard.distances(found.cells)
                limit = loaded.config.calibration.guard.threshold
                figures["refused_by_the_guard"] = round(float((far > limit).mean()), 4)
    except IFailSenseError as error:
        print(f"calibration_figures: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"checkpoint": loaded.config.model_id, **figures}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
