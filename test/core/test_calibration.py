"""Calibrated probabilities, and what can be promised with n calibration episodes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ifailsense_ros.core.calibration import (
    Calibration,
    Limits,
    Scores,
    Temperatures,
    calibrated,
    check_rates,
    p_value,
    reliability,
    sigmoid,
    threshold,
    vote_log_odds,
)
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason

_SCORE = st.floats(-50, 50) | st.sampled_from([-math.inf, 0.0, 1.0])  # with ties
_SCORES = st.lists(_SCORE, min_size=1, max_size=30).map(np.array)
_RATE = st.floats(0.001, 1.0)


# --- promises -------------------------------------------------------------------------------------


@given(st.lists(_SCORE, min_size=2, max_size=25), _RATE)
def test_no_more_errors_than_promised_whichever_episode_is_the_new_one(scores, rate):
    """The theorem itself: of n + 1 exchangeable episodes each is the new one equally often."""
    n = len(scores) - 1
    assume(rate * (n + 1) >= 1)
    errors = sum(
        score > threshold(np.array(scores[:i] + scores[i + 1 :]), rate)
        for i, score in enumerate(scores)
    )
    assert errors / (n + 1) <= rate + 1e-9
    if len(set(scores)) == len(scores) and -math.inf not in scores:  # nothing is given away
        assert errors == math.floor(rate * (n + 1) + 1e-9)


@pytest.mark.parametrize(("n", "rate"), [(1, 0.5), (19, 0.05), (19, 0.3), (99, 0.01), (400, 0.02)])
@pytest.mark.parametrize("digits", [12, 0], ids=["distinct", "tied"])
def test_coverage_in_simulation(n, rate, digits):
    """Fresh calibration data each time; what is missed stays within binomial bounds of the rate."""
    rng = np.random.default_rng((n, digits))
    trials = 4000
    draws = rng.normal(size=(trials, n + 1)).round(digits)
    missed = np.mean([row[0] > threshold(row[1:], rate) for row in draws])
    slack = 4 * math.sqrt(rate * (1 - rate) / trials)
    assert missed <= rate + slack
    if digits:
        assert missed >= math.floor(rate * (n + 1) + 1e-9) / (n + 1) - slack


def test_both_classes_keep_their_own_rate_when_the_vote_is_poor():
    """A vote with 15 % errors, and few failures: each class's errors stay within its own rate."""
    rng = np.random.default_rng(5)
    rates = {"missed": 0.04, "alarms": 0.1}
    errors, asked = dict.fromkeys(rates, 0), dict.fromkeys(rates, 0)
    for _ in range(1500):
        labels = rng.random(160) < 0.6
        odds = rng.normal(np.where(labels, 2.0, -2.0), 2.0)
        said = np.where(odds > 0, Outcome.SUCCESS, Outcome.FAILURE)
        limits = Limits.of(Scores.of(labels, said, odds), rates["missed"], rates["alarms"])
        success = rng.random() < 0.6
        z = rng.normal(2.0 if success else -2.0, 2.0)
        outcome = Outcome.SUCCESS if z > 0 else Outcome.FAILURE
        verdict = calibrated(Judgement(outcome, p_success=0.5), z, 1.0, limits).outcome
        name, wrong = ("alarms", Outcome.FAILURE) if success else ("missed", Outcome.SUCCESS)
        asked[name] += 1
        errors[name] += verdict is wrong
    for name, rate in rates.items():
        slack = 4 * math.sqrt(rate * (1 - rate) / asked[name])
        assert errors[name] / asked[name] <= rate + slack


@given(_SCORES, _SCORE, _RATE)
def test_threshold_and_p_value_say_the_same(scores, score, rate):
    assume(rate * (len(scores) + 1) >= 1 and score > -math.inf)
    p = p_value(score, scores)
    assume(abs(p - rate) > 1e-8)
    assert (score > threshold(scores, rate)) == (p <= rate)


@given(_SCORES, _RATE, _RATE)
def test_a_smaller_rate_asks_for_more(scores, first, second):
    low, high = sorted((first, second))
    assume(low * (len(scores) + 1) >= 1)
    assert threshold(scores, low) >= threshold(scores, high)


@given(st.lists(st.tuples(st.booleans(), st.floats(-9, 9)), min_size=4, max_size=60), st.data())
def test_a_smaller_rate_gives_a_superset_of_unknowns(episodes, data):
    labels, odds = zip(*episodes, strict=True)
    assume(any(labels) and not all(labels))
    said = [Outcome.SUCCESS if z > 0 else Outcome.FAILURE for z in odds]
    scores = Scores.of(labels, said, odds)
    least = 1 / (1 + min(len(scores.failures), len(scores.successes)))
    low, high = sorted(data.draw(st.tuples(*[st.floats(least, 1.0)] * 2)))

    def unknown(rate: float) -> set[float]:
        limits = Limits.of(scores, rate, rate)
        given_out = (calibrated(Judgement(o, p_success=0.5), z, 1.0, limits) for o, z in asked)
        return {i for i, j in enumerate(given_out) if j.outcome is Outcome.UNKNOWN}

    grid = np.linspace(-10, 10, 81)
    asked = [(Outcome.SUCCESS if z > 0 else Outcome.FAILURE, z) for z in grid]
    assert unknown(low) >= unknown(high)
    assert not unknown(1.0)


def test_scores_count_errors_and_nothing_else():
    """A failure that was found, or that got no verdict, cannot be missed however sure the vote."""
    scores = Scores.of(
        [False, False, False, True, True],
        [Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNKNOWN, Outcome.FAILURE, Outcome.SUCCESS],
        [1.5, 0.2, math.nan, -0.5, -0.1],
    )
    assert scores.failures.tolist() == [1.5, -math.inf, -math.inf]
    assert scores.successes.tolist() == [0.5, -math.inf]
    with pytest.raises(ValueError, match="no number"):
        Scores.of([True], [Outcome.SUCCESS], [math.nan])


def test_one_calibration_episode_can_promise_a_half():
    assert threshold(np.array([2.0]), 0.5) == 2.0
    assert threshold(np.array([2.0]), 1.0) == -math.inf
    with pytest.raises(ValueError, match="below 1/2"):
        threshold(np.array([2.0]), 0.49)


@pytest.mark.parametrize(
    ("outcome", "odds", "missed", "alarms", "given_out"),
    [
        (Outcome.SUCCESS, 1.6, 0.25, None, True),
        (Outcome.SUCCESS, 1.5, 0.25, None, False),  # a tie is not excluded
        (Outcome.SUCCESS, 1.4, None, 0.25, True),  # the other class's rate does not matter
        (Outcome.FAILURE, -0.6, None, 0.25, True),
        (Outcome.FAILURE, -0.5, None, 0.25, False),
        (Outcome.FAILURE, -0.4, 0.25, None, True),
        (Outcome.SUCCESS, math.nan, 0.25, None, False),
        (Outcome.SUCCESS, 0.1, 0.5, None, True),
    ],
)
def test_decision(outcome, odds, missed, alarms, given_out):
    scores = Scores(np.array([1.5, -math.inf, -math.inf]), np.array([0.5, -math.inf, -math.inf]))
    limits = Limits.of(scores, missed, alarms)
    judgement = calibrated(Judgement(outcome, p_success=0.5), odds, 2.0, limits)
    if given_out:
        assert judgement.outcome is outcome
        assert judgement.p_success == pytest.approx(1 / (1 + math.exp(-odds / 2.0)))
        return
    assert judgement.reason is Reason.LOW_CONFIDENCE
    assert math.isnan(judgement.p_success)
    assert "0.25" in judgement.detail and "\n" not in judgement.detail


def test_an_unknown_stays_what_it_is():
    unknown = Judgement.unknown(Reason.VLM_ABSTAINED, "no word")
    limits = Limits.of(Scores(np.zeros(9), np.zeros(9)), 0.1, 0.1)
    assert calibrated(unknown, math.nan, 1.0, limits) is unknown


_CALIBRATION = Calibration("00", "validation", 400, 99, Temperatures((1.0,), 1.0, 1.0), "f", None)


@pytest.mark.parametrize(
    ("calibration", "missed", "alarms", "message"),
    [
        (None, 0.05, None, "max_missed_failures 0.05 cannot .* tiny@1 is not calibrated"),
        (None, None, 0.05, "max_false_alarms 0.05 cannot .* tiny@1 is not calibrated"),
        (_CALIBRATION, 0.002, None, "400 failures, so 1/401 is the least; ask for 0.0025"),
        (_CALIBRATION, 0.0025, 0.009, "max_false_alarms .* 99 successes, so 1/100 is the least"),
        (_CALIBRATION, 0.0, None, "max_missed_failures is 0.0, must be above 0"),
        (_CALIBRATION, math.nan, None, "max_missed_failures is nan"),
        (_CALIBRATION, None, 1.5, "max_false_alarms is 1.5"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused_in_one_line(calibration, missed, alarms, message):
    with pytest.raises(ConfigError, match=message) as error:
        check_rates(calibration, "tiny@1", missed, alarms)
    assert "\n" not in str(error.value)


def test_what_can_be_promised_is_accepted():
    check_rates(None, "tiny@1", None, None)
    check_rates(_CALIBRATION, "tiny@1", 1 / 401, 0.01)


@given(st.integers(1, 2000))
def test_the_least_rate_that_is_offered_is_accepted(n):
    calibration = Calibration("", "v", n, n, Temperatures((), 1.0, 1.0), "f", None)
    with pytest.raises(ConfigError) as error:
        check_rates(calibration, "tiny", 0.4 / (n + 1), None)
    offered = float(str(error.value).split("ask for ")[1].split(" ")[0])
    check_rates(calibration, "tiny", offered, None)
    threshold(np.zeros(n), offered)


# --- probabilities --------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(-25, 25), st.floats(0.01, 5)), min_size=1, max_size=5))
def test_log_odds_are_those_of_the_weighted_mean(voters):
    z, w = (np.array(part) for part in zip(*voters, strict=True))
    odds = float(vote_log_odds(z, w))
    assert sigmoid(odds) == pytest.approx(np.average(sigmoid(z), weights=w), abs=1e-12)
    assert vote_log_odds(-z, w) == pytest.approx(-odds, abs=1e-9)


def test_voters_beyond_a_floats_precision_still_differ():
    surer, sure = vote_log_odds(np.array([[60.0, 70.0], [50.0, 60.0]]), [1.0, 1.0])
    assert surer > sure > 40
    assert vote_log_odds(np.array([1e308, -1e308]), [1.0, 1.0]) == pytest.approx(0.0)


def test_who_has_no_say_is_left_out():
    assert vote_log_odds(np.array([1.3, math.nan]), [1.0, 2.0]) == pytest.approx(1.3)
    assert vote_log_odds(np.array([1.3, 9.0]), [1.0, 0.0]) == pytest.approx(1.3)
    assert math.isnan(vote_log_odds(np.array([math.nan]), [1.0]))
    assert math.isnan(vote_log_odds(np.array([9.0]), [0.0]))


# --- reliability ----------------------------------------------------------------------------------


def test_reliability_by_hand():
    r = reliability([0.1, 0.1, 0.9, 1.0], [False, True, True, True], bins=5)
    assert r.counts.tolist() == [2, 0, 0, 0, 2]
    np.testing.assert_allclose(r.mean_p, [0.1, np.nan, np.nan, np.nan, 0.95])
    np.testing.assert_allclose(r.success_share, [0.5, np.nan, np.nan, np.nan, 1.0])
    assert r.ece == pytest.approx((2 * 0.4 + 2 * 0.05) / 4)
    assert r.brier == pytest.approx((0.01 + 0.81 + 0.01) / 4)
    assert r.log_loss == pytest.approx(-np.log([0.9, 0.1, 0.9, 1.0]).mean())
    assert r.edges.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_honest_probabilities_have_a_small_error():
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    honest = rng.random(20_000) < p
    assert reliability(p, honest).ece < 0.02
    assert reliability(sigmoid(3 * np.log(p / (1 - p))), honest).ece > 0.05
    assert math.isfinite(reliability([0.0], [True]).log_loss)


@pytest.mark.parametrize(
    ("p", "labels", "bins"),
    [
        ([], [], 10),
        ([0.5], [True, False], 10),
        ([0.5], [True], 0),
        ([math.nan], [True], 10),
        ([1.1], [True], 10),
        ([[0.5]], [[True]], 10),
    ],
)
def test_reliability_of_nonsense_is_refused(p, labels, bins):
    with pytest.raises(ValueError, match=r"probabilities"):
        reliability(p, labels, bins)
