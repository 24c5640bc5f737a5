"""The figures of an evaluation as tables in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ifailsense_ros.data.records import Problem

_METRICS = (
    ("accuracy", "accuracy"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("f1", "F1"),
    ("failure_recall", "failures found"),
    ("failure_precision", "true alarms"),
    ("false_alarms", "false alarms"),
    ("unknown", "UNKNOWN"),
)
"""Key in `metrics.summary`, and head of its row."""

_PROBLEMS_SHOWN = 20


def print_figures(figures: Mapping[str, dict], console: Console) -> None:
    """All tables.

    Args:
        figures: of `summaries.Tally.figures`, by detector.
        console: to print on.
    """
    judged = {name: found for name, found in figures.items() if found["all"]}
    if judged:
        overall = _table(
            "All labelled episodes (95 % intervals)", judged, lambda found: found["all"]
        )
        console.print(overall)
        for group, metric, title in (
            ("category", "accuracy", "Accuracy by task category"),
            ("failure_class", "failure_recall", "Failures found, by class"),
        ):
            if any(found[group] for found in judged.values()):
                console.print(_grouped(title, judged, group, metric))
    for name, found in figures.items():
        if found["unlabelled"]["n"]:
            console.print(_unlabelled(name, found["unlabelled"]), highlight=False)
        if found["unknown"]:
            reasons = ", ".join(f"{why} {times}" for why, times in found["unknown"].items())
            console.print(f"{escape(name)}: UNKNOWN because of {reasons}", highlight=False)


def print_problems(problems: Sequence[Problem], console: Console) -> None:
    """What could not be judged, one line each."""
    for problem in problems[:_PROBLEMS_SHOWN]:
        text = f"{problem.where}: {problem.what}"
        console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if len(problems) > _PROBLEMS_SHOWN:
        left = len(problems) - _PROBLEMS_SHOWN
        console.print(f"... and {left} more in problems.json", style="yellow", highlight=False)


def _table(
    title: str, judged: Mapping[str, dict], of: Callable[[dict], Mapping[str, Any]]
) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for name in judged:
        table.add_column(escape(name), justify="right")
    table.add_row("episodes", *(str(of(found)["n"]) for found in judged.values()))
    for key, head in _METRICS:
        table.add_row(head, *(_cell(of(found), key) for found in judged.values()))
    return table


def _grouped(title: str, judged: Mapping[str, dict], group: str, metric: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("episodes", justify="right")
    for name in judged:
        table.add_column(escape(name), justify="right")
    names = dict.fromkeys(name for found in judged.values() for name in found[group])
    for name in names:
        of_each = [found[group].get(name) for found in judged.values()]
        counts = {found.get("failures", found["n"]) for found in of_each if found}
        cells = ("" if found is None else _cell(found, metric) for found in of_each)
        table.add_row(escape(name), "/".join(str(n) for n in sorted(counts)), *cells)
    return table


def _cell(found: Mapping[str, Any], key: str) -> str:
    value, interval = found[key], found[f"{key}_95"]
    if value is None:
        return "-"
    return f"{value:.3f}  [{interval[0]:.3f}, {interval[1]:.3f}]".replace("[", "\\[")


def _unlabelled(name: str, counts: Mapping[str, int]) -> str:
    verdicts = ", ".join(f"{counts[word]} {word}" for word in ("SUCCESS", "FAILURE", "UNKNOWN"))
    return f"{escape(name)}: {counts['n']} episodes without a label: {verdicts}"
