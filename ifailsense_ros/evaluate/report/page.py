"""The page: figures and cards poured into the template.

Everything that comes from data is escaped by the template engine, and the page's own policy lets no
script run but ours, and nothing be loaded from anywhere: a page opens the same without a network.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from ifailsense_ros import __version__
from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.data.records import Problem
from ifailsense_ros.evaluate.report import plots, text
from ifailsense_ros.evaluate.report.cards import SAID, Card, truth_of
from ifailsense_ros.evaluate.report.episodes import JudgedEpisode, Merged
from ifailsense_ros.evaluate.report.figures import (
    Bar,
    Comparison,
    DetectorFigures,
)
from ifailsense_ros.evaluate.summaries import place_of_group

METRICS = (
    ("accuracy", "accuracy", "verdicts that are true; UNKNOWN is not"),
    ("precision", "precision", "of those called SUCCESS, successes"),
    ("recall", "recall", "of the successes, those called SUCCESS"),
    ("f1", "F1", "of precision and recall"),
    ("failure_recall", "failures found", "of the failures, those called FAILURE"),
    ("failure_precision", "failure precision", "of those called FAILURE, failures"),
    ("false_alarms", "false alarms", "of the successes, those called FAILURE"),
    ("unknown", "no verdict", "episodes called UNKNOWN"),
)
"""Key in `metrics.summary`, name on the page, what it is a share of."""

MOST_LISTED = 200
"""Differing episodes in a comparison's list, and problems; the gallery's filter has all of the
first, `problems.json` of the second."""


@dataclass(frozen=True)
class Contents:
    """What goes on the page.

    Attributes:
        title: of the page.
        merged: all rows.
        detectors: their figures, in the order of `merged.detectors`.
        comparisons: of every two.
        problems: what could not be judged, or was doubtful.
        made: name and meta of each results folder.
        shown: numbers of the episodes in the gallery.
        without_picture: how many of them have a montage that cannot be shown.
        page_folder: where pictures are addressed from; None: they are in the page.
    """

    title: str
    merged: Merged
    detectors: Sequence[DetectorFigures]
    comparisons: Sequence[Comparison]
    problems: Sequence[Problem]
    made: Sequence[tuple[str, Mapping[str, Any]]]
    shown: frozenset[int]
    without_picture: int
    page_folder: Path | None


def pieces(contents: Contents, cards: Iterable[Card]) -> Iterator[str]:
    """The page piece by piece, so that pictures need not be in memory together.

    Args:
        contents: all but the gallery.
        cards: of the episodes that are shown, made one by one.
    """
    style, script = _asset("report.css"), _asset("report.js")
    yield from _template().generate(
        page=contents,
        cards=cards,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script, contents.page_folder is not None),
        metrics=METRICS,
        worths=SAID,
        most_listed=MOST_LISTED,
        version=__version__,
        labelled=sum(e.label is not None for e in contents.merged.episodes),
        categories=_rows([f.categories for f in contents.detectors]),
        classes=_rows([f.classes for f in contents.detectors]),
        reasons=_reasons(contents.detectors),
        filters=_filters(contents),
    )


@dataclass(frozen=True)
class BarRow:
    """A group of episodes: its name, how many there are, and a bar a detector (None: it judged none
    of them).
    """

    name: str
    n: int
    bars: tuple[Bar | None, ...]


def _rows(of_detectors: Sequence[Mapping[str, Bar]]) -> list[BarRow]:
    rows = []
    for name in sorted({name for bars in of_detectors for name in bars}, key=place_of_group):
        bars = tuple(bars.get(name) for bars in of_detectors)
        rows.append(BarRow(name, max(bar.n for bar in bars if bar), bars))
    return rows


@dataclass(frozen=True)
class ReasonRow:
    """A reason of UNKNOWN: its name, how often each detector gave it, and one of its details."""

    name: str
    counts: tuple[int, ...]
    detail: str


def _reasons(detectors: Sequence[DetectorFigures]) -> list[ReasonRow]:
    rows = []
    for name in dict.fromkeys(r.name for f in detectors for r in f.reasons):
        found = [next((r for r in f.reasons if r.name == name), None) for f in detectors]
        detail = next((r.detail for r in found if r and r.detail), "")
        rows.append(ReasonRow(name, tuple(r.count if r else 0 for r in found), detail))
    return sorted(rows, key=lambda row: -sum(row.counts))


def _outcome_of(episode: JudgedEpisode, detector: str) -> str:
    return Outcome(episode.results[detector].outcome).name


def _filters(contents: Contents) -> dict[str, list[str]]:
    """Values that the gallery can be filtered by."""
    shown = [e for e in contents.merged.episodes if e.number in contents.shown]
    return {
        "category": sorted({e.first.category for e in shown} - {""}),
        "kind": sorted({e.first.kind for e in shown} - {""}),
    }


@lru_cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Whatever is printed passes here first; our own markup is told by its type.
        finalize=lambda value: (
            value if isinstance(value, (Markup, int, float)) else text.plain(value)
        ),
    )
    environment.filters.update(
        percent=text.percent,
        sure=text.sure,
        signed=text.signed_percent,
        p=text.p_value,
        probability=text.probability,
        words=text.words,
        flat=text.flat,
    )
    environment.globals.update(
        interval=text.interval,
        bar_of=Bar.of,
        truth_of=truth_of,
        outcome_of=_outcome_of,
        series=plots.series,
        bar_plot=plots.bar_plot,
        roc_plot=plots.roc_plot,
        pr_plot=plots.pr_plot,
        reliability_plot=plots.reliability_plot,
    )
    return environment.from_string(_asset("report.html.j2"))


def _asset(name: str) -> str:
    return (files("ifailsense_ros.evaluate.report") / "assets" / name).read_text("utf-8")


def _policy(style: str, script: str, pictures_beside: bool) -> str:
    """Content-Security-Policy: our style and script by their hashes, pictures, nothing else."""

    def sha(content: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    images = "data: 'self' file:" if pictures_beside else "data:"
    return (
        f"default-src 'none'; style-src {sha(style)}; script-src {sha(script)}; "
        f"img-src {images}; base-uri 'none'; form-action 'none'"
    )
