"""Look at failures: ``ifailsense sim failure-sheet --data DIR --out sheet.png``.

Left the success, right the failure of the same scene, each as its montage (rows: exocentric, wrist;
columns: keyframes) at the cell size the detector sees, enlarged without smoothing. Pictures come
from the store, so no OpenGL is needed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.data.episode_store import EpisodeRow, read_episodes
from ifailsense_ros.data.experts import episode_of
from ifailsense_ros.data.failure_classes import FAILURE_CLASSES
from ifailsense_ros.data.records import EXPERT

from .contact_sheet import CELL, captioned


def pairs_of(rows: Iterable[EpisodeRow]) -> Iterator[tuple[EpisodeRow, EpisodeRow]]:
    """Each failure with its twin, which stands before it in the store."""
    twin: EpisodeRow | None = None
    for row in rows:
        if row.kind == EXPERT:
            twin = row
        elif twin is not None and (twin.index, twin.attempt) == (row.index, row.attempt):
            yield twin, row


def tile(row: EpisodeRow, zoom: int) -> np.ndarray:
    """The montage of a stored episode, RGB (N * cell * zoom, T * cell * zoom, 3)."""
    geometry = MontageGeometry(row.num_pov, len(row.stamps_ns), CELL, CELL)
    montage = compose(episode_of(row, row.num_pov), geometry)
    return cv2.resize(montage, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)


def sheet(pairs: Iterable[tuple[EpisodeRow, EpisodeRow]], zoom: int = 2) -> np.ndarray:
    """All pairs, one under the other, RGB.

    Raises:
        ConfigError: there is none.
    """
    lines = []
    for twin, failure in pairs:
        left = captioned(tile(twin, zoom), f"{twin.index}: {twin.instruction}")
        right = captioned(tile(failure, zoom), f"{failure.kind} ({failure.task})")
        gap = np.full((left.shape[0], 8, 3), 255, np.uint8)
        lines.append(np.hstack([left, gap, right]))
    if not lines:
        raise ConfigError("no failure of that kind in the store")
    return np.vstack(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ifailsense sim failure-sheet", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="store with failures and twins")
    parser.add_argument("--kind", choices=FAILURE_CLASSES, help="only this class")
    parser.add_argument(
        "--first", type=int, default=0, help="leave out so many pairs of each class"
    )
    parser.add_argument("--pairs", type=int, default=1, help="pairs of each class")
    parser.add_argument("--zoom", type=int, default=2, help="picture pixels per pixel of a cell")
    parser.add_argument("--out", type=Path, required=True, help="picture file (.png, .jpg)")
    args = parser.parse_args(arguments)
    kinds = (args.kind,) if args.kind else FAILURE_CLASSES
    try:
        chosen = []
        for kind in kinds:
            of_kind = (pair for pair in pairs_of(read_episodes(args.data)) if pair[1].kind == kind)
            chosen += islice(of_kind, args.first, args.first + args.pairs)
        picture = sheet(chosen, args.zoom)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(args.out), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
            raise ConfigError(f"--out {args.out}: cannot be written; give a .png or .jpg file")
    except IFailSenseError as error:
        print(f"ifailsense sim failure-sheet: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
