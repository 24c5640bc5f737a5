"""The report's numbers, detector by detector and of two detectors against each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import binomtest

from ifailsense_ros.core.calibration import Reliability, reliability
from ifailsense_ros.core.verdict import Outcome, Reason
from ifailsense_ros.evaluate import summaries
from ifailsense_ros.evaluate.metrics import RESAMPLES, compare
from ifailsense_ros.evaluate.report.curves import Curve, precision_recall, roc
from ifailsense_ros.evaluate.report.episodes import JudgedEpisode, Merged


@dataclass(frozen=True)
class Bar:
    """A share with its interval.

    Attributes:
        n: episodes.
        value: 0..1.
        low, high: 95 % interval; None where there is none.
    """

    n: int
    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, summary: Mapping[str, Any], metric: str, n: int) -> Bar:
        """A figure of `metrics.summary` that is known there."""
        low, high = summary[f"{metric}_95"] or (None, None)
        return cls(n, summary[metric], low, high)


@dataclass(frozen=True)
class ReasonCount:
    """How often a detector gave no verdict for a reason.

    Attributes:
        name: of the `Reason`.
        count: episodes.
        detail: of the first of them.
    """

    name: str
    count: int
    detail: str


@dataclass(frozen=True)
class Bin:
    """One point of the reliability plot: mean p_success, share of successes with Wilson's
    interval, and episodes.
    """

    mean_p: float
    share: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class DetectorFigures:
    """All numbers of one detector.

    Attributes:
        name: `model_id`.
        judged: episodes, labelled or not.
        unlabelled: verdicts on episodes without a label, by name of the outcome.
        summary: `metrics.summary` of the labelled ones; None where there are none.
        categories: accuracy by task category.
        classes: share of failures found, by kind of failure, the seven classes first.
        reasons: of UNKNOWN, the most frequent first.
        scored: labelled episodes with a p_success: curves and reliability are about them.
        roc: success against failure; None without both.
        pr_success, pr_failure: with success, and failure, as the positive class.
        working_point: share of failures called SUCCESS, and of successes called SUCCESS, among
            the scored: where the verdicts themselves lie on the ROC plot; None without a curve.
        reliability: None where nothing is scored.
        bins: the filled bins of it.
    """

    name: str
    judged: int
    unlabelled: dict[str, int]
    summary: dict | None
    categories: dict[str, Bar]
    classes: dict[str, Bar]
    reasons: tuple[ReasonCount, ...]
    scored: int
    roc: Curve | None
    pr_success: Curve | None
    pr_failure: Curve | None
    working_point: tuple[float, float] | None
    reliability: Reliability | None
    bins: tuple[Bin, ...]


def figures_of(
    name: str, episodes: Sequence[JudgedEpisode], resamples: int = RESAMPLES
) -> DetectorFigures:
    """All numbers of one detector.

    Args:
        name: of the detector.
        episodes: that it judged.
        resamples: of the bootstrap.
    """
    found = summaries.figures_of([_judged(e, name) for e in episodes], resamples)
    details = {}
    for e in episodes:
        details.setdefault(Reason(e.results[name].reason).name, e.results[name].detail)
    labelled = [e for e in episodes if e.label is not None]
    scored = [
        e
        for e in labelled
        if e.results[name].outcome != Outcome.UNKNOWN and 0.0 <= e.results[name].p_success <= 1.0
    ]
    p = np.array([e.results[name].p_success for e in scored])
    truth = np.array([e.label for e in scored], bool)
    curve = roc(p, truth)
    called = np.array([e.results[name].outcome == Outcome.SUCCESS for e in scored], bool)
    point = (float(called[~truth].mean()), float(called[truth].mean())) if curve else None
    table = reliability(p, truth) if len(scored) else None
    return DetectorFigures(
        name=name,
        judged=len(episodes),
        unlabelled={outcome: n for outcome, n in found["unlabelled"].items() if outcome != "n"},
        summary=found["all"],
        categories={
            group: Bar.of(of, "accuracy", of["n"]) for group, of in found["category"].items()
        },
        classes={
            group: Bar.of(of, "failure_recall", of["failures"])
            for group, of in found["failure_class"].items()
        },
        reasons=tuple(
            ReasonCount(reason, count, details[reason])
            for reason, count in sorted(found["unknown"].items(), key=lambda item: -item[1])
        ),
        scored=len(scored),
        roc=curve,
        pr_success=precision_recall(p, truth),
        pr_failure=precision_recall(1.0 - p, ~truth),
        working_point=point,
        reliability=table,
        bins=_bins(table) if table is not None else (),
    )


def _judged(episode: JudgedEpisode, detector: str) -> summaries.Judged:
    row, first = episode.results[detector], episode.first
    return summaries.Judged(
        episode.label, row.outcome, row.reason, first.cluster, first.category, first.kind
    )


def _bins(table: Reliability) -> tuple[Bin, ...]:
    out = []
    for mean_p, share, n in zip(table.mean_p, table.success_share, table.counts, strict=True):
        if n:
            ci = binomtest(round(share * n), int(n)).proportion_ci(method="wilson")
            out.append(Bin(float(mean_p), float(share), float(ci.low), float(ci.high), int(n)))
    return tuple(out)


# --- two detectors --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Two detectors on the labelled episodes that both judged. UNKNOWN is wrong.

    Attributes:
        a, b: the detectors.
        both_right, only_a, only_b, both_wrong: episodes.
        p: of McNemar's exact test, two-sided.
        p_holm: the same after Holm's correction for all comparisons of the report.
        scenes: independent groups of episodes.
        difference, low, high: accuracy of a minus that of b, and the 95 % interval over scenes;
            None without an episode in common.
        p_scenes: of a permutation test that swaps the detectors scene by scene.
        differing: episodes on which the verdicts differ, labelled or not.
    """

    a: str
    b: str
    both_right: int
    only_a: int
    only_b: int
    both_wrong: int
    p: float
    p_holm: float
    scenes: int
    difference: float | None
    low: float | None
    high: float | None
    p_scenes: float | None
    differing: tuple[JudgedEpisode, ...]

    @property
    def n(self) -> int:
        """Labelled episodes that both judged."""
        return self.both_right + self.only_a + self.only_b + self.both_wrong


def mcnemar(only_a: int, only_b: int) -> float:
    """p of McNemar's exact test, two-sided: does one method get more right that the other does not?

    Args:
        only_a, only_b: pairs that only one of the methods got right.
    """
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction of several p-values, in their order."""
    out = [math.nan] * len(ps)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        out[i] = largest
    return out


def comparisons(merged: Merged, resamples: int = RESAMPLES) -> list[Comparison]:
    """Every pair of detectors."""
    found = [_comparison(merged, a, b, resamples) for a, b in combinations(merged.detectors, 2)]
    corrected = holm([c.p for c in found])
    return [replace(c, p_holm=p) for c, p in zip(found, corrected, strict=True)]


def _comparison(merged: Merged, a: str, b: str, resamples: int) -> Comparison:
    both = [e for e in merged.episodes if a in e.results and b in e.results]
    labelled = [e for e in both if e.label is not None]
    table = Counter((bool(e.right(a)), bool(e.right(b))) for e in labelled)
    clusters = [e.first.cluster for e in labelled]
    by_scene = None
    if labelled:
        by_scene = compare(
            [bool(e.right(a)) for e in labelled],
            [bool(e.right(b)) for e in labelled],
            clusters,
            resamples=resamples,
        )
    p = mcnemar(table[True, False], table[False, True])
    return Comparison(
        a=a,
        b=b,
        both_right=table[True, True],
        only_a=table[True, False],
        only_b=table[False, True],
        both_wrong=table[False, False],
        p=p,
        p_holm=p,
        scenes=len(set(clusters)),
        difference=by_scene["difference"] if by_scene else None,
        low=by_scene["difference_95"][0] if by_scene else None,
        high=by_scene["difference_95"][1] if by_scene else None,
        p_scenes=by_scene["p"] if by_scene else None,
        differing=tuple(e for e in both if e.results[a].outcome != e.results[b].outcome),
    )
