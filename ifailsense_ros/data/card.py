"""The data card of a data set, and a contact sheet: what is in it, in numbers and pictures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.core.montage import MontageGeometry, fit_cell
from ifailsense_ros.data.episode_store import EpisodeRow, read_shard
from ifailsense_ros.data.manifest import MANIFEST, PROBLEMS, DataSet
from ifailsense_ros.data.negatives import REASONS, label_z
from ifailsense_ros.data.tally import Tally

CARD = "card.md"
SHEET = "sheet.png"
MOST_PROBLEMS = 20
"""On the card; the others are in the data set's list."""
CELL = 84
"""Pixels of a view on the contact sheet, before it is enlarged: what `sim-tiny` sees."""


def card(data: DataSet, tally: Tally, sheet: str | None = SHEET) -> str:
    """The data card, as Markdown.

    Args:
        data: the data set.
        tally: of the same.
        sheet: the contact sheet's file beside the card; None for a card without it.
    """
    summary = data.summary
    lines = [f"# Data set {data.folder.resolve().name}", ""]
    (pairs, episodes) = tally.one(
        "SELECT SUM(counted), COUNT(DISTINCT CASE WHEN counted THEN sha END) FROM rows"
    )
    lines.append(
        f"{pairs or 0} pairs of an episode and an instruction that count, over {episodes} "
        f"episodes; {summary['pairs']} rows in `{MANIFEST}`, {summary['problems']} problems."
    )
    if sheet is not None:
        lines += ["", f"![Episodes of every category]({sheet})"]
    lines += ["", "## Where it comes from", ""]
    for source in summary["sources"]:
        worlds = ", ".join(source["source"]) or "nothing"
        versions = ", ".join(source["generator"])
        made = f", generator version {versions}" if versions else ""
        lines.append(f"- `{source['spec']}`: {source['episodes']} episodes of {worlds}{made}")
    lines.append(f"- licence: {summary['identity']['licence'] or 'that of the sources'}")
    if summary["command"]:
        lines.append(f"- command: `{shlex.join(summary['command'])}`")
    made_with = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    lines.append(f"- made with {made_with}; seed {summary['identity']['pairs']['seed']}")
    lines += [f"- sha256 of `{name}`: `{sha}`" for name, sha in summary["sha256"].items()]
    lines.append(f"- {len(summary['shards'])} shards; their sha256 are in `manifest.json`")
    for title, table in _tables(tally):
        lines += ["", f"## {title}", "", *_markdown(table)]
    if summary["problems"]:
        lines += ["", "## What was left out", ""]
        first = islice(data.problems(), MOST_PROBLEMS)
        lines += [f"- `{spec}`: {where}: {what}" for spec, where, what in first]
        if (more := summary["problems"] - MOST_PROBLEMS) > 0:
            lines.append(f"- and {more} more in `{PROBLEMS}`")
    return "\n".join(lines) + "\n"


def _tables(tally: Tally) -> Iterator[tuple[str, list[Sequence[object]]]]:
    """Title and rows (the first is the head) of each table that is not empty."""
    plain = (
        (
            "Pairs that count",
            ("split", "category", "episodes", "success", "failure"),
            "SELECT split, category, COUNT(DISTINCT sha), SUM(label), SUM(NOT label) FROM rows "
            "WHERE counted GROUP BY 1, 2",
        ),
        (
            "Kinds",
            ("split", "kind", "pairs"),
            "SELECT split, kind, COUNT(*) FROM rows WHERE counted GROUP BY 1, 2",
        ),
        (
            "In what wrong instructions differ",
            ("split", "contrast", "pairs", "share"),
            "SELECT split, CASE contrast WHEN '' THEN 'not known' ELSE contrast END, COUNT(*), "
            "ROUND(1.0 * COUNT(*) / SUM(COUNT(*)) OVER (PARTITION BY split), 3) FROM rows "
            "WHERE counted AND kind = 'semantic' GROUP BY 1, 2 ORDER BY 1, 3 DESC",
        ),
        (
            "What the unfiltered set has instead",
            ("split", "pairs", "would count", "came true", "disputed", "infeasible"),
            "SELECT split, COUNT(*), SUM(why IN ('', 'extra')), SUM(why = 'came_true'), "
            "SUM(why = 'disputed'), SUM(why = 'infeasible') FROM rows "
            "WHERE unfiltered AND NOT label GROUP BY 1",
        ),
    )
    for title, head, query in plain:
        if rows := list(tally.ask(query)):
            yield title, [head, *rows]
    balance = [
        (split, task, good, bad, f"{label_z(good, bad):.1f}")
        for split, task, good, bad in tally.ask(
            "SELECT split, asked, SUM(label), SUM(NOT label) FROM rows "
            "WHERE counted AND pairing = 'smf' GROUP BY 1, 2 "
            "ORDER BY split, ABS(SUM(label) - SUM(NOT label)) / SQRT(COUNT(*)) DESC"
        )
    ]
    if 0 < len(balance) <= 200:  # a data set whose tasks are sentences has no such table
        head = ("split", "task", "asked with success", "with failure", "apart (sd of a coin)")
        yield "Balance per task", [head, *balance]
    left_out = [
        (split, reason, count, REASONS[reason])
        for split, reason, count in tally.ask(
            "SELECT split, why, COUNT(*) FROM rows WHERE NOT counted GROUP BY 1, 2"
        )
    ]
    if left_out:
        yield "Pairs that do not count", [("split", "reason", "pairs", "meaning"), *left_out]


def _markdown(table: Sequence[Sequence[object]]) -> list[str]:
    head, *rows = table
    lines = [_line(head), _line(["---"] * len(head))]
    return lines + [_line(row) for row in rows]


def _line(values: Sequence[object]) -> str:
    return "| " + " | ".join(str(v) for v in values) + " |"


# --- contact sheet


def contact_sheet(
    data: DataSet, tally: Tally, per_category: int = 2, zoom: int = 2, columns: int = 2
) -> np.ndarray:
    """Montages with their instructions: of each category, and failures of each class with twins.

    Which ones is decided by the pairs' names, so nobody chose them.

    Args:
        data: the data set.
        tally: of the same.
        per_category: expert episodes of each category.
        zoom: picture pixels per pixel of a cell.
        columns: montages beside each other.

    Returns:
        uint8 RGB.

    Raises:
        DataError: no pair counts, or a shard cannot be read.
    """
    tiles = []
    for shard, number, title, texts in _chosen(tally, per_category):
        row = read_shard(data.shard(shard))[number]
        tiles.append(_tile(row, [title, *texts], zoom))
    if not tiles:
        raise DataError(f"{data.folder}: no pair counts, so there is nothing to show")
    height = max(tile.shape[0] for tile in tiles)
    width = max(tile.shape[1] for tile in tiles)
    sheet = np.full((-(-len(tiles) // columns) * height, columns * width, 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        top, left = place // columns * height, place % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def _chosen(tally: Tally, per_category: int) -> Iterator[tuple[str, int, str, list[str]]]:
    """Shard, row, title and lines of text of each tile."""
    first = (
        "SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY {group} ORDER BY pair_id) "
        "AS place FROM rows WHERE counted AND {which}) WHERE place <= ? ORDER BY {group}, pair_id"
    )
    columns = "shard, row, category, kind, instruction"
    good = first.format(group="category", which="label AND pairing != 'twins'")
    for shard, row, category, _, instruction in tally.ask(
        f"SELECT {columns} FROM ({good})", per_category
    ):
        wrong = tally.ask(
            "SELECT instruction, contrast FROM rows WHERE shard = ? AND row = ? "
            "AND kind = 'semantic' AND counted",
            shard,
            row,
        )
        texts = [f"- {text}   ({contrast or 'contrast not known'})" for text, contrast in wrong]
        yield shard, row, category, [f"+ {instruction}", *texts]
    bad = first.format(group="kind", which="NOT label AND kind != 'semantic'")
    for shard, row, category, kind, instruction, source, twin in tally.ask(
        f"SELECT {columns}, source, twin FROM ({bad})", 1
    ):
        yield shard, row, f"{category}: {kind}", [f"- {instruction}"]
        for place in tally.ask(
            "SELECT shard, row FROM rows WHERE source = ? AND key = ? AND label AND counted",
            source,
            twin,
        ):
            yield (*place, f"{category}: the success beside it", [f"+ {instruction}"])


def _tile(row: EpisodeRow, texts: Sequence[str], zoom: int) -> np.ndarray:
    """An episode's montage under lines of text, with a margin."""
    views = row.decode_images()
    geometry = MontageGeometry(len(views), len(row.stamps_ns), CELL, CELL)
    small = np.vstack([np.hstack([fit_cell(picture, geometry) for picture in v]) for v in views])
    size = (geometry.width * zoom, geometry.height * zoom)
    montage = cv2.resize(small, size, interpolation=cv2.INTER_NEAREST)
    bar = np.full((18 * 3 + 6, montage.shape[1], 3), 255, np.uint8)
    for line, text in enumerate(texts[:3]):
        at = (2, 18 * line + 15)
        cv2.putText(bar, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    margin = ((0, 12), (0, 12), (0, 0))
    return np.pad(np.vstack([bar, montage]), margin, constant_values=255)


def write_card(data: DataSet, out: Path, *, with_sheet: bool = True) -> str:
    """Write ``card.md`` and ``sheet.png`` into a folder.

    Returns:
        the card's text.

    Raises:
        DataError: the data set cannot be read, or the folder not be written.
    """
    tally = Tally([data])
    text = card(data, tally, SHEET if with_sheet else None)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if with_sheet:
            sheet = cv2.cvtColor(contact_sheet(data, tally), cv2.COLOR_RGB2BGR)
            (out / SHEET).write_bytes(cv2.imencode(".png", sheet)[1].tobytes())
        (out / CARD).write_text(text, "utf-8")
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror})") from error
    return text
