import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.evaluate.metrics import compare, confusion, summary

S, F, U = Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNKNOWN


def test_the_papers_table_one_row():
    # TP 100, FN 6, FP 13, TN 84: Table I, "ours", one PoV.
    truths = [True] * 106 + [False] * 97
    outcomes = [S] * 100 + [F] * 6 + [S] * 13 + [F] * 84
    s = summary(truths, outcomes)
    assert (s["accuracy"], s["precision"], s["recall"], s["f1"]) == (0.9064, 0.885, 0.9434, 0.9132)
    assert s["failure_recall"] == round(84 / 97, 4)


def test_unknown_is_wrong_in_accuracy_and_recall_but_is_no_claim():
    s = summary([True, True, False, False], [S, U, F, U])
    assert (s["accuracy"], s["recall"], s["failure_recall"], s["unknown"]) == (0.5, 0.5, 0.5, 0.5)
    assert (s["precision"], s["failure_precision"]) == (1.0, 1.0)


def test_nothing_judged_gives_none_and_no_division():
    s = summary([], [])
    assert s["accuracy"] is None and s["accuracy_95"] is None


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 truths but 1 verdicts"):
        confusion([True, False], [S])


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([S, F, U]))))
def test_every_episode_is_counted_once(pairs):
    truths, outcomes = [p[0] for p in pairs], [p[1] for p in pairs]
    c = confusion(truths, outcomes)
    assert c.total == len(pairs)
    assert c.correct == sum((t, o) in ((True, S), (False, F)) for t, o in pairs)


def test_false_alarms_are_verdicts_and_not_silence():
    s = summary([True, True, True, False], [F, U, S, F])
    assert s["false_alarms"] == round(1 / 3, 4) and s["failure_recall"] == 1.0


def test_intervals_hold_the_figure_and_are_the_same_every_time():
    truths, outcomes = [True, False] * 50, [S, F] * 45 + [F, S] * 5
    scenes = [str(i // 2) for i in range(100)]
    once, again = summary(truths, outcomes, scenes), summary(truths, outcomes, scenes)
    assert once == again and once["scenes"] == 50
    low, high = once["accuracy_95"]
    assert low < once["accuracy"] == 0.9 < high


def test_pairs_that_fail_together_widen_the_interval():
    truths, outcomes = [True, False] * 50, [S, F] * 45 + [F, S] * 5
    scenes = [str(i // 2) for i in range(100)]
    together, apart = (summary(truths, outcomes, c)["accuracy_95"] for c in (scenes, None))
    assert together[1] - together[0] > 1.2 * (apart[1] - apart[0])


def test_the_bootstrap_of_scenes_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        # a scene is hard or easy: both of its pairs follow it
        hard = rng.random(60) < 0.3
        right = rng.random((60, 2)) < np.where(hard, 0.4, 0.95)[:, None]
        outcomes = np.where(right, [S, F], [F, S]).ravel()
        s = summary([True, False] * 60, outcomes, np.repeat(np.arange(60), 2), resamples=400)
        held += s["accuracy_95"][0] <= 0.3 * 0.4 + 0.7 * 0.95 <= s["accuracy_95"][1]
    assert 180 <= held <= 199


def test_without_a_single_mistake_the_interval_is_wilsons_over_scenes():
    s = summary([True, False] * 50, [S, F] * 50, [str(i // 2) for i in range(100)])
    assert s["accuracy_95"] == [0.9287, 1.0]  # 50 of 50


def test_comparison_counts_what_only_one_got_right():
    right_a, right_b = [True] * 40, [True] * 30 + [False] * 10
    found = compare(right_a, right_b, [str(i // 2) for i in range(40)])
    assert (found["difference"], found["only_a"], found["only_b"]) == (0.25, 10, 0)
    assert 0 < found["difference_95"][0] < 0.25 < found["difference_95"][1]
    assert found["p"] == pytest.approx(2 / 2**5, abs=0.02)  # five scenes differ, all one way
    assert compare(right_a, right_a, ["x"] * 40)["p"] == 1.0


def test_wilsons_interval_counts_only_the_scenes_that_a_figure_is_about():
    """Four scenes with a success, sixteen with a failure, all told right."""
    truths, outcomes = [True] * 4 + [False] * 16, [1] * 4 + [2] * 16
    found = summary(truths, outcomes)
    for name, n in (("recall", 4), ("failure_recall", 16), ("accuracy", 20), ("precision", 4)):
        low = binomtest(n, n).proportion_ci(method="wilson").low
        assert found[f"{name}_95"] == [round(low, 4), 1.0], name
    low, high = found["false_alarms_95"]
    assert (low, round(high, 4)) == (
        0.0,
        round(1 - binomtest(4, 4).proportion_ci(method="wilson").low, 4),
    )
