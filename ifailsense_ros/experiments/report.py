"""Write ``docs/results.md`` and its pictures from the predictions that are there, and nothing else.

A figure whose cell was not run is a line that says so, with the command; one whose predictions
break a rule of the evaluation (DESIGN 9) is refused by name.
"""

from __future__ import annotations

from pathlib import Path

from ifailsense_ros.evaluate.breakdown import ALL_CONTROL, by_class, contrast_name, grouped
from ifailsense_ros.evaluate.metrics import RESAMPLES
from ifailsense_ros.evaluate.predict import TEST
from ifailsense_ros.experiments import figures, sections, trust
from ifailsense_ros.experiments.cells import TrainingCell
from ifailsense_ros.experiments.opening import Chosen
from ifailsense_ros.experiments.results import Results, line, ratio, table
from ifailsense_ros.experiments.state import Workplace

PAGE = "results.md"
PICTURES = "img"
BLIND_LIMIT = 0.60
"""What a control may reach: above it something leaks (DESIGN 9.1)."""

_SECTIONS = (
    ("Semantic misalignment: the paper's Table I", sections.table_1),
    ("Control failures: the paper's Figure 6", sections.figure_6),
    ("An unseen world, in the part of the paper's Table II", sections.unseen),
    ("How to decide from the votes", sections.votes),
    ("Keyframes and montage", sections.inputs),
    ("Controls", sections.controls),
    ("By category, contrast and phrasing", trust.kinds_of_pairs),
    ("Tasks never seen together", trust.never_together),
    ("Calibration and promises", trust.calibration),
    ("Pictures unlike any seen", trust.guard),
)


def write_report(place: Workplace, chosen: Chosen, docs: Path, split: str) -> Path:
    """Write the page and its pictures.

    Args:
        place: the cells.
        chosen: checkpoints that may see a test split.
        docs: folder of the page; a split that is not test is reported beside the results instead.
        split: that the figures are about.

    Returns:
        The page.
    """
    results = Results(place, chosen, split)
    folder = docs if split == TEST else place.out / f"report-{split}"
    body: list[str] = []
    for title, make in _SECTIONS:
        body += [f"## {title}", "", *make(results)]
    figures.draw(results, folder / PICTURES)
    page = [*_head(results), *_aims(results), *body, *_cells(results)]
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(page)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    (folder / PAGE).write_text(text.rstrip() + "\n", "utf-8")
    return folder / PAGE


def _head(results: Results) -> list[str]:
    out = [
        "# Results",
        "",
        "Written by `make experiments` (`ifailsense experiments --report`) from kept predictions; "
        "no figure is typed by hand. "
        + (
            "All of them are about simulated episodes: test splits that nothing was tuned on."
            if results.split == TEST
            else f"**About the split {results.split}, which is for trying things: not results.**"
        ),
        "",
        "- The positive class is success, as in the paper. UNKNOWN counts as wrong. Figures are "
        "without the out-of-distribution guard and without promised error rates, unless they say "
        "so.",
        f"- In brackets: 95 % intervals, from {RESAMPLES} bootstrap samples of whole scenes with a "
        "fixed seed (both pairs of an episode, a failure and its twin, stay together); Wilson's "
        "where nothing was wrong.",
        "- *Rows in italics are the paper's own figures: another data set, another world, a 3B "
        "model. They stand beside ours and are not comparable.*",
        "",
    ]
    data = {
        (m["data"], m["split"], m["data_hash"], ", ".join(m["generators"]))
        for m in (f.meta for f in results.used.values())
    }
    rows = [line([n, s, f"`{h[:16]}`", g or "not known"]) for n, s, h, g in sorted(data)]
    out += table(["data set", "split", "sha256 of its manifest", "generator version"], rows)
    if results.refused:
        out += ["**Refused**, because a rule of the evaluation was broken:", ""]
        out += [f"- {name}: {why}" for name, why in sorted(results.refused.items())]
        out.append("")
    return out


def _aims(results: Results) -> list[str]:
    """The figures that were aimed at, and whether they are reached."""
    rows = []

    def add(aim: str, name: str, at_least: float | None, found, at_most: float | None = None):
        loaded = results.get(name)
        if loaded is None:
            rows.append(line([aim, results.why_not(name), ""]))
            return
        value, said = found(loaded)
        if value is None:
            rows.append(line([aim, "–", ""]))
            return
        reached = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        rows.append(line([aim, said, "reached" if reached else "**not reached**"]))

    def overall(metric: str):
        return lambda loaded: (loaded.figures[metric], ratio(loaded.figures, metric))

    def worst_contrast(loaded):
        found = grouped(loaded.rows, contrast_name)
        name, worst = min(found.items(), key=lambda item: item[1]["accuracy"])
        return worst["accuracy"], f"{name}: {ratio(worst, 'accuracy')}"

    def control(metric: str):
        def find(loaded):
            found = by_class(loaded.rows).get(ALL_CONTROL)
            return (None, "") if found is None else (found[metric], ratio(found, metric))

        return find

    for recipe in sections.recipes_of(results):
        for pov, tail in sections.POVS:
            stem, who = f"{recipe}{tail}", f"{recipe}, {pov} PoV"
            add(f"{who}: accuracy ≥ 0.95", f"{stem}/smf", 0.95, overall("accuracy"))
            add(f"{who}: failure recall ≥ 0.95", f"{stem}/smf", 0.95, overall("failure_recall"))
            add(f"{who}: ≥ 0.90 in every contrast", f"{stem}/smf", 0.90, worst_contrast)
            failures = f"{stem}/failures"
            add(
                f"{who}: six control classes detected ≥ 0.90",
                failures,
                0.90,
                control("failure_recall"),
            )
            add(
                f"{who}: false alarms on their twins ≤ 0.10",
                failures,
                None,
                control("false_alarms"),
                0.10,
            )
    for recipe in sections.recipes_of(results):
        add(
            f"{recipe}: unseen world, zero-shot ≥ 0.70",
            f"{recipe}/unseen",
            0.70,
            overall("accuracy"),
        )
    add(
        "unseen world, FS blocks re-trained ≥ 0.85",
        "blocks-on-unseen/unseen",
        0.85,
        overall("accuracy"),
    )
    for name in ("first_frame_only", "image_blind", "instruction_blind", "shuffled_labels"):
        add(
            f"control {name.replace('_', ' ')} ≤ {BLIND_LIMIT:.2f}",
            f"control-{name}/smf",
            None,
            overall("accuracy"),
            BLIND_LIMIT,
        )
    return ["## Aims", "", *table(["aim", "figure", ""], rows)]


def _cells(results: Results) -> list[str]:
    """What was trained, on what, and what is still to be run."""
    rows = []
    for cell in results.place.cells.values():
        if not isinstance(cell, TrainingCell):
            continue
        # Where it was trained is no business of the page: it is the same on every machine.
        of = [f.meta for f in results.used.values() if f.name.startswith(_stem(cell))]
        checkpoint = f"`{of[0]['checkpoint'].partition('+')[0]}`" if of else "not judged yet"
        rows.append(line([f"`{cell.name}`", cell.recipe, checkpoint]))
    return [
        "## Checkpoints",
        "",
        *table(["cell", "recipe", "checkpoint"], rows),
        "`ifailsense experiments --list` says what every cell costs; `--only NAME` runs one. "
        "`results/chosen.csv` says when a checkpoint was chosen, `results/opened.csv` when a test "
        "split was opened with it.",
        "",
    ]


def _stem(cell: TrainingCell) -> str:
    return f"{cell.name.removeprefix('train/')}/"
