import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.evaluate.metrics import confusion, summary

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
