"""The report's tables on when to believe a verdict: by what a pair is about, on combinations never
seen, calibration, promises, pictures unlike any seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ifailsense_ros.core.calibration import Scores, ranks_within, reliability, threshold
from ifailsense_ros.core.errors import IFailSenseError
from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.data.experts import ExpertSet
from ifailsense_ros.evaluate.asked import SEMANTIC
from ifailsense_ros.evaluate.breakdown import contrast_name, figures, grouped
from ifailsense_ros.evaluate.predictions import Prediction
from ifailsense_ros.evaluate.votes import guarded
from ifailsense_ros.experiments.cells import HELD_OUT
from ifailsense_ros.experiments.held_out import is_held_out
from ifailsense_ros.experiments.results import HEADS, Loaded, Results, line, ratio, table
from ifailsense_ros.experiments.sections import POVS, recipes_of
from ifailsense_ros.experiments.state import write_json

CONTRAST_PICTURE, CALIBRATION_PICTURE = "results-contrast.png", "results-calibration.png"
SEEN_TOGETHER = "seen_together.json"
RATES = (0.02, 0.05, 0.10)
"""Accepted error rates whose promises are tried."""


def kinds_of_pairs(results: Results) -> list[str]:
    """Accuracy by category, by contrast, by phrasing."""
    cells = (f"{recipe}{tail}/smf" for recipe in recipes_of(results) for _, tail in POVS)
    out = results.picture("Accuracy by contrast and category", CONTRAST_PICTURE, cells)
    for recipe in recipes_of(results):
        for pov, tail in POVS:
            name = f"{recipe}{tail}/smf"
            loaded = results.get(name)
            out += [f"**{recipe}, {pov} PoV**", ""]
            if loaded is None:
                out += [results.why_not(name), ""]
                continue
            for head, key in (
                ("category", lambda p: p.category),
                ("contrast", contrast_name),
                ("phrasing", lambda p: str(p.phrasing)),
            ):
                rows = [
                    line([group, f["n"], ratio(f, "accuracy"), ratio(f, "failure_recall")])
                    for group, f in grouped(loaded.rows, key).items()
                ]
                out += table([head, "pairs", "accuracy", "failure recall"], rows)
    return out


# --- never seen together --------------------------------------------------------------------------


def never_together(results: Results) -> list[str]:
    """Pairs of tasks kept out of a training; and those that training happened not to have."""
    rows = []
    for name in ("held-out-pairs/smf", "sim-tiny/smf"):
        loaded = results.get(name)
        for said, wanted in (("kept out of its training", True), ("the others", False)):
            label = [name.removesuffix("/smf"), said if "held" in name else f"the same: {said}"]
            found = None
            if loaded is not None:
                kept = _pairs_where(loaded.rows, lambda d, a: is_held_out(d, a, HELD_OUT), wanted)
                found = figures(kept)
                label.append(found["scenes"])
            else:
                label.append("")
            rows.append(results.row(label, name, found))
    out = [
        f"One in {HELD_OUT} pairs of tasks (done, asked), by a hash, was kept out of every stage "
        "of one training. Both members of a test pair are counted where its wrong one is such:",
        "",
        *table(["trained", "pairs of tasks", "scenes", *HEADS], rows),
    ]
    return [*out, *_by_chance(results)]


def _pairs_where(rows: Sequence[Prediction], which, wanted: bool) -> list[Prediction]:
    """The SMF pairs, both members, whose wrong instruction asks for a pair of tasks as wanted."""
    scenes = {
        p.cluster
        for p in rows
        if p.kind == SEMANTIC and p.counted and which(p.performed_task, p.asked_task) is wanted
    }
    return [p for p in rows if p.cluster in scenes]


def _by_chance(results: Results) -> list[str]:
    loaded = results.get("sim-tiny/smf")
    if loaded is None:
        return []
    seen = seen_pairs(results, loaded)
    if seen is None:
        return ["Which pairs of tasks training could not have shown is not known without it.", ""]
    kept = _pairs_where(loaded.rows, lambda d, a: (d, a) not in seen, True)
    if not kept:
        return [
            f"Without keeping any out, training can show each of the {len(seen)} pairs of tasks "
            "that the test pairs are about.",
            "",
        ]
    rows = [results.row([len(kept) // 2], "sim-tiny/smf", figures(kept))]
    return [
        "Test pairs whose tasks no training episode could show together, nothing kept out:",
        "",
        *table(["scenes", *HEADS], rows),
    ]


def seen_pairs(results: Results, loaded: Loaded) -> set[tuple[str, str]] | None:
    """(done, asked) of every wrong instruction that the training of a checkpoint could draw.

    It takes the training data to find out; the answer is kept beside the predictions. None where
    neither is there.
    """
    place = results.place
    trained_on = loaded.meta.get("training_data_hash")
    path = (place.out if place.kept is None else place.kept.folder) / SEEN_TOGETHER
    if path.exists():
        known = json.loads(path.read_text("utf-8"))
        if known["training_data_hash"] == trained_on:
            return {tuple(pair) for pair in known["pairs"]}
    try:
        if place.data_hash("training", "train") != trained_on:
            return None
        experts = ExpertSet(place.data_folder("training", "train"), "train").experts
    except IFailSenseError:
        return None
    found = {(e.task, t) for e in experts for t in (e.wrong_tasks or ())}
    found |= {(e.task, e.negative_task) for e in experts if e.negative_task}
    write_json(path, {"training_data_hash": trained_on, "pairs": sorted(found)})
    return found


# --- probabilities and promises -------------------------------------------------------------------


def calibration(results: Results) -> list[str]:
    """Reliability of p_success, and what promised error rates cost and keep."""
    cells = (f"sim-tiny{tail}/{what}" for _, tail in POVS for what in ("smf", "failures", "unseen"))
    out = results.picture("Calibration curve", CALIBRATION_PICTURE, cells)
    for pov, tail in POVS:
        out += [f"**sim-tiny, {pov} PoV**", ""]
        rows = []
        for what, name in (
            ("SMF pairs", f"sim-tiny{tail}/smf"),
            ("failures and twins", f"sim-tiny{tail}/failures"),
            ("unseen world", f"sim-tiny{tail}/unseen"),
        ):
            loaded = results.get(name)
            if loaded is None:
                rows.append(line([what, results.why_not(name), "", "", ""]))
                continue
            sure = [p for p in loaded.rows if p.counted and p.outcome != Outcome.UNKNOWN]
            r = reliability([p.p_success for p in sure], [p.label for p in sure])
            numbers = (f"{x:.4f}" for x in (r.ece, r.brier, r.log_loss))
            rows.append(line([what, len(sure), *numbers]))
        heads = ["judged", "verdicts", "expected calibration error", "Brier score", "log loss"]
        out += table(heads, rows)
        out += _promises(results, tail)
    return out


def _promises(results: Results, tail: str) -> list[str]:
    """Split-conformal thresholds from validation, tried on pairs that they have not seen."""
    names = f"sim-tiny{tail}/validation", f"sim-tiny{tail}/smf"
    validation, tested = (results.get(n) for n in names)
    if validation is None or tested is None:
        return [results.why_not(n) for n in names if results.get(n) is None] + [""]
    scores = _scores(validation)
    rows = []
    for rate in RATES:
        if ranks_within(rate, min(len(scores.failures), len(scores.successes))) < 1:
            continue
        kept = _sure_enough(tested.rows, scores, rate)
        found = figures(kept)
        answered = [p for p in kept if p.counted and p.outcome != Outcome.UNKNOWN]
        missed = [p for p in kept if p.counted and not p.label and p.outcome == Outcome.SUCCESS]
        failures = sum(1 for p in kept if p.counted and not p.label)
        right = sum(p.right for p in answered) / len(answered) if answered else float("nan")
        rows.append(
            line(
                [
                    f"{rate:.0%}",
                    f"{len(missed) / failures:.3f}",
                    ratio(found, "false_alarms"),
                    f"{len(answered) / found['n']:.3f}",
                    f"{right:.3f}",
                ]
            )
        )
    return [
        "Promises: at most this share of failures called SUCCESS, and of successes called FAILURE; "
        "thresholds from validation alone, UNKNOWN where they cannot be kept:",
        "",
        *table(
            ["promised", "missed failures", "false alarms", "answered", "right where answered"],
            rows,
        ),
    ]


def _log_odds(rows: Sequence[Prediction]) -> np.ndarray:
    p = np.array([row.p_success for row in rows], float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(p) - np.log1p(-p)


def _scores(loaded: Loaded) -> Scores:
    rows = [p for p in loaded.rows if p.counted]
    labels, outcomes = [p.label for p in rows], [Outcome(p.outcome) for p in rows]
    return Scores.of(labels, outcomes, _log_odds(rows))


def _sure_enough(rows: Sequence[Prediction], scores: Scores, rate: float) -> list[Prediction]:
    """The verdicts that keep the promise; the others as UNKNOWN.

    The temperature of the vote divides all log-odds alike, and so changes nothing here.
    """
    above = {
        int(Outcome.SUCCESS): threshold(scores.failures, rate),
        int(Outcome.FAILURE): threshold(scores.successes, rate),
    }
    kept = []
    for p, z in zip(rows, _log_odds(rows), strict=True):
        sure = z if p.outcome == Outcome.SUCCESS else -z
        keeps = p.outcome == Outcome.UNKNOWN or sure > above[p.outcome]
        kept.append(p if keeps else replace(p, outcome=int(Outcome.UNKNOWN)))
    return kept


def guard(results: Results) -> list[str]:
    """What the out-of-distribution guard would refuse, at the checkpoint's threshold."""
    rows = []
    for pov, tail in POVS:
        for what in ("smf", "failures", "unseen"):
            name = f"sim-tiny{tail}/{what}"
            loaded = results.get(name)
            label = [pov, what]
            if loaded is None:
                rows.append(line([*label, results.why_not(name), "", "", "", ""]))
                continue
            limit = loaded.meta.get("guard_threshold")
            if limit is None:
                rows.append(line([*label, "the checkpoint has no guard", "", "", "", ""]))
                continue
            found = figures(guarded(loaded.rows, limit))
            kept = [p for p in loaded.rows if p.counted and not p.montage_distance > limit]
            right = figures(kept)["accuracy"] if kept else None
            rows.append(
                line(
                    [
                        *label,
                        f"{1 - len(kept) / found['n']:.3f}",
                        *(ratio(found, m) for m in ("accuracy", "failure_recall", "false_alarms")),
                        "–" if right is None else f"{right:.3f}",
                    ]
                )
            )
    heads = ["PoV", "data set", "refused", "accuracy", "failure recall", "false alarms"]
    return [
        "All other tables are without the guard, which would answer UNKNOWN to a whole new world. "
        "With it, as the node judges unless told otherwise (UNKNOWN is wrong):",
        "",
        *table([*heads, "accuracy of those not refused"], rows),
    ]
