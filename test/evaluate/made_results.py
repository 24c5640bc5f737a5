"""Made-up results that look like real ones: random verdicts by two detectors on random episodes.

    PYTHONPATH=. python test/evaluate/made_results.py FOLDER [EPISODES]

writes a results folder with the episodes of `bags/demo`, over and over: only verdicts are made up.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import yaml

from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.core.verdict import Outcome, Reason
from ifailsense_ros.data.failure_classes import FAILURE_CLASSES
from ifailsense_ros.data.readers import open_reader
from ifailsense_ros.data.records import Problem
from ifailsense_ros.evaluate.results import MONTAGES, Result, write_problems, write_results

DETECTORS = ("sim-tiny-0f3a9c12", "sim-tiny-base-77d0e4b1")
CATEGORIES = ("lifting", "lighting", "opening_closing", "placing", "pushing", "rotating")
_KINDS = (*FAILURE_CLASSES, "semantic", "semantic", "semantic")
_VERBS = ("lift", "push", "turn", "open")
_SKILL = (2.2, 0.9)
_SECOND = 10**9


class Scene(NamedTuple):
    """What an episode is about: instruction, whether it was carried out, category, kind."""

    instruction: str
    success: bool
    category: str
    kind: str


def made_results(
    count: int = 60,
    seed: int = 0,
    detectors: tuple[str, ...] = DETECTORS,
    scenes: Sequence[Scene] = (),
) -> list[Result]:
    """Rows of episodes of which half are successes, a few without a label or a verdict.

    Args:
        count: episodes.
        seed: of everything random.
        detectors: the first is better than the second.
        scenes: take turns; none: made up as well.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        success = bool(rng.random() < 0.5)
        made = Scene(
            f"{_VERBS[i % 4]} the red block, way {i}",
            success,
            CATEGORIES[i % len(CATEGORIES)],
            "expert" if success else str(rng.choice(_KINDS)),
        )
        scene = scenes[i % len(scenes)] if scenes else made
        success = scene.success
        hard = rng.normal() * 0.9
        label = None if rng.random() < 0.04 else success
        for k, detector in enumerate(detectors):
            logit = _SKILL[k % 2] * (1 if success else -1) + hard + rng.normal() * 1.2
            votes = logit + rng.normal(size=4)
            p = 1 / (1 + math.exp(-logit))
            row = Result(
                detector=detector,
                path=f"bags/session_{i // 20}",
                key=f"episode_{i:04d}",
                instruction=scene.instruction,
                label=label,
                category=scene.category,
                kind=scene.kind,
                task=f"{scene.category}_red_block",
                outcome=int(Outcome.SUCCESS if p > 0.5 else Outcome.FAILURE),
                reason=0,
                detail="",
                p_success=p,
                sources=("fs:2", "fs:4", "fs:6", "vlm"),
                votes=tuple(int(v > 0) for v in votes),
                p_votes=tuple(float(1 / (1 + math.exp(-v))) for v in votes),
                weights=(1.0, 1.0, 1.0, 2.0),
                montage="",
                start_ns=i * 10 * _SECOND,
                end_ns=i * 10 * _SECOND + int(rng.integers(3, 9)) * _SECOND,
                group=f"scene {i // 2}",
            )
            if rng.random() < 0.05:
                reason, detail = (
                    (Reason.LOW_CONFIDENCE, "SUCCESS with p_success 0.61 is not sure enough")
                    if rng.random() < 0.7
                    else (Reason.CAMERA_STALE, "gripper: no picture for 2.1 s")
                )
                row = replace(
                    row,
                    outcome=int(Outcome.UNKNOWN),
                    reason=int(reason),
                    detail=detail,
                    p_success=math.nan,
                )
            rows.append(row)
    return rows


def write_folder(folder: Path, rows: list[Result], pictures: list[np.ndarray]) -> Path:
    """A results folder in which the pictures (RGB) take turns."""
    (folder / MONTAGES).mkdir(parents=True, exist_ok=True)
    keys = list(dict.fromkeys((row.path, row.key) for row in rows))
    for number in range(len(keys) if pictures else 0):
        bgr = pictures[number % len(pictures)][..., ::-1]
        cv2.imwrite(str(folder / MONTAGES / f"{number:05d}.jpg"), bgr)
    if pictures:
        place = {key: f"{MONTAGES}/{n:05d}.jpg" for n, key in enumerate(keys)}
        rows = [replace(row, montage=place[row.path, row.key]) for row in rows]
    write_results(folder, rows, {"command": "made up", "detectors": sorted({*DETECTORS})})
    write_problems(
        folder,
        [
            Problem("bags/session_9", "ends in the middle of a message; record it again"),
            Problem("labels.csv: line 14", "no episode session_7 episode_0200"),
        ],
    )
    return folder


def demo_episodes(bags: Path, cell: int = 84) -> list[tuple[Scene, np.ndarray]]:
    """Truth and montage (RGB) of each demo bag's episode."""
    geometry = MontageGeometry(2, 4, cell, cell)
    found = []
    for bag in sorted(bags.iterdir()):
        truth = yaml.safe_load((bag / "truth.yaml").read_text("utf-8"))
        success = truth["truth"] == "success"
        kind = "expert" if success else truth["kind"].replace("semantic_misalignment", "semantic")
        record = next(iter(open_reader(f"rosbag:{bag}")))
        scene = Scene(truth["instruction"], success, truth["category"], kind)
        found.append((scene, compose(record.episode(4, 2), geometry)))
    return found


def main(argv: list[str]) -> None:
    """Write the folder that is named."""
    folder, count = Path(argv[0]), int(argv[1]) if len(argv) > 1 else 60
    scenes, pictures = zip(*demo_episodes(Path("bags/demo")), strict=True)
    write_folder(folder, made_results(count, scenes=scenes), list(pictures))


if __name__ == "__main__":
    main(sys.argv[1:])
