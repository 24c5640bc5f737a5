"""The report's numbers against known input."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pyarrow", reason="needs pyarrow: the `train` extra")
pytest.importorskip("scipy", reason="needs SciPy: the `train` extra")

from made_results import made_results
from scipy.stats import mannwhitneyu

from ifailsense_ros.core.verdict import Outcome, Reason
from ifailsense_ros.evaluate.report.curves import precision_recall, roc, thinned
from ifailsense_ros.evaluate.report.episodes import merge, worth_showing
from ifailsense_ros.evaluate.report.figures import (
    comparisons,
    figures_of,
    holm,
    mcnemar,
)
from ifailsense_ros.evaluate.results import Result
from ifailsense_ros.evaluate.summaries import NO_NAME

A, B = "a-1", "b-2"


def row(number: int, label: bool | None, said: Outcome, detector: str = A, **changes) -> Result:
    """A row whose p_success agrees with what was said."""
    made = replace(
        made_results(1, detectors=(detector,))[0],
        key=f"e{number}",
        instruction="lift it",
        group="",
        label=label,
        category="lifting",
        kind="expert" if label else "semantic",
        outcome=int(said),
        reason=int(Reason.LOW_CONFIDENCE if said == Outcome.UNKNOWN else 0),
        detail="",
        p_success={Outcome.UNKNOWN: math.nan, Outcome.SUCCESS: 0.8, Outcome.FAILURE: 0.3}[said],
    )
    return replace(made, **changes)


S, F, U = Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNKNOWN


# --- curves


def test_curves_of_four_scores() -> None:
    scores, truth = [0.9, 0.8, 0.7, 0.6], [True, True, False, True]
    curve = roc(scores, truth)
    assert curve.area == pytest.approx(2 / 3)
    assert list(curve.x) == [0, 0, 0, 1, 1]
    assert list(curve.y) == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1])
    curve = precision_recall(scores, truth)
    assert list(curve.y) == pytest.approx([1, 1, 2 / 3, 3 / 4])
    assert curve.area == pytest.approx(1 / 3 + 1 / 3 + 1 / 3 * 3 / 4)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60).filter(
        lambda pairs: len({truth for _, truth in pairs}) == 2
    )
)
def test_area_of_the_roc_is_the_rank_statistic_whatever_the_ties(pairs) -> None:
    scores = np.array([score / 6 for score, _ in pairs])
    truth = np.array([t for _, t in pairs])
    u = mannwhitneyu(scores[truth], scores[~truth]).statistic
    assert roc(scores, truth).area == pytest.approx(u / (truth.sum() * (~truth).sum()))
    curve = precision_recall(scores, truth)
    assert 0 < curve.area <= 1 + 1e-12 and curve.x[-1] == 1
    assert curve.y[-1] == pytest.approx(truth.mean())


def test_one_class_alone_has_no_curve() -> None:
    assert roc([0.1, 0.2], [True, True]) is None
    assert precision_recall([], []) is None
    with pytest.raises(ValueError, match="must be numbers"):
        roc([math.nan, 0.2], [True, False])


def test_thinning_keeps_ends_and_area() -> None:
    rng = np.random.default_rng(0)
    whole = roc(rng.random(5000), rng.random(5000) < 0.5)
    thin = thinned(whole, 50)
    assert len(thin.x) == 50 and thin.area == whole.area
    assert (thin.x[0], thin.y[0], thin.x[-1], thin.y[-1]) == (0, 0, 1, 1)
    assert thinned(thin, 50) is thin


# --- one detector


def test_figures_of_a_known_table() -> None:
    said = [*[S] * 6, F, U, *[F] * 9, S, S, U]
    labels = [*[True] * 8, *[False] * 12]
    rows = [row(i, label, o) for i, (label, o) in enumerate(zip(labels, said, strict=True))]
    rows += [row(90, None, S), row(91, None, U, reason=int(Reason.CAMERA_STALE), detail="exo")]
    merged = merge([("one", rows)])
    found = figures_of(A, merged.of(A), 100)
    assert found.judged == 22 and found.scored == 18
    assert found.summary["confusion"] == {
        "true_success": 6,
        "false_alarm": 1,
        "unknown_of_success": 1,
        "missed_failure": 2,
        "true_failure": 9,
        "unknown_of_failure": 1,
    }
    assert found.summary["accuracy"] == 0.75
    assert found.unlabelled == {"SUCCESS": 1, "FAILURE": 0, "UNKNOWN": 1}
    assert [(r.name, r.count, r.detail) for r in found.reasons] == [
        ("LOW_CONFIDENCE", 2, ""),
        ("CAMERA_STALE", 1, "exo"),
    ]
    # Two values of p: the ROC curve has one corner, and the verdicts lie on it.
    assert found.working_point == pytest.approx((2 / 11, 6 / 7))
    assert (found.roc.x[1], found.roc.y[1]) == pytest.approx(found.working_point)
    assert [(b.n, b.share, b.mean_p) for b in found.bins] == [
        (10, pytest.approx(1 / 10), pytest.approx(0.3)),
        (8, pytest.approx(6 / 8), pytest.approx(0.8)),
    ]
    for b in found.bins:
        assert b.low < b.share < b.high


def test_groups_have_accuracy_and_failures_their_detection_rate() -> None:
    rows = [
        row(0, True, S, category="pushing"),
        row(1, False, S, category="pushing", kind="missing_rotation"),
        row(2, False, F, category="", kind="incomplete_grasp"),
        row(3, False, U, kind="incomplete_grasp"),
        row(4, False, F, kind="dropped"),
        row(5, False, F, kind=""),
        row(6, None, F, category="secret", kind="secret"),
    ]
    found = figures_of(A, merge([("one", rows)]).of(A), resamples=50)
    assert {k: (b.n, b.value) for k, b in found.categories.items()} == {
        "lifting": (3, pytest.approx(2 / 3, abs=1e-4)),
        "pushing": (2, 0.5),
        NO_NAME: (1, 1.0),
    }
    assert [(k, b.n, b.value) for k, b in found.classes.items()] == [
        ("incomplete_grasp", 2, 0.5),
        ("missing_rotation", 1, 0.0),
        ("dropped", 1, 1.0),
        (NO_NAME, 1, 1.0),
    ]
    assert found.categories[NO_NAME].low < 1.0, "one episode proves little"


def test_intervals_are_over_scenes() -> None:
    alone = [row(i, True, S if i % 2 else F) for i in range(40)]
    together = [replace(r, group=f"scene {i % 2}") for i, r in enumerate(alone)]
    width = []
    for rows in (alone, together):
        low, high = figures_of(A, merge([("x", rows)]).of(A), 300).summary["accuracy_95"]
        width.append(high - low)
    assert width[1] > 2 * width[0]


def test_without_labels_there_is_nothing_but_counts() -> None:
    found = figures_of(A, merge([("x", [row(0, None, S), row(1, None, F)])]).of(A), 100)
    assert found.summary is None and found.roc is None and found.reliability is None
    assert found.unlabelled == {"SUCCESS": 1, "FAILURE": 1, "UNKNOWN": 0}


def test_probabilities_outside_of_their_range_are_left_out_of_curves() -> None:
    rows = [row(0, True, S), row(1, False, F), row(2, True, S, p_success=math.nan)]
    assert figures_of(A, merge([("x", rows)]).of(A), 100).scored == 2


# --- two detectors


@pytest.mark.parametrize(("b", "c", "p"), [(10, 2, 2 * 79 / 4096), (0, 0, 1.0), (3, 3, 1.0)])
def test_mcnemar_of_known_counts(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == pytest.approx(p)
    assert mcnemar(c, b) == pytest.approx(p)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_two_sided_sign_test(b: int, c: int) -> None:
    n = b + c
    tail = sum(math.comb(n, k) for k in range(min(b, c) + 1)) / 2**n
    assert mcnemar(b, c) == pytest.approx(min(1.0, 2 * tail))


def test_holm_of_known_values() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_comparison_counts_who_was_right() -> None:
    a = [S] * 10 + [F] * 4 + [U]
    b = [S] * 3 + [F] * 7 + [S] * 2 + [F, U, U]
    rows = [row(i, True, o) for i, o in enumerate(a)]
    rows += [row(i, True, o, B) for i, o in enumerate(b)]
    rows += [row(50, None, S), row(50, None, F, B), row(51, True, S), row(52, True, S, B)]
    (found,) = comparisons(merge([("x", rows)]), 100)
    assert (found.both_right, found.only_a, found.only_b, found.both_wrong) == (3, 7, 2, 3)
    assert found.n == 15 and found.scenes == 15
    assert found.p == pytest.approx(mcnemar(7, 2)) and found.p_holm == found.p
    assert found.difference == pytest.approx(5 / 15, abs=1e-4)
    # Also the one without a label, and the FAILURE that the other did not judge, but no UNKNOWN
    # beside another UNKNOWN.
    differing = [e.first.key for e in found.differing]
    assert differing == [f"e{i}" for i in (*range(3, 12), 13)] + ["e50"]


def test_comparison_without_labels_in_common_has_no_test() -> None:
    rows = [row(0, True, S), row(1, True, S, B), row(2, None, S), row(2, None, F, B)]
    (found,) = comparisons(merge([("x", rows)]), 100)
    assert found.n == 0 and found.difference is None and len(found.differing) == 1


def test_three_detectors_are_compared_two_by_two_with_holm() -> None:
    rows = []
    for i in range(20):
        rows += [row(i, True, S), row(i, True, S if i < 12 else F, B), row(i, True, F, "c")]
    found = comparisons(merge([("x", rows)]), 100)
    assert [(c.a, c.b) for c in found] == [(A, B), (A, "c"), (B, "c")]
    assert [c.p_holm for c in found] == pytest.approx(holm([c.p for c in found]))
    assert found[1].p < found[1].p_holm


# --- rows of several folders


def test_rows_about_the_same_episode_come_together() -> None:
    first = [row(0, True, S), row(1, False, F)]
    second = [row(1, False, S, B), row(0, True, S, B), row(0, True, F, B, instruction="other")]
    merged = merge([("x", first), ("y", second)])
    assert merged.detectors == [A, B] and merged.problems == []
    assert [(e.number, e.first.key, sorted(e.results)) for e in merged.episodes] == [
        (1, "e0", [A, B]),
        (2, "e1", [A, B]),
        (3, "e0", [B]),
    ]
    assert [e.differs for e in merged.episodes] == [False, True, False]


def test_rows_that_are_there_twice_and_other_labels_are_told() -> None:
    merged = merge([("x", [row(0, True, S)]), ("y", [row(0, True, F), row(0, False, F, B)])])
    (episode,) = merged.episodes
    assert episode.results[A].outcome == S and episode.label is True
    assert episode.right(B) is False
    assert [p.where for p in merged.problems] == ["y", "y"]
    assert "1 rows are in an earlier folder" in merged.problems[0].what
    assert "another label" in merged.problems[1].what


def test_mistakes_and_differences_are_shown_before_others() -> None:
    rows = [row(i, True, S) for i in range(10)] + [row(i, True, S, B) for i in range(10)]
    rows[4] = row(4, True, F)
    rows[16] = row(6, True, U, B)
    rows += [row(20, None, S)]
    episodes = merge([("x", rows)]).episodes
    assert [e.first.key for e in worth_showing(episodes, 4)] == ["e0", "e4", "e6", "e20"]
    assert worth_showing(episodes, 100) == episodes and worth_showing(episodes, 0) == []
