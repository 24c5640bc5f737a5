"""What the cells left behind, as the report reads it; and the pieces its tables are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ifailsense_ros.evaluate.breakdown import figures
from ifailsense_ros.evaluate.predictions import Prediction, read_predictions
from ifailsense_ros.experiments.cells import PredictionCell
from ifailsense_ros.experiments.opening import Chosen
from ifailsense_ros.experiments.state import Workplace

NOT_RUN = "not run"
METRICS = ("accuracy", "precision", "recall", "f1", "failure_recall")
HEADS = ("accuracy", "precision", "recall", "F1", "failure recall")


@dataclass(frozen=True)
class Loaded:
    """A prediction cell's file.

    Attributes:
        name: of the cell.
        rows: all of them.
        meta: how they were made.
    """

    name: str
    rows: list[Prediction]
    meta: dict[str, Any]

    @cached_property
    def figures(self) -> dict:
        """Over all pairs that count."""
        return figures(self.rows)


@dataclass
class Results:
    """The prediction cells that may be reported.

    Attributes:
        place: the cells.
        chosen: checkpoints that may see a test split.
        split: that figures are about.
        refused: cell -> why its file is not used, as far as it was asked for.
        used: the files that were.
        pictures: files of the pictures that there is something to draw for.
    """

    place: Workplace
    chosen: Chosen
    split: str
    refused: dict[str, str] = field(default_factory=dict)
    used: dict[str, Loaded] = field(default_factory=dict)
    pictures: set[str] = field(default_factory=set)

    def get(self, name: str) -> Loaded | None:
        """A cell's predictions; None where there are none, or they break a rule."""
        if name in self.used:
            return self.used[name]
        cell = self.place.cells.get(name)
        if not isinstance(cell, PredictionCell) or name in self.refused:
            return None
        path = self.place.predictions(cell)
        if path is None:
            return None
        rows, meta = read_predictions(path)
        if why := self.chosen.refuses(meta):
            self.refused[name] = why
            return None
        self.used[name] = Loaded(name, rows, meta)
        return self.used[name]

    def picture(self, said: str, file: str, cells: Iterable[str]) -> list[str]:
        """A line that shows a picture, if one of its cells has predictions; else nothing."""
        if all(self.get(name) is None for name in cells):
            return []
        self.pictures.add(file)
        return [f"![{said}](img/{file})", ""]

    def why_not(self, name: str) -> str:
        """What stands in a table instead of a figure."""
        if name in self.refused:
            return f"refused: {self.refused[name]}"
        if name not in self.place.cells:
            return "no such cell"
        return f"{NOT_RUN}: `ifailsense experiments --only '{name}'`"

    def row(self, label: Sequence[str], name: str, found: dict | None = None) -> str:
        """A line of a table: labels, then `METRICS`, from the cell or from `found`."""
        loaded = self.get(name)
        if loaded is None:
            return line([*label, self.why_not(name), *[""] * (len(METRICS) - 1)])
        numbers = loaded.figures if found is None else found
        return line([*label, *(ratio(numbers, m) for m in METRICS)])


def ratio(found: dict, metric: str) -> str:
    """ "0.953 (0.931 to 0.972)"."""
    value, interval = found[metric], found[f"{metric}_95"]
    if value is None:
        return "–"
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def line(cells: Sequence[object]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(str(c) for c in cells) + " |"


def table(heads: Sequence[str], rows: Sequence[str]) -> list[str]:
    """A Markdown table with an empty line behind it."""
    return [line(heads), line(["---"] * len(heads)), *rows, ""]
