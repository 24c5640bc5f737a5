"""Put the figures of the closed loop into docs/closed_loop.md, with its plots.

    ifailsense closed-loop report --loop runs/closed_loop --early runs/closed_loop_early

What the runs found is kept in docs/results/closed_loop.json, which is committed; page and plots are
made from that file alone, so without arguments the command makes them again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ifailsense_ros.closed_loop.command import FIGURES, in_words
from ifailsense_ros.closed_loop.early import EARLY
from ifailsense_ros.closed_loop.early_figures import WAYS
from ifailsense_ros.core.errors import DataError, IFailSenseError
from ifailsense_ros.evaluate.results import write_json

PAGE, RESULTS = Path("closed_loop.md"), Path("results") / "closed_loop.json"
LOOP_PLOT, EARLY_PLOT = Path("img") / "closed_loop.png", Path("img") / "closed_loop_early.png"
PARTS = ("loop", "early")

_COLUMNS = {
    "task success": ("success", 3),
    "tries": ("tries", 2),
    "seconds": ("seconds", 1),
    "wasted retries": ("wasted_retries", 3),
    "missed failures": ("missed_failures", 3),
    "asked for help": ("help", 3),
}


def begin_of(part: str) -> str:
    """The line behind which a part of the page is written."""
    return f"<!-- {part}: made by `ifailsense closed-loop report`, do not edit -->"


def end_of(part: str) -> str:
    """The line before which it ends."""
    return f"<!-- end of {part} -->"


def loop_lines(content: dict[str, Any]) -> list[str]:
    """The experiment's part of the page."""
    found = content["figures"]
    lines = [*_made(content, f"{found['tasks']} tasks, seeds {_listed(found['seeds'])}")]
    lines += [f"| | {' | '.join(_COLUMNS)} |", "|---" * (len(_COLUMNS) + 1) + "|"]
    for name, row in found["monitors"].items():
        cells = [in_words(row, figure, digits) for figure, digits in _COLUMNS.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| | of the distance to the oracle | over retrying blindly | by seed |"]
    lines += ["|---|---|---|---|"]
    for name, row in found["monitors"].items():
        if "closed" in row:
            seeds = ", ".join(f"{success:.3f}" for success in row["by_seed"].values())
            cells = [in_words(row, "closed"), in_words(row, "over_retrying"), seeds]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    names = list(next(iter(found["monitors"].values()))["by_category"])
    lines += ["", f"| success | {' | '.join(n.replace('_', '/') for n in names)} |"]
    lines += ["|---" * (len(names) + 1) + "|"]
    for name, row in found["monitors"].items():
        cells = [f"{row['by_category'][category]:.3f}" for category in names]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", f"![Success and tries of every monitor]({LOOP_PLOT})"]


def early_lines(content: dict[str, Any]) -> list[str]:
    """The early warnings' part of the page."""
    found = content["figures"]
    what = f"{found['attempts']} first attempts, {found['failures']} of them failures"
    lines = [*_made(content, what)]
    lines += ["| false alarms allowed | judged | false alarms | failures announced | mean seconds "]
    lines[-1] += "before the end | median |"
    lines += ["|---|---|---|---|---|---|"]
    for rate, by_way in found["announced"].items():
        for way, row in by_way.items():
            cells = [in_words(row, "false_alarms"), in_words(row, "detected")]
            cells += [in_words(row, "lead_s", 2), in_words(row, "median_lead_s", 2)]
            lines.append(f"| {float(rate):.0%} | {WAYS[way]} | {' | '.join(cells)} |")
    lines += ["", "| share of the attempt seen | AUC | announced at 5 % false alarms |"]
    lines += ["|---|---|---|"]
    for fraction, row in found["at"].items():
        cells = [in_words(row, "auc"), in_words(row, "detected")]
        lines.append(f"| {float(fraction):.0%} | {' | '.join(cells)} |")
    return [*lines, "", f"![What early warnings can tell, and when]({EARLY_PLOT})"]


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def _made(content: dict[str, Any], what: str) -> list[str]:
    made = content["made"]
    lines = [f"{what}; {made['detector'] or 'no detector'}; 95 % intervals; {made['date'][:10]}:"]
    if not made["fixed"]:
        lines[0] = f"**A trial with other settings, not the experiment.** {lines[0]}"
    return [lines[0], "", f"    {made['command']}", ""]


def write_page(docs: Path) -> None:
    """Write both parts of the page that there are figures for, and their plots.

    Raises:
        DataError: no figures, or a page without the places for them.
    """
    content = _read(docs / RESULTS)
    page = docs / PAGE
    try:
        text = page.read_text("utf-8")
    except OSError as error:
        raise DataError(f"{page}: cannot be read ({error.strerror}); give --docs") from None
    for part, lines, draw, plot in (
        ("loop", loop_lines, _draw_loop, LOOP_PLOT),
        ("early", early_lines, _draw_early, EARLY_PLOT),
    ):
        if part in content:
            text = _replaced(text, part, lines(content[part]), page)
            draw(content[part]["figures"], docs / plot)
    page.write_text(text, encoding="utf-8")


def _replaced(text: str, part: str, lines: list[str], page: Path) -> str:
    before, begin, rest = text.partition(begin_of(part))
    _, end, after = rest.partition(end_of(part))
    if not begin or not end:
        raise DataError(f"{page}: has no place for the figures: put back the comments of {part}")
    body = "\n".join(lines)
    return f"{before}{begin}\n\n{body}\n\n{end}{after}"


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); name runs with --loop and --early"
        ) from None


# --- plots ----------------------------------------------------------------------------------------


def _draw_loop(found: dict[str, Any], path: Path) -> None:
    """Success over mean tries; blind retrying is the line between its two ends."""
    from matplotlib.figure import Figure

    from ifailsense_ros.closed_loop.monitors import NOBODY, RETRY_ONCE

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    monitors = found["monitors"]
    ends = [monitors[name] for name in (NOBODY, RETRY_ONCE)]
    axes.plot(
        [row["tries"] for row in ends],
        [row["success"] for row in ends],
        color="0.6",
        linestyle="--",
        zorder=1,
        label="retrying blindly",
    )
    for number, (name, row) in enumerate(monitors.items()):
        bars = {
            f"{axis}err": [[row[key] - row[f"{key}_95"][0]], [row[f"{key}_95"][1] - row[key]]]
            for axis, key in (("x", "tries"), ("y", "success"))
        }
        style = {"fmt": "o", "capsize": 3, "color": f"C{number}", "label": name}
        axes.errorbar(row["tries"], row["success"], **bars, **style)
    axes.set_xlabel("attempts at a task, mean")
    axes.set_ylabel("tasks done in the end")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _draw_early(found: dict[str, Any], path: Path) -> None:
    """Left: what can be told at which moment. Right: seconds gained against false alarms."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    shares = [float(fraction) for fraction in found["at"]]
    for name, label in (("auc", "AUC"), ("detected", "announced at 5 % false alarms")):
        rows = list(found["at"].values())
        left.plot(shares, [row[name] for row in rows], marker="o", label=label)
        low, high = zip(*(row[f"{name}_95"] for row in rows), strict=True)
        left.fill_between(shares, low, high, alpha=0.2)
    left.set_xlabel("share of the attempt seen")
    left.set_ylim(0, 1.02)
    left.grid(alpha=0.3)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    for way, label in WAYS.items():
        rows = [by_way[way] for by_way in found["announced"].values()]
        rows = [row for row in rows if row["lead_s"] is not None]
        alarms, lead = ([row[key] for row in rows] for key in ("false_alarms", "lead_s"))
        right.plot(alarms, lead, marker="o", label=label)
        for row in rows:
            place = (row["false_alarms"], row["lead_s"])
            text = f"{row['detected']:.0%}"
            right.annotate(text, place, textcoords="offset points", xytext=(4, 6), fontsize=8)
    right.set_xlabel("false alarms")
    right.set_ylabel("mean seconds before the end\n(beside: failures announced)")
    right.margins(0.12, 0.15)
    right.grid(alpha=0.3)
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


# --- the command ----------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ifailsense closed-loop report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--loop", type=Path, help="folder of `ifailsense closed-loop`")
    parser.add_argument("--early", type=Path, help="folder of `ifailsense closed-loop early`")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args(argv)
    try:
        results = args.docs / RESULTS
        content = _read(results) if results.exists() else {}
        for part, folder, name in zip(
            PARTS, (args.loop, args.early), (FIGURES, EARLY), strict=True
        ):
            if folder is not None:
                content[part] = _read(folder / name)
        if args.loop or args.early:
            write_json(results, {part: content[part] for part in PARTS if part in content})
        write_page(args.docs)
    except IFailSenseError as error:
        print(f"ifailsense closed-loop report: {error}", file=sys.stderr)
        return 2
    print(args.docs / PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
