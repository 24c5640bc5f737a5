import math
from dataclasses import replace

import pytest

from ifailsense_ros.core.arbitration import arbitrate
from ifailsense_ros.core.verdict import Outcome, Vote, VoteValue
from ifailsense_ros.evaluate.breakdown import (
    ALL_CONTROL,
    breakdown,
    by_class,
    compared,
    contrast_name,
    main,
)
from ifailsense_ros.evaluate.predictions import predict, write_predictions
from ifailsense_ros.evaluate.votes import decide, fewer_heads, redecided, rules_of

S, F, U = Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNKNOWN


@pytest.fixture(scope="module")
def some(smf_set, rule_detector):
    return list(predict(rule_detector(), smf_set, "dev", progress=False))


def voted(prediction, *p_votes, vlm=None):
    """The prediction with other votes: probabilities of the heads, and of the VLM or None."""
    votes = [Vote(f"fs:{i}", VoteValue(int(p > 0.5)), p, 1.0) for i, p in enumerate(p_votes)]
    if vlm is None:
        votes.append(Vote("vlm", VoteValue.ABSTAIN, math.nan, 2.0))
    else:
        votes.append(Vote("vlm", VoteValue(int(vlm > 0.5)), vlm, 2.0))
    said = arbitrate(votes, "unknown_unless_unanimous")
    return replace(
        prediction,
        outcome=int(said.outcome),
        sources=tuple(v.source for v in votes),
        votes=tuple(int(v.value) for v in votes),
        p_votes=tuple(v.p_success for v in votes),
        weights=tuple(v.weight for v in votes),
    )


@pytest.mark.parametrize(
    ("heads", "vlm", "expected"),
    [
        ((0.9, 0.9, 0.1), 0.4, {"stored": F, "vlm": F, "fs:2": F, "fs majority": S, "mean p": S}),
        ((0.9, 0.1, 0.1), 0.9, {"stored": S, "vlm": S, "fs:0": S, "fs majority": F, "mean p": S}),
        ((0.9, 0.9, 0.1), None, {"stored": U, "vlm": U, "fs majority": S, "mean p": S}),
        ((0.6, 0.6, 0.6), 0.1, {"stored": S, "mean p": F, "fs:0+vlm": F, "fs:0+fs:1": S}),
    ],
)
def test_rules(some, heads, vlm, expected):
    p = voted(some[0], *heads, vlm=vlm)
    assert {rule: decide(p, rule) for rule in expected} == expected


def test_two_heads_that_disagree_are_no_majority(some):
    assert decide(voted(some[0], 0.9, 0.1, vlm=0.9), "fs majority") == F


@pytest.mark.parametrize(
    ("k", "rule"),
    [(1, "fs:3+vlm"), (2, "fs:1+fs:3+vlm"), (3, "fs:1+fs:2+fs:3+vlm")],
)
def test_fewer_heads_are_spread_in_depth_and_keep_the_deepest(k, rule):
    assert fewer_heads(("fs:0", "fs:1", "fs:2", "fs:3", "vlm"), k) == rule
    with pytest.raises(ValueError, match="of 4 heads"):
        fewer_heads(("fs:0", "fs:1", "fs:2", "fs:3", "vlm"), 5)


def test_a_rule_that_is_none_is_said(some):
    with pytest.raises(ValueError, match="no rule"):
        decide(some[0], "fs:9")


def test_rules_of_these_predictions(some):
    expected = ["stored", "vlm", "fs:1", "fs:2", "fs:3", "fs majority", "mean p"]
    assert rules_of(some) == expected
    for rule in rules_of(some):
        assert len(redecided(some, rule)) == len(some)


def test_breakdown_of_smf_pairs(some):
    found = breakdown(some, resamples=50)
    assert found["all"]["n"] == 20 and found["all"]["scenes"] == 10
    assert found["all"]["accuracy"] == 1.0
    assert found["votes"]["fs:1"]["accuracy"] == 0.5  # says success to everything
    assert set(found["contrast"]) == {"colour"} and set(found["phrasing"]) == {"0", "1"}
    assert "failure_class" not in found
    assert contrast_name(replace(some[0], contrast=("verb", "place"))) == "verb+place"


def test_what_does_not_count_is_left_out(some):
    extra = [replace(some[0], counted=False, outcome=int(F), unfiltered=True)]
    assert breakdown([*some, *extra], resamples=50)["all"]["n"] == 20


def test_each_class_of_failure_is_seen_with_its_own_twins(failure_set, rule_detector):
    found = list(predict(rule_detector(), failure_set, "test", progress=False))
    missed = next(i for i, p in enumerate(found) if p.kind == "wrong_target_object")
    found[missed] = replace(found[missed], outcome=int(S))
    alarm = next(i for i, p in enumerate(found) if p.twin.endswith("/incomplete_grasp"))
    found[alarm] = replace(found[alarm], outcome=int(F))
    classes = by_class(found, resamples=50)
    assert list(classes) == ["incomplete_grasp", "wrong_target_object", ALL_CONTROL]
    grasp, target = classes["incomplete_grasp"], classes["wrong_target_object"]
    assert (grasp["n"], grasp["failure_recall"], grasp["false_alarms"]) == (6, 1.0, 0.3333)
    assert (target["n"], target["failure_recall"], target["false_alarms"]) == (6, 0.6667, 0.0)
    assert classes[ALL_CONTROL] == grasp  # the semantic class is apart


def test_two_detectors_are_compared_on_the_pairs_of_both(some, tmp_path, capsys):
    worse = [replace(p, outcome=int(U)) if i < 4 else p for i, p in enumerate(some)]
    assert compared(some, worse[:10])["n"] == 10
    assert compared(some, worse)["difference"] == 0.2
    write_predictions(tmp_path / "a.parquet", some, {"checkpoint": "a"})
    write_predictions(tmp_path / "b.parquet", [], {"checkpoint": "b"})
    command = [str(tmp_path / "a.parquet"), "--against"]
    assert main([*command, str(tmp_path / "a.parquet"), "--out", str(tmp_path / "o.json")]) == 0
    assert '"difference": 0.0' in (tmp_path / "o.json").read_text()
    capsys.readouterr()
    assert main([*command, str(tmp_path / "b.parquet")]) == 2
    assert "no pair in common" in capsys.readouterr().err
