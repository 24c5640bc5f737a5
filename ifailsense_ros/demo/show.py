"""What the demo shows: a row per episode, the montage pictures, a contact sheet, a summary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ifailsense_ros.core.arbitration import describe_votes
from ifailsense_ros.core.verdict import Outcome, Vote, VoteValue
from ifailsense_ros.demo.episodes import DemoEpisode

_STYLES = {"SUCCESS": "bold green", "FAILURE": "bold red", "UNKNOWN": "bold yellow"}
_CAPTION_HEIGHT = 28


@dataclass
class Record:
    """What came back for one episode.

    Attributes:
        episode: what was played.
        verdict: as `ros.listen` prints it; None: none came.
        action: what the replanner said.
        picture: the montage with the verdict drawn in.
    """

    episode: DemoEpisode
    verdict: Mapping[str, Any] | None = None
    action: str | None = None
    picture: Path | None = None

    @property
    def matches(self) -> bool:
        """Whether the verdict is the truth; UNKNOWN and no verdict at all are wrong."""
        return self.verdict is not None and self.verdict["verdict"] == self.episode.truth.name


def votes_text(votes: Sequence[Mapping[str, Any]]) -> str:
    """Votes as `ros.listen` prints them, in short: `fs 1 1 0 | vlm 1`."""
    return describe_votes(
        [Vote(v["source"], VoteValue[v["vote"]], math.nan, v["weight"]) for v in votes]
    )


def make_console() -> Console:
    """A console; wide enough for a row where there is no terminal to fit into."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


_COLUMNS = (
    ("#", 2),
    ("", 5),
    ("episode", 20),
    ("truth", 7),
    ("verdict", 7),
    ("p", 4),
    ("votes", 16),
    ("latency", 7),
)
# Narrower consoles get the instruction on a line of its own.
_WIDE = 120


def _row(console: Console) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    for _, width in _COLUMNS:
        table.add_column(width=width, no_wrap=True)
    if console.width >= _WIDE:
        table.add_column(overflow="fold")
    return table


def print_header(console: Console) -> None:
    """What the columns mean, and their names."""
    console.print(
        "truth: from the simulator's state. votes: 1 success, 0 failure, ? neither word, - not "
        "run; fs = FS blocks from shallow to deep, vlm = the VLM's own answer.\n"
        "latency: from END to the verdict, the wait for late pictures included.",
        style="dim",
    )
    names = [name for name, _ in _COLUMNS]
    row = _row(console)
    row.add_row(*(Text(n, "dim") for n in (names + ["instruction"] * (console.width >= _WIDE))))
    console.print(row)


def print_record(console: Console, number: int, record: Record) -> None:
    """One row, and under it the replanner's answer and the picture's path."""
    episode, verdict = record.episode, record.verdict
    said, p, votes, latency = "none", "", "", ""
    if verdict is not None:
        said = verdict["verdict"]
        p = "" if verdict["p_success"] is None else f"{verdict['p_success']:.2f}"
        votes, latency = votes_text(verdict["votes"]), f"{verdict['latency_s']:.2f} s"
    cells = [
        str(number),
        Text("ok", "green") if record.matches else Text("WRONG", "red reverse"),
        episode.name,
        Text(episode.truth.name, _STYLES[episode.truth.name]),
        Text(said, _STYLES.get(said, "bold yellow")),
        p,
        votes,
        latency,
    ]
    instruction = Text(f'"{episode.instruction}"')
    row = _row(console)
    row.add_row(*cells, *([instruction] if console.width >= _WIDE else []))
    console.print(row)
    lines = []
    if console.width < _WIDE:
        lines.append(("instruction", instruction))
    if verdict is not None and verdict["reason"]:
        lines.append(("reason", Text(f"{verdict['reason_code']}: {verdict['reason']}")))
    if record.action:
        lines.append(("replanner", Text(record.action, "cyan")))
    if record.picture:
        lines.append(("montage", Text(shortest(record.picture), "dim")))
    for name, text in lines:
        console.print(Text(f"   {name:12}") + text, soft_wrap=True)


def shortest(path: Path) -> str:
    """Relative to the working folder if it lies in it, so that it can be copied and stays short."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture (uint8 (H, W, 3)) with a line of text under it."""
    strip = np.full((_CAPTION_HEIGHT, picture.shape[1], 3), 235, np.uint8)
    cv2.putText(strip, text, (10, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (25, 25, 25), 1, cv2.LINE_AA)
    return np.vstack([picture, strip])


def contact_sheet(pictures: Sequence[np.ndarray], columns: int = 4) -> np.ndarray:
    """All pictures on one, in rows (four: twins side by side); white fills up smaller ones."""
    height = max(p.shape[0] for p in pictures) + 6
    width = max(p.shape[1] for p in pictures) + 6
    rows = math.ceil(len(pictures) / columns)
    sheet = np.full((rows * height, min(columns, len(pictures)) * width, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = (i // columns) * height + 3, (i % columns) * width + 3
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def write_sheet(records: Sequence[Record], path: Path) -> Path | None:
    """The contact sheet of all records that have a picture; None if none has."""
    pictures = [cv2.imread(str(r.picture)) for r in records if r.picture is not None]
    pictures = [p for p in pictures if p is not None]
    if not pictures:
        return None
    return path if cv2.imwrite(str(path), contact_sheet(pictures)) else None


def needed_matches(total: int) -> int:
    """How many verdicts must be right: 10 of 12, and that share of any other number."""
    return math.ceil(total * 10 / 12)


def print_summary(console: Console, records: Sequence[Record], *, shuffled: bool) -> bool:
    """How many verdicts match the truth; returns whether that is enough."""
    right = sum(r.matches for r in records)
    needed = needed_matches(len(records))
    missed = sum(
        r.episode.truth is Outcome.FAILURE
        and r.verdict is not None
        and r.verdict["verdict"] == Outcome.SUCCESS.name
        for r in records
    )
    good = right >= needed
    models = {str(r.verdict["model_id"]) for r in records if r.verdict is not None}
    console.print(
        Text(
            f"{right} of {len(records)} verdicts match the truth (needed: {needed}); "
            f"failures missed: {missed}; model {', '.join(sorted(models)) or 'none'}",
            "bold green" if good else "bold red",
        )
    )
    if shuffled and not good:
        console.print(
            "The trained weights were shuffled on purpose, and the verdicts no longer match: they "
            "come from the weights."
        )
    elif shuffled:
        console.print(
            "The trained weights were shuffled on purpose, and yet the verdicts match: they do "
            "not come from the weights. Something is wrong.",
            style="bold red",
        )
    return good
