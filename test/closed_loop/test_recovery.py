"""The planner's decisions, and the settings they come from."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.closed_loop.recovery import Next, Recovery, Rules
from ifailsense_ros.closed_loop.settings import load_settings
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.data.failure_classes import CONTROL_FAILURES, FAILURE_CLASSES
from ifailsense_ros.sim.fault_rates import FaultRates

SUCCESS, FAILURE, UNKNOWN = Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNKNOWN


def test_success_ends_it() -> None:
    recovery = Recovery(Rules())
    assert recovery.after(True, SUCCESS) is Next.DONE
    assert (recovery.tries, recovery.seed) == (1, 0)


def test_without_a_verdict_the_robots_word_counts() -> None:
    assert Recovery(Rules()).after(True, None) is Next.DONE


def test_failures_are_asked_anew_until_somebody_must_help() -> None:
    recovery = Recovery(Rules(max_tries=3))
    assert [recovery.after(True, FAILURE) for _ in range(3)] == [
        Next.REGROUND,
        Next.REGROUND,
        Next.HELP,
    ]
    assert (recovery.tries, recovery.seed) == (3, 2)


def test_what_the_robot_could_not_do_is_tried_again_as_it_was_meant() -> None:
    recovery = Recovery(Rules())
    assert recovery.after(False, FAILURE) is Next.RETRY
    assert (recovery.tries, recovery.seed) == (2, 0)


def test_unknown_is_for_a_person() -> None:
    assert Recovery(Rules()).after(True, UNKNOWN) is Next.HELP


def test_given_up_is_asked_anew_whatever_the_robot_says() -> None:
    recovery = Recovery(Rules())
    assert recovery.after(False, None, given_up=True) is Next.REGROUND


def test_warnings_in_a_row_give_an_attempt_up() -> None:
    recovery = Recovery(Rules(give_up_below=0.2, give_up_after=2))
    assert [recovery.warned(p) for p in (0.1, 0.3, 0.1, math.nan, 0.1, 0.1)] == [False] * 5 + [True]
    recovery.after(False, None, given_up=True)
    assert not recovery.warned(0.1), "a new attempt, a new row"


def test_by_default_no_warning_gives_anything_up() -> None:
    assert not any(Recovery(Rules()).warned(0.0) for _ in range(10))


@given(
    tries=st.integers(1, 5),
    history=st.lists(st.tuples(st.booleans(), st.sampled_from([None, *Outcome])), max_size=10),
)
def test_it_ends_and_never_exceeds_its_tries(tries, history) -> None:
    recovery = Recovery(Rules(max_tries=tries))
    for done, outcome in history:
        choice = recovery.after(done, outcome)
        assert 1 <= recovery.tries <= tries
        assert recovery.seed <= recovery.tries - 1
        if choice in (Next.DONE, Next.HELP):
            assert choice is not Next.DONE or outcome not in (FAILURE, UNKNOWN)
            break


# --- settings -------------------------------------------------------------------------------------


def test_the_packages_settings_are_whole() -> None:
    settings = load_settings()
    policy = settings.policy
    assert set(policy.control) == set(CONTROL_FAILURES)
    assert {*policy.control, *policy.semantic} >= set(FAILURE_CLASSES)
    assert min(*policy.control.values(), *policy.semantic.values()) > 0
    assert settings.tasks.count == 500 and len(settings.tasks.seeds) == 3


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("clean: 0.60", "clean: 0.70", "sum to 1"),
        ("clean: 0.60", "clean: often", "policy.clean"),
        ("incomplete_grasp: 0.04", "dropped: 0.04", "control must name"),
        ("max_tries: 3", "max_tries: 0", "max_tries"),
        ("count: 500", "count: 0", "count"),
        ("seeds: [801, 802, 803]", "seeds: []", "seed"),
        ("look: mild", "looks: mild", "look"),
        ("policy:", "policy: [", "cannot be read"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path, old, new, named) -> None:
    from importlib import resources

    text = (resources.files("ifailsense_ros.closed_loop") / "settings.yaml").read_text()
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=named) as raised:
        load_settings(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_settings_that_are_not_there(tmp_path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "none.yaml")
    (tmp_path / "text.yaml").write_text("just words")
    with pytest.raises(ConfigError, match="holds no settings"):
        load_settings(tmp_path / "text.yaml")


def test_shares_of_the_two_kinds() -> None:
    rates = FaultRates(0.6, {"a": 0.2}, {"b": 0.2})
    assert rates.semantic_share == pytest.approx(0.2)
    assert rates.control_share * (1 - rates.semantic_share) == pytest.approx(0.2)
    assert FaultRates(0.0, {}, {"b": 1.0}).control_share == 0.0
