"""Arbitration against the paper's formula, in exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ifailsense_ros.core.arbitration import (
    ABSTAIN_RULES,
    arbitrate,
    describe_votes,
    vlm_is_decisive,
)
from ifailsense_ros.core.verdict import Outcome, Reason, Vote, VoteValue

RULE = "unknown_unless_unanimous"
S, F = VoteValue.SUCCESS, VoteValue.FAIL

weights = st.floats(0, 10, allow_subnormal=False)
probabilities = st.floats(0, 1)
fs_votes = st.lists(
    st.builds(Vote, st.just("fs:1"), st.sampled_from([S, F]), probabilities, weights),
    min_size=1,
    max_size=5,
)
vlm_votes = st.builds(Vote, st.just("vlm"), st.sampled_from([S, F]), probabilities, weights)


def _fs(*values: VoteValue, p: float = 0.5) -> list[Vote]:
    return [Vote(f"fs:{i}", value, p, 1.0) for i, value in enumerate(values)]


def _vlm(value: VoteValue, p: float = math.nan, weight: float = 2.0) -> Vote:
    return Vote("vlm", value, p, weight)


def _formula(votes: list[Vote]) -> bool:
    total = sum(Fraction(v.weight) for v in votes)
    return sum(Fraction(v.weight) * int(v.value) for v in votes) > total / 2


@pytest.mark.parametrize(
    ("fs", "vlm", "outcome"),
    [
        ((S, S, S), S, Outcome.SUCCESS),
        ((S, S, S), F, Outcome.SUCCESS),  # 3 of 5: unanimous blocks outvote the VLM
        ((S, S, F), F, Outcome.FAILURE),  # 2 of 5
        ((S, F, F), S, Outcome.SUCCESS),  # 3 of 5
        ((F, F, F), S, Outcome.FAILURE),  # 2 of 5
    ],
)
def test_the_papers_weights(fs: tuple, vlm: VoteValue, outcome: Outcome) -> None:
    judgement = arbitrate([*_fs(*fs), _vlm(vlm, 0.5)], RULE)
    assert judgement.outcome is outcome
    assert judgement.reason is Reason.NONE
    assert judgement.detail == ""


def test_a_tie_is_a_failure() -> None:
    assert arbitrate(_fs(S, F), RULE).outcome is Outcome.FAILURE


@given(fs_votes, st.none() | vlm_votes)
def test_equals_the_formula(fs: list[Vote], vlm: Vote | None) -> None:
    votes = fs + ([vlm] if vlm else [])
    assume(sum(v.weight for v in votes) > 0)
    judgement = arbitrate(votes, RULE)
    assert (judgement.outcome is Outcome.SUCCESS) == _formula(votes)
    assert judgement.votes == tuple(votes)
    total = sum(v.weight for v in votes)
    mean = sum(v.weight / total * v.p_success for v in votes)
    assert judgement.p_success == pytest.approx(mean, abs=1e-9)
    assert 0.0 <= judgement.p_success <= 1.0


@given(fs_votes, vlm_votes, st.integers(0, 5))
def test_monotone_in_every_vote(fs: list[Vote], vlm: Vote, which: int) -> None:
    votes = [*fs, vlm]
    assume(sum(v.weight for v in votes) > 0)
    which %= len(votes)

    def outcome(value: VoteValue) -> Outcome:
        changed = list(votes)
        old = changed[which]
        changed[which] = Vote(old.source, value, old.p_success, old.weight)
        return arbitrate(changed, RULE).outcome

    assert not (outcome(F) is Outcome.SUCCESS and outcome(S) is Outcome.FAILURE)


@given(fs_votes, vlm_votes)
def test_short_circuit_equals_the_full_vote(fs: list[Vote], vlm: Vote) -> None:
    assume(sum(v.weight for v in fs) > 0)
    not_run = _vlm(VoteValue.NOT_RUN, weight=vlm.weight)
    if vlm_is_decisive(fs, vlm.weight):
        with pytest.raises(ValueError, match="NOT_RUN"):
            arbitrate([*fs, not_run], RULE)
    else:
        short = arbitrate([*fs, not_run], RULE)
        assert short.outcome is arbitrate([*fs, vlm], RULE).outcome
        assert short.outcome is arbitrate([*fs, _vlm(VoteValue.ABSTAIN)], RULE).outcome
        total = sum(v.weight for v in fs)
        mean = sum(v.weight / total * v.p_success for v in fs)
        assert short.p_success == pytest.approx(mean, abs=1e-9)


def test_when_the_vlm_decides() -> None:
    assert not vlm_is_decisive(_fs(S, S, S), 2.0)
    assert not vlm_is_decisive(_fs(F, F, F), 2.0)
    assert vlm_is_decisive(_fs(S, F, S), 2.0)
    assert vlm_is_decisive(_fs(S, S, S), 3.0)  # 3 of 6 is no majority
    assert not vlm_is_decisive(_fs(F, F, F), 3.0)  # nor here, and that is what they say


@pytest.mark.parametrize("rule", ABSTAIN_RULES)
@pytest.mark.parametrize("value", [S, F])
def test_abstaining_vlm_leaves_unanimous_blocks_to_decide(rule: str, value: VoteValue) -> None:
    judgement = arbitrate([*_fs(value, value, value, p=0.7), _vlm(VoteValue.ABSTAIN)], rule)
    assert judgement.outcome is (Outcome.SUCCESS if value is S else Outcome.FAILURE)
    assert judgement.p_success == pytest.approx(0.7)


def test_abstaining_vlm_and_disagreeing_blocks() -> None:
    votes = [*_fs(S, S, F), _vlm(VoteValue.ABSTAIN)]
    judgement = arbitrate(votes, RULE)
    assert judgement.outcome is Outcome.UNKNOWN
    assert judgement.reason is Reason.VLM_ABSTAINED
    assert math.isnan(judgement.p_success)
    assert judgement.votes == tuple(votes)
    assert judgement.detail


def test_the_authors_rule() -> None:
    abstain = _vlm(VoteValue.ABSTAIN)
    assert arbitrate([*_fs(S, S, F), abstain], "two_of_three").outcome is Outcome.SUCCESS
    assert arbitrate([*_fs(S, F, F), abstain], "two_of_three").outcome is Outcome.FAILURE


@pytest.mark.parametrize("rule", ABSTAIN_RULES)
def test_only_a_vlm_and_it_abstains(rule: str) -> None:
    assert arbitrate([_vlm(VoteValue.ABSTAIN)], rule).reason is Reason.VLM_ABSTAINED


def test_not_a_number_is_unknown_and_never_a_failure() -> None:
    votes = [*_fs(F, F, F, p=math.nan), _vlm(S, 0.9)]
    judgement = arbitrate(votes, RULE)
    assert judgement.outcome is Outcome.UNKNOWN
    assert judgement.reason is Reason.DETECTOR_ERROR


@pytest.mark.parametrize(
    ("votes", "rule", "says"),
    [
        ([], RULE, "at least one"),
        (_fs(S), "majority", "abstain rule"),
        ([Vote("fs:0", S, 0.5, -1.0)], RULE, "at least one"),
        ([Vote("fs:0", S, 0.5, 1.0), Vote("fs:1", S, 0.5, -1.0)], RULE, "weight"),
        ([Vote("fs:0", S, 0.5, math.inf)], RULE, "weight"),
        ([Vote("fs:0", S, 0.5, 0.0)], RULE, "at least one"),
        ([Vote("fs:0", VoteValue.ABSTAIN, math.nan, 1.0)], RULE, "must vote"),
        ([*_fs(S), _vlm(S, 0.5), _vlm(S, 0.5)], RULE, "more than one VLM"),
        ([_vlm(VoteValue.NOT_RUN)], RULE, "NOT_RUN"),
        ([*_fs(S, F, S), _vlm(VoteValue.NOT_RUN)], RULE, "NOT_RUN"),
    ],
)
def test_votes_no_detector_may_hand_over(votes: list[Vote], rule: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        arbitrate(votes, rule)


@pytest.mark.parametrize(
    ("votes", "text"),
    [
        ([*_fs(S, F, S), _vlm(F, 0.1)], "fs 1 0 1 | vlm 0"),
        ([*_fs(S, S), _vlm(VoteValue.ABSTAIN)], "fs 1 1 | vlm ?"),
        ([*_fs(F), _vlm(VoteValue.NOT_RUN)], "fs 0 | vlm -"),
        ([_vlm(S, 0.9)], "vlm 1"),
        ([], ""),
    ],
)
def test_votes_in_short(votes: list[Vote], text: str) -> None:
    assert describe_votes(votes) == text
