"""Look at episodes: ``ifailsense sim contact-sheet --split dev --out sheet.png``.

Each episode is its montage (rows: exocentric, wrist; columns: keyframes) at the cell size the
detector sees, enlarged without smoothing, under the instruction it carries out and the one it does
not. With ``--blind KEY.csv`` each stands under one of the two, by a coin, and which one is written
into the key: an exam for the eye.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import cv2
import numpy as np

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.keyframes import select_keyframes
from ifailsense_ros.core.montage import MontageGeometry, fit_cell

from .look import level_name
from .render import CAMERAS, Camera
from .robot import World
from .rollout import SPLITS, Rollout, Setup, simulate
from .tasks import TASKS

CELL = 84
NUM_KEYFRAMES = 4
_BAR = 20
_BLIND_SEED = 84


def montage_of(rollout: Rollout, camera: Camera, cell: int = CELL, zoom: int = 2) -> np.ndarray:
    """The montage of an episode, RGB (2 * cell * zoom, T * cell * zoom, 3)."""
    picks = select_keyframes([int(s) for s in rollout.stamps_ns], NUM_KEYFRAMES)
    geometry = MontageGeometry(len(CAMERAS), NUM_KEYFRAMES, cell, cell)
    rows = [
        np.hstack([fit_cell(picture, geometry) for picture in view])
        for view in camera.pictures(rollout.states[picks])
    ]
    size = (NUM_KEYFRAMES * cell * zoom, len(rows) * cell * zoom)
    return cv2.resize(np.vstack(rows), size, interpolation=cv2.INTER_NEAREST)


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture under a white bar with a line of text."""
    bar = np.full((_BAR, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(bar, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([bar, picture])


def exam_entry(setup: Setup) -> dict[str, str | int]:
    """One line of the key: what stands above the montage, and whether it was done."""
    coin = np.random.default_rng([_BLIND_SEED, setup.seed, SPLITS[setup.split], setup.index])
    done = bool(coin.integers(2))
    return {
        "index": setup.index,
        "asked": setup.instruction if done else setup.negative_instruction,
        "answer": "success" if done else "failure",
        "asked_task": (setup.task if done else setup.negative).name,
        "performed_task": setup.task.name,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ifailsense sim contact-sheet", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--split", default="dev", choices=sorted(SPLITS))
    parser.add_argument("--seed", type=int, default=0, help="base seed")
    parser.add_argument("--first", type=int, default=0, help="index of the first episode")
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--look", default="mild", help="fixed, mild or strong (or 0, 1, 2)")
    parser.add_argument("--columns", type=int, default=2)
    parser.add_argument("--zoom", type=int, default=2, help="picture pixels per pixel of a cell")
    parser.add_argument("--blind", type=Path, metavar="KEY.csv", help="an exam, and its key")
    parser.add_argument("--out", type=Path, required=True, help="PNG file")
    return parser


def _sheets(args: argparse.Namespace) -> tuple[list[np.ndarray], list[dict[str, str | int]]]:
    world = World()
    sheets, key = [], []
    with Camera(world) as camera:
        for index in range(args.first, args.first + args.episodes):
            rollout = simulate(
                world, args.split, index, args.look, seed=args.seed, tasks=tuple(args.tasks)
            )
            setup = rollout.setup
            key.append(exam_entry(setup))
            text = f"{setup.instruction}   [not: {setup.negative_instruction}]"
            if args.blind:
                text = f"{setup.index}: {key[-1]['asked']}?"
            sheets.append(captioned(montage_of(rollout, camera, zoom=args.zoom), text))
    return sheets, key


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    args = _parser().parse_args(arguments)
    try:
        args.look = level_name(args.look)
        sheets, key = _sheets(args)
    except (ConfigError, ValueError) as error:
        print(f"sim contact-sheet: {error}", file=sys.stderr)
        return 2
    while len(sheets) % args.columns:
        sheets.append(np.full_like(sheets[0], 255))
    rows = [np.hstack(sheets[k : k + args.columns]) for k in range(0, len(sheets), args.columns)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(args.out), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)):
        print(f"sim contact-sheet: cannot write {args.out}", file=sys.stderr)
        return 2
    if args.blind:
        with args.blind.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(key[0]))
            writer.writeheader()
            writer.writerows(key)
    return 0


if __name__ == "__main__":
    sys.exit(main())
