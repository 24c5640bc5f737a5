"""The report's tables that repeat the paper's: Table I, Figure 6, Table II's role, ablations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, stdev

from ifailsense_ros.data.failure_classes import SEMANTIC_FAILURES
from ifailsense_ros.evaluate.breakdown import by_class, compared, figures
from ifailsense_ros.evaluate.votes import (
    FS_MAJORITY,
    MEAN_P,
    STORED,
    VLM_ALONE,
    fewer_heads,
    redecided,
    rules_of,
)
from ifailsense_ros.experiments.cells import CONTROLS, SEEDS, TINY_LAYERS
from ifailsense_ros.experiments.paper import FIGURE_6, TABLE_1, TABLE_2, PaperRow
from ifailsense_ros.experiments.results import (
    HEADS,
    NOT_RUN,
    Loaded,
    Results,
    line,
    ratio,
    table,
)

POVS = ((1, "-1pov"), (2, ""))
FAILURES_PICTURE = "results-failures.png"
RECIPES = ("sim-tiny", "sim-tiny-smf")


def recipes_of(results: Results) -> list[str]:
    """The headline recipes that have cells."""
    return [r for r in RECIPES if f"train/{r}" in results.place.cells]


def table_1(results: Results) -> list[str]:
    """Base, LoRA only and full; one and two PoV."""
    rows = []
    for recipe in recipes_of(results):
        for pov, tail in POVS:
            name, base = f"{recipe}{tail}/smf", f"{recipe}{tail}/base"
            loaded = results.get(name)
            lora = None if loaded is None else figures(redecided(loaded.rows, VLM_ALONE))
            rows.append(results.row([recipe, "base, by answer words", pov], base))
            rows.append(results.row([recipe, "LoRA only", pov], name, lora))
            rows.append(results.row([recipe, "full", pov], name))
    rows += [_paper(r) for r in TABLE_1]
    out = table(["recipe", "what", "PoV", *HEADS], rows)
    for recipe in recipes_of(results):
        for pov, tail in POVS:
            loaded = results.get(f"{recipe}{tail}/smf")
            if loaded is not None:
                difference = compared(loaded.rows, redecided(loaded.rows, VLM_ALONE))
                out.append(f"- {recipe}, {pov} PoV, full against LoRA only: {_said(difference)}")
    return [*out, "", *_seeds(results), *_words(results)]


def _paper(row: PaperRow) -> str:
    """A row of the paper, in italics."""
    numbers = (row.accuracy, row.precision, row.recall, row.f1)
    cells = ["paper", row.method, row.num_pov, *(f"{x:.4f}" for x in numbers), "not reported"]
    return line([f"*{c}*" for c in cells])


def _said(difference: dict) -> str:
    low, high = difference["difference_95"]
    return (
        f"{difference['difference']:+.3f} accuracy ({low:+.3f} to {high:+.3f}), "
        f"{difference['only_a']} pairs only the first got right, {difference['only_b']} only the "
        f"second, p = {difference['p']:.3f} (permutation by scene)"
    )


def _seeds(results: Results) -> list[str]:
    """Accuracy and failure recall of each seed, and over them."""
    rows = []
    for recipe in recipes_of(results):
        for pov, tail in POVS:
            names = [f"{recipe}{tail}{f'-seed{s}' if s else ''}/smf" for s in SEEDS]
            found = [results.get(n) for n in names]
            for metric, head in (("accuracy", "accuracy"), ("failure_recall", "failure recall")):
                values = [None if f is None else f.figures[metric] for f in found]
                known = [v for v in values if v is not None]
                over = (
                    f"{mean(known):.3f} ± {stdev(known):.3f}"
                    if len(known) == len(SEEDS)
                    else NOT_RUN
                )
                each = (NOT_RUN if v is None else f"{v:.3f}" for v in values)
                rows.append(line([recipe, pov, head, *each, over]))
    heads = ["recipe", "PoV", "", *(f"seed {s}" for s in SEEDS), "mean ± sd"]
    return ["Each seed draws everything anew, stage 0 included:", "", *table(heads, rows)]


def _words(results: Results) -> list[str]:
    """Shared phrasings, and what filtering the pairs changed."""
    rows = []
    for recipe in recipes_of(results):
        for pov, tail in POVS:
            stem, label = f"{recipe}{tail}", [recipe, pov]
            rows.append(results.row([*label, "own phrasings"], f"{stem}/smf"))
            rows.append(
                results.row(
                    [*label, "phrasings of training, as in the paper"], f"{stem}/train-words"
                )
            )
            every = results.get(f"{stem}/every-pair")
            if every is None:
                rows.append(results.row([*label, "unfiltered pairs"], f"{stem}/every-pair"))
                continue
            unfiltered = [replace(p, counted=True) for p in every.rows if p.unfiltered]
            found = figures(unfiltered)
            rows.append(results.row([*label, "unfiltered pairs"], f"{stem}/every-pair", found))
            infeasible = [p for p in every.rows if p.why_not_counted == "infeasible"]
            found = figures([replace(p, counted=True) for p in infeasible])
            numbers = [ratio(found, "accuracy"), "–", "–", "–", ratio(found, "failure_recall")]
            what = "wrong instructions that were impossible from the start, apart"
            rows.append(line([*label, what, *numbers]))
    return [
        "The same checkpoints in other words, and on pairs that no rule has filtered:",
        "",
        *table(["recipe", "PoV", "pairs", *HEADS], rows),
    ]


def figure_6(results: Results) -> list[str]:
    """Detection of each class of failure, and false alarms on the twins."""
    out = results.picture(
        "Detection of each class of failure, and false alarms",
        FAILURES_PICTURE,
        (f"{recipe}/failures" for recipe in recipes_of(results)),
    )
    for recipe in recipes_of(results):
        for pov, tail in POVS:
            name = f"{recipe}{tail}/failures"
            loaded = results.get(name)
            out += [f"**{recipe}, {pov} PoV**", ""]
            if loaded is None:
                out += [results.why_not(name), ""]
                continue
            rows = []
            for kind, found in by_class(loaded.rows).items():
                said = f"{kind} (semantic)" if kind in SEMANTIC_FAILURES else kind
                numbers = (ratio(found, m) for m in ("failure_recall", "false_alarms", "accuracy"))
                unknown = ratio(found, "unknown")
                rows.append(line([said, found["scenes"], *numbers, unknown]))
            heads = ["class", "pairs", "detected", "false alarms on twins", "accuracy", "UNKNOWN"]
            out += table(heads, rows)
    said = ", ".join(f"{who} {value:.2f}" for who, value in FIGURE_6.items())
    out += [
        f"*Paper, Figure 6, on AHA (RLBench; another data set, another world, false alarms not "
        f"reported): {said}.*",
        "",
    ]
    return out


def unseen(results: Results) -> list[str]:
    """The unseen world: as transferred, blocks trained on it, blocks trained on both."""
    rows = []
    for recipe in recipes_of(results):
        for pov, tail in POVS:
            label = [f"{recipe}, zero-shot", pov]
            rows.append(results.row(label, f"{recipe}{tail}/unseen"))
    rows.append(
        results.row(["sim-tiny, FS blocks re-trained on 1,000 episodes of it", 2],
                    "blocks-on-unseen/unseen")
    )  # fmt: skip
    rows.append(
        results.row(["sim-tiny, FS blocks re-trained on both worlds", 2],
                    "blocks-on-both-worlds/unseen")
    )  # fmt: skip
    for r in TABLE_2:
        numbers = (f"*{x:.4f}*" for x in (r.accuracy, r.precision, r.recall, r.f1))
        rows.append(line([f"*paper: {r.method}*", f"*{r.num_pov}*", *numbers, "*not reported*"]))
    out = table(["what", "PoV", *HEADS], rows)
    out += ["The world that the VLM came from, seen through the re-trained blocks:", ""]
    names = ("sim-tiny/smf", "blocks-on-unseen/smf", "blocks-on-both-worlds/smf")
    out += table(["cell", *HEADS], [results.row([n], n) for n in names])
    return out


def votes(results: Results) -> list[str]:
    """Every way to decide from the same votes; K of them; other layers."""
    out: list[str] = []
    for pov, tail in POVS:
        name = f"sim-tiny{tail}/smf"
        loaded = results.get(name)
        out += [f"**sim-tiny, {pov} PoV**", ""]
        if loaded is None:
            out += [results.why_not(name), ""]
            continue
        rows = [
            results.row([_rule_name(rule)], name, figures(redecided(loaded.rows, rule)))
            for rule in rules_of(loaded.rows)
        ]
        out += table(["decided by", *HEADS], rows)
    return [*out, *_fewer_heads(results)]


def _fewer_heads(results: Results) -> list[str]:
    name = "head-on-every-layer/smf"
    loaded = results.get(name)
    rows = []
    for k in range(1, TINY_LAYERS + 1):
        rule = None if loaded is None else fewer_heads(_sources(loaded), k)
        found = None if loaded is None else figures(redecided(loaded.rows, rule))
        rows.append(results.row([k, rule or ""], name, found))
    return [
        f"K of the heads, from one training with a head on each of the {TINY_LAYERS} decoder "
        "layers (the heads share no weights, the VLM is the same). K = 5 needs five layers, and "
        f"the small base has {TINY_LAYERS}:",
        "",
        *table(["K", "votes", *HEADS], rows),
    ]


def _sources(loaded: Loaded) -> Sequence[str]:
    return next(p.sources for p in loaded.rows if p.sources)


def _rule_name(rule: str) -> str:
    said = {
        STORED: "the vote (as the node does)",
        VLM_ALONE: "the VLM alone (LoRA only)",
        FS_MAJORITY: "majority of the FS blocks",
        MEAN_P: "mean probability, by weight",
    }
    return said.get(rule, f"head on layer {rule.removeprefix('fs:')} alone")


def inputs(results: Results) -> list[str]:
    """T and the montage's layout."""
    cells = (
        ("T = 2, cells of 84 x 84", "t2/smf"),
        ("T = 4, cells of 84 x 84 (sim-tiny)", "sim-tiny/smf"),
        ("T = 8, cells of 84 x 84", "t8/smf"),
        ("T = 4, cells of 112 x 56: one square of 224 x 224", "square-224/smf"),
    )
    return table(["montage", *HEADS], [results.row([said], name) for said, name in cells])


def controls(results: Results) -> list[str]:
    """Models that are not shown part of the input, or were trained on coins."""
    rows = [results.row(["sim-tiny"], "sim-tiny/smf")]
    rows += [results.row([c.replace("_", " ")], f"control-{c}/smf") for c in CONTROLS]
    return table(["shown", *HEADS], rows)
