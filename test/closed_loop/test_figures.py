"""Figures from tries that are made up."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")

from ifailsense_ros.closed_loop.experiment import NO_VERDICT, Try, tries_of_table, tries_table
from ifailsense_ros.closed_loop.figures import figures
from ifailsense_ros.closed_loop.monitors import NOBODY, ORACLE, RETRY_ONCE
from ifailsense_ros.core.verdict import Outcome

pytestmark = pytest.mark.sim

SUCCESS, FAILURE, UNKNOWN = int(Outcome.SUCCESS), int(Outcome.FAILURE), int(Outcome.UNKNOWN)
DONE, AGAIN, HELP = "done", "re-ground", "ask for help"


def row(monitor: str, index: int, success: bool, outcome: int, choice: str, **more) -> Try:
    given = {"seed": 1, "tries": 1, "category": "lifting", **more}
    return Try(
        monitor=monitor, index=index, success=success, outcome=outcome, choice=choice,
        task="lift_red_block_table", instruction="lift it", policy_seed=0, kind="expert",
        performed="lift_red_block_table", done=True, reason=0, p_success=math.nan, given_up=False,
        duration_s=4.0, home_s=1.0, **given,
    )  # fmt: skip


def tries_of(monitor: str, index: int, *tries: tuple[bool, int, str]) -> list[Try]:
    return [
        row(monitor, index, *given, tries=number, seed=1 + index % 2)
        for number, given in enumerate(tries, 1)
    ]


def made_up(monitor: str, *, false_alarms: int = 0, missed: int = 0, unknown: int = 0) -> list:
    """Ten tasks: six succeed at once; of four that fail all but the missed succeed when tried
    again, as do successes that are tried again.
    """
    rows = []
    for index in range(10):
        if index < 6:
            if index < false_alarms:
                rows += tries_of(monitor, index, (True, FAILURE, AGAIN), (True, SUCCESS, DONE))
            elif index < false_alarms + unknown:
                rows += tries_of(monitor, index, (True, UNKNOWN, HELP))
            else:
                rows += tries_of(monitor, index, (True, SUCCESS, DONE))
        elif index < 6 + missed:
            rows += tries_of(monitor, index, (False, SUCCESS, DONE))
        else:
            rows += tries_of(monitor, index, (False, FAILURE, AGAIN), (True, SUCCESS, DONE))
    return rows


def nobody() -> list:
    return [r for i in range(10) for r in tries_of(NOBODY, i, (i < 6, NO_VERDICT, DONE))]


def retrying() -> list:
    return [
        r
        for i in range(10)
        for r in tries_of(RETRY_ONCE, i, (i < 6, FAILURE, AGAIN), (i < 8, SUCCESS, DONE))
    ]


def all_of(*more: list) -> dict:
    return figures([*nobody(), *made_up(ORACLE), *retrying(), *(r for m in more for r in m)])


def test_reference_monitors() -> None:
    found = all_of()["monitors"]
    assert [found[m]["success"] for m in (NOBODY, ORACLE, RETRY_ONCE)] == [0.6, 1.0, 0.8]
    assert [found[m]["tries"] for m in (NOBODY, ORACLE, RETRY_ONCE)] == [1.0, 1.4, 2.0]
    assert found[NOBODY]["missed_failures"] == 1.0
    assert found[ORACLE]["missed_failures"] == found[ORACLE]["wasted_retries"] == 0.0
    assert found[NOBODY]["unknown"] is None, "nobody judged anything"
    assert found[NOBODY]["seconds"] == 5.0
    assert "closed" not in found[ORACLE]


def test_a_detector_between_them() -> None:
    found = all_of(made_up("tiny", false_alarms=2, missed=1, unknown=1))["monitors"]["tiny"]
    assert found["success"] == 0.9
    assert found["closed"] == pytest.approx(0.75)
    assert found["tries"] == pytest.approx(1.5)
    # At 1.5 tries blind retrying is half way between 0.6 and 0.8.
    assert found["over_retrying"] == pytest.approx(0.2)
    assert found["wasted_retries"] == pytest.approx(2 / 11, abs=1e-4)
    assert found["missed_failures"] == pytest.approx(1 / 4)
    assert found["help"] == found["help_on_success"] == 0.1
    assert found["by_seed"] == {"1": 0.8, "2": 1.0}
    assert found["by_category"] == {"lifting": 0.9}


def test_intervals_hold_the_figures_and_comparisons_are_paired() -> None:
    found = all_of(made_up("tiny", missed=1), made_up("same"))["monitors"]
    for row in found.values():
        for name in ("success", "tries", "seconds"):
            low, high = row[f"{name}_95"]
            assert low <= row[name] <= high
    assert found["same"]["closed_95"] == [1.0, 1.0], "the same tasks are drawn for both"
    low, high = found["tiny"]["closed_95"]
    assert low < 0.75 < high


def test_a_monitor_with_other_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="same tasks"):
        figures([*nobody(), *made_up(ORACLE)[:-2]])
    with pytest.raises(ValueError, match="same tasks"):
        figures([])


def test_rows_survive_the_file() -> None:
    rows = made_up("tiny", missed=1)
    again = tries_of_table(tries_table(rows))
    assert [vars(r) | {"p_success": 0} for r in again] == [vars(r) | {"p_success": 0} for r in rows]
    assert all(math.isnan(r.p_success) for r in again)
