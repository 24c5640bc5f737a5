"""The model card of a checkpoint whose FS blocks were re-trained, and its figures as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COLUMNS = ("accuracy", "failure_recall", "false_alarms", "unknown")
_SAID = {
    "held_out": "Held-out episodes",
    "held_out_wrong_instructions": "Held-out successes, asked about with a wrong instruction",
    "before": "before",
    "before_without_guard": "before, without its guard",
    "after": "after",
}


def figures_table(figures: Mapping[str, Any]) -> str:
    """Markdown of the held-out figures, before and after; UNKNOWN counts as wrong."""
    lines = []
    for kind in ("held_out", "held_out_wrong_instructions"):
        if kind not in figures:
            continue
        found = figures[kind]
        lines += [f"{_SAID[kind]} ({found['after']['n']}):", ""]
        lines.append("| | accuracy | failures found | false alarms | UNKNOWN |")
        lines.append("|---|---|---|---|---|")
        for name, of_detector in found.items():
            cells = (_cell(of_detector, column) for column in _COLUMNS)
            lines.append(f"| {_SAID[name]} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _cell(figures: Mapping[str, Any], name: str) -> str:
    value, interval = figures.get(name), figures.get(f"{name}_95")
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")


def own_card(name: str, figures: Mapping[str, Any], command: str) -> str:
    """The card."""
    rows = [
        f"| {part} | {n['successes']} | {n['failures']} | {n['wrong_instructions']} | "
        f"{n['groups']} |"
        for part, n in figures["episodes"].items()
    ]
    return "\n".join(
        [
            f"# {name}",
            "",
            f"The FS blocks of {figures['made_from']}, trained further on labelled episodes of its "
            "user. The vision-language model and its adapter are those of that checkpoint.",
            "",
            *([f"    {command}", ""] if command else []),
            "| | successes | failures | wrong instructions | groups |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "No group is in two rows. Validation chose the step and calibrated the checkpoint; "
            "nothing was chosen on the held-out episodes. Intervals: 95 %, over groups. UNKNOWN "
            "counts as wrong.",
            "",
            figures_table(figures),
            "",
        ]
    )
