"""Look at episodes: ``python -m ifailsense_ros.sim.unseen.contact_sheet --data DIR --out FILE``.

One episode of each task, from a recorded store, each as its montage (rows: exocentric, gripper;
columns: keyframes) at the cell size the detector sees, enlarged without smoothing. Needs no OpenGL.

``--blind KEY.csv`` makes an exam of it: a question above each montage, and the answers in a file.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from ifailsense_ros.core.errors import IFailSenseError
from ifailsense_ros.data.episode_store import EpisodeRow, read_episodes
from ifailsense_ros.data.records import EXPERT

from ..contact_sheet import captioned
from ..failure_sheet import tile
from .tasks import TASKS

_BLIND_SEED = 7


def one_of_each(rows: Iterable[EpisodeRow], skip: int = 0) -> list[EpisodeRow]:
    """An expert episode of each task, in the order of the task table, after ``skip`` others."""
    found: dict[str, list[EpisodeRow]] = {name: [] for name in TASKS}
    for row in rows:
        if row.kind == EXPERT and len(found.get(row.task, [None] * (skip + 1))) <= skip:
            found[row.task].append(row)
        if all(len(kept) > skip for kept in found.values()):
            break
    return [kept[skip] for kept in found.values() if len(kept) > skip]


def question(row: EpisodeRow) -> dict[str, str | int]:
    """One line of a blind sheet's key: what is asked of an episode, and the right answer."""
    done = bool(np.random.default_rng([_BLIND_SEED, row.index]).integers(2))
    return {
        "number": row.index,
        "asked": row.instruction if done else row.negative_instruction,
        "answer": "success" if done else "failure",
        "performed_task": row.task,
    }


def sheet(
    rows: Iterable[EpisodeRow], columns: int = 2, zoom: int = 2, blind: bool = False
) -> np.ndarray:
    """Montages under what they carry out, or under a question, RGB."""
    tiles = []
    for row in rows:
        text = f"{row.index}: {question(row)['asked']}?" if blind else row.instruction
        tiles.append(captioned(tile(row, zoom), text))
    while len(tiles) % columns:
        tiles.append(np.full_like(tiles[0], 255))
    return np.vstack([np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)])


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="contact_sheet", description=__doc__.split("\n\n")[1])
    parser.add_argument("--data", type=Path, required=True, help="store of the unseen world")
    parser.add_argument("--skip", type=int, default=0, help="episodes of each task to leave out")
    parser.add_argument("--columns", type=int, default=2)
    parser.add_argument("--zoom", type=int, default=2, help="picture pixels per pixel of a cell")
    parser.add_argument("--blind", type=Path, metavar="KEY.csv", help="an exam, and its key")
    parser.add_argument("--out", type=Path, required=True, help="picture, .png or .jpg")
    args = parser.parse_args(arguments)
    try:
        rows = one_of_each(read_episodes(args.data), args.skip)
    except IFailSenseError as error:
        print(f"contact_sheet: {error}", file=sys.stderr)
        return 2
    if not rows:
        print(f"contact_sheet: {args.data} has no episode of this world", file=sys.stderr)
        return 2
    if args.blind:
        rows.sort(key=lambda row: row.index)  # the order of the tasks would tell them
        with args.blind.open("w", newline="") as file:
            key = [question(row) for row in rows]
            writer = csv.DictWriter(file, fieldnames=list(key[0]))
            writer.writeheader()
            writer.writerows(key)
    made = sheet(rows, args.columns, args.zoom, blind=bool(args.blind))
    picture = cv2.cvtColor(made, cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(args.out), picture):
        print(f"contact_sheet: cannot write {args.out}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
