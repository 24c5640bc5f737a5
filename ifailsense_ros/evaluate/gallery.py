"""The most confident mistakes as pictures, with what they have in common: one page, opens offline.

    ifailsense gallery --predictions dev.parquet --data data/smf --out out/gallery [--worst 50]

Writes ``index.html`` with its pictures in ``images``, ``sheet.jpg`` with all of them, and
``mistakes.csv`` and ``shares.csv``. Montages are shown as the detector saw them, at the size of its
cells, and beside that the stored keyframes.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import ConfigError, DataError, IFailSenseError
from ifailsense_ros.core.montage import MontageGeometry, annotate, compose, text_lines
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason, Verdict, Vote, VoteValue
from ifailsense_ros.data.episode_store import EpisodeRow
from ifailsense_ros.data.experts import episode_of, with_keyframes
from ifailsense_ros.evaluate.asked import AskedSet
from ifailsense_ros.evaluate.gallery_page import Shown, page
from ifailsense_ros.evaluate.mistakes import (
    NONE,
    Share,
    confidence,
    done,
    mistake_of,
    shares,
    worst,
    wrong_voters,
)
from ifailsense_ros.evaluate.predictions import Prediction, read_predictions

TEST = "test"
COLUMNS = 5
_CELL = 84
_SCALE = 2
_SHEET_SIZE = 0.38
_GAP = 10
_JPEG_QUALITY = 88
_FEW = 3  # mistakes: a group with fewer is not worth a line of the report


@dataclass(frozen=True)
class Gallery:
    """What was written.

    Attributes:
        page: the page, in its folder.
        pairs, mistakes: how many pairs count, and how many of them were wrong (UNKNOWN is).
        shown: the mistakes on the page, the surest first.
        shares: what the mistakes have in common.
    """

    page: Path
    pairs: int
    mistakes: int
    shown: list[Prediction]
    shares: list[Share]


def make_gallery(
    predictions: Sequence[Prediction],
    meta: Mapping[str, Any],
    data: Path,
    out: Path,
    *,
    count: int = 50,
    of_test: bool = False,
) -> Gallery:
    """Write the page, its pictures and its tables; the data are read one shard at a time.

    Args:
        predictions: of one split; pairs that do not count are left out.
        meta: how they were made (`predict.meta_of`).
        data: data set or store that was judged.
        out: folder, made if it is not there.
        count: how many mistakes to show.
        of_test: whether a test split may be looked at.

    Raises:
        ConfigError: a test split that may not be looked at, no pair, or fewer than one mistake
            asked for.
        DataError: other data than those that were judged.
    """
    split = str(meta["split"])
    if split == TEST and not of_test:
        raise ConfigError(
            "the predictions are of a test split: who looks at its mistakes tunes on it. Take "
            "another split, or give --of-test once nothing will be changed any more"
        )
    kept = [p for p in predictions if p.counted]
    if count < 1 or not kept:
        raise ConfigError(
            f"--worst is {count}, and {len(kept)} of the predicted pairs count: at least 1 of each"
        )
    asked = AskedSet(data, split, every_pair=bool(meta["every_pair"]))
    if asked.hash != meta["data_hash"]:
        raise DataError(
            f"{data}: not what was judged (hash {asked.hash[:12]}, the predictions have "
            f"{str(meta['data_hash'])[:12]}); name the data that `ifailsense predict` was given"
        )
    shown = worst(kept, count)
    out.mkdir(parents=True, exist_ok=True)
    durations, drawn = _draw(asked, shown, meta, out)
    common = shares(kept, {p.pair_id: durations[p.pair_id] for p in kept})
    if drawn:
        _write_picture(out / "sheet.jpg", _sheet([tile for _, tile in drawn]))
    _write_table(out / "shares.csv", [asdict(s) for s in common], [f.name for f in fields(Share)])
    rows = [_csv_row(rank, p, durations) for rank, p in enumerate(shown, start=1)]
    _write_table(out / "mistakes.csv", rows, _CSV)
    text = page(meta, kept, [one for one, _ in drawn], common, bool(drawn))
    (out / "index.html").write_text(text, "utf-8")
    wrong = sum(not p.right for p in kept)
    return Gallery(out / "index.html", len(kept), wrong, shown, common)


def _draw(
    asked: AskedSet, shown: Sequence[Prediction], meta: Mapping[str, Any], out: Path
) -> tuple[dict[str, float], list[tuple[Shown, np.ndarray]]]:
    """Durations (s) of all pairs, and each shown mistake with its tile of the sheet; its pictures
    are written on the way.

    Raises:
        DataError: a pair is not in the data, or its pictures cannot be read.
    """
    (out / "images").mkdir(exist_ok=True)
    ranks = {p.pair_id: rank for rank, p in enumerate(shown)}
    durations: dict[str, float] = {}
    drawn: dict[int, tuple[Shown, np.ndarray]] = {}
    for shard in asked.shards():
        for row, pairs in shard.read():
            for pair in pairs:
                durations[pair.pair_id] = row.duration_s
                rank = ranks.get(pair.pair_id)
                if rank is not None:
                    drawn[rank] = _draw_one(rank + 1, shown[rank], row, meta, out)
    if len(drawn) < len(shown):
        lost = next(p for rank, p in enumerate(shown) if rank not in drawn)
        raise DataError(f"{asked.folder}: has no pair {lost.pair_id} ({lost.key}); predict again")
    return durations, [drawn[rank] for rank in range(len(shown))]


def _draw_one(
    rank: int, p: Prediction, row: EpisodeRow, meta: Mapping[str, Any], out: Path
) -> tuple[Shown, np.ndarray]:
    geometry = _geometry(meta, row)
    seen = with_keyframes(episode_of(row, geometry.num_pov), geometry.num_keyframes)
    montage = compose(seen, geometry)
    truth = f"done: {done(p)}"
    picture = annotate(montage, _verdict(p, seen), geometry, truth=truth, scale=_SCALE)
    stored = np.vstack([np.hstack(list(of_pov)) for of_pov in row.decode_images()])
    names = (f"images/{rank:03d}-seen.jpg", f"images/{rank:03d}-stored.jpg")
    for name, what in zip(names, (picture, stored), strict=True):
        _write_picture(out / name, what)
    lines = [
        f"{rank}  {mistake_of(p)}, {100 * confidence(p):.0f} % sure",
        f'"{p.instruction}"',
        truth,
    ]
    tile = np.vstack([text_lines(lines, montage.shape[1], size=_SHEET_SIZE), montage])
    return Shown(rank, p, *names, row.duration_s), tile


def _geometry(meta: Mapping[str, Any], row: EpisodeRow) -> MontageGeometry:
    """The checkpoint's montage; of a control, which was shown less, the whole episode."""
    if meta["ablation"] != "none":
        return MontageGeometry(row.num_pov, len(row.stamps_ns), _CELL, _CELL)
    m = meta["montage"]
    return MontageGeometry(m["num_pov"], m["num_keyframes"], m["cell_height"], m["cell_width"])


def _verdict(p: Prediction, seen: Episode) -> Verdict:
    """The verdict that the prediction was made from, as far as it was kept."""
    votes = tuple(
        Vote(source, VoteValue(value), p_success, weight)
        for source, value, p_success, weight in zip(
            p.sources, p.votes, p.p_votes, p.weights, strict=True
        )
    )
    judgement = Judgement(Outcome(p.outcome), Reason(p.reason), "", p.p_success, votes)
    stamps = seen.keyframe_stamps_ns
    return Verdict(seen.episode_id, p.instruction, seen.end_ns, judgement, stamps)


def _sheet(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """All tiles in rows of `COLUMNS`, RGB."""
    height = max(tile.shape[0] for tile in tiles) + _GAP
    width = max(tile.shape[1] for tile in tiles) + _GAP
    columns = min(COLUMNS, len(tiles))
    sheet = np.full((-(-len(tiles) // columns) * height, columns * width, 3), 250, np.uint8)
    for place, tile in enumerate(tiles):
        top, left = place // columns * height, place % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def _write_picture(path: Path, picture: np.ndarray) -> None:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    path.write_bytes(data.tobytes())


_CSV = (
    *("rank", "mistake", "confidence", "p_success", "instruction", "done", "asked_task"),
    *("category", "contrast", "phrasing", "kind", "wrong_voters", "duration_s", "key", "pair_id"),
)


def _csv_row(rank: int, p: Prediction, durations: Mapping[str, float]) -> dict[str, Any]:
    return {
        "rank": rank,
        "mistake": mistake_of(p),
        "confidence": round(confidence(p), 4),
        "p_success": round(p.p_success, 4),
        "instruction": p.instruction,
        "done": done(p),
        "asked_task": p.asked_task,
        "category": p.category,
        "contrast": "+".join(p.contrast),
        "phrasing": p.phrasing,
        "kind": p.kind,
        "wrong_voters": wrong_voters(p),
        "duration_s": round(durations[p.pair_id], 2),
        "key": p.key,
        "pair_id": p.pair_id,
    }


def _write_table(path: Path, rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, names, lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


def report(made: Gallery) -> str:
    """What is printed: counts, and the groups in which the detector is clearly worse."""
    lines = [f"{made.mistakes} mistakes in {made.pairs} pairs, the {len(made.shown)} surest shown"]
    for s in made.shares:
        if s.clear and s.lift > 1 and s.mistakes >= _FEW and s.value != NONE:
            lines.append(
                f"  {s.attribute} {s.value}: {s.mistakes} of {s.pairs} wrong, {s.lift:.1f} times "
                "as often as all"
            )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ifailsense gallery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--predictions", type=Path, required=True, help="made by `ifailsense predict`"
    )
    parser.add_argument("--data", type=Path, required=True, help="the data that were judged")
    parser.add_argument("--out", type=Path, required=True, help="folder of the page")
    parser.add_argument("--worst", type=int, default=50, help="how many mistakes to show")
    parser.add_argument(
        "--of-test", action="store_true", help="look at a test split, after the last change"
    )
    args = parser.parse_args(argv)
    try:
        found, meta = read_predictions(args.predictions)
        made = make_gallery(
            found, meta, args.data, args.out, count=args.worst, of_test=args.of_test
        )
    except IFailSenseError as error:
        print(f"ifailsense gallery: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"ifailsense gallery: {args.out}: {error.strerror}", file=sys.stderr)
        return 2
    print(report(made))
    print(f"in {made.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
