"""Early warnings: made-up attempts with known answers, and a stand-in detector on real ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")

from stand_ins import RiseDetector

from ifailsense_ros.closed_loop import early
from ifailsense_ros.closed_loop.early import looks_of_table, looks_table, samples_at
from ifailsense_ros.closed_loop.early_figures import FRACTIONS, Look, figures, thresholds
from ifailsense_ros.closed_loop.monitors import Seen, Watching
from ifailsense_ros.closed_loop.scenes import Course, Move, setup_of

pytestmark = pytest.mark.sim

N = len(FRACTIONS)


def made_up(index: int, success: bool, low_from: int | None) -> Look:
    """An attempt of ten seconds that looks bad from one of the moments on."""
    rng = np.random.default_rng(index)
    p = [float(rng.uniform(0.5, 0.9)) for _ in FRACTIONS]
    if low_from is not None:
        p[low_from:] = [float(rng.uniform(0.0, 0.2)) for _ in p[low_from:]]
    return Look(1, index, success, 10.0, tuple(p))


@pytest.fixture(scope="module")
def found() -> dict:
    """Half of 80 attempts fail; of these half look bad from the fifth moment on, a quarter at the
    end alone, and a quarter never.
    """
    rows = []
    for index in range(80):
        when = {0: 4, 1: 4, 2: N - 1, 3: None}[index // 2 % 4]
        rows.append(made_up(index, index % 2 == 0, when if index % 2 else None))
    # Threshold and measurement take turns over the sorted rows: shuffle who is where.
    order = np.random.default_rng(0).permutation(80)
    rows = [
        Look(1, int(n), r.success, r.duration_s, r.p_success)
        for n, r in zip(order, rows, strict=True)
    ]
    return figures(rows, resamples=200)


def test_how_early_at_what_price(found) -> None:
    assert (found["attempts"], found["failures"]) == (80, 40)
    both = found["announced"]["0.05"]
    assert both["early"]["false_alarms"] <= 0.15
    assert both["early"]["detected"] >= 0.75
    assert both["end"]["detected"] >= 0.75
    assert both["end"]["lead_s"] == 0.0
    # Twenty of thirty are announced at 0.7 of ten seconds, the others at their end.
    assert both["early"]["lead_s"] == pytest.approx(2.0, abs=0.4)
    assert both["early"]["median_lead_s"] == pytest.approx(3.0)


def test_what_can_be_told_when(found) -> None:
    auc = [found["at"][f"{f:g}"]["auc"] for f in FRACTIONS]
    assert max(auc[:4]) < 0.65, "nothing is to be seen yet"
    assert auc[5] == pytest.approx(0.75, abs=0.12)
    assert auc[-1] == pytest.approx(0.875, abs=0.08)
    low, high = found["at"]["1"]["auc_95"]
    assert low <= auc[-1] <= high


@pytest.mark.parametrize("one", [True, False])
def test_thresholds_keep_their_rate(one: bool) -> None:
    rng = np.random.default_rng(1)
    p, good = rng.random((500, 3)), rng.random(500) < 0.6
    for rate in (0.0, 0.01, 0.1, 1.0):
        found = thresholds(p, good, rate, one=one)
        warned = (p < found).any(1)[good].mean()
        assert warned <= rate
        assert warned > rate - 0.02 or rate == 1.0
        assert found.shape == (3,) and (len(set(found)) == 1) == one


def test_a_threshold_for_each_moment_sees_what_one_for_all_cannot() -> None:
    """All look bad at first, successes look well in the end."""
    rng = np.random.default_rng(2)
    rows = []
    for index in range(80):
        p = np.full(N, 0.1) + rng.uniform(0, 0.01, N)
        p[-1] = rng.uniform(0.8, 0.9) if index % 4 < 2 else 0.3
        rows.append(Look(1, index, index % 4 < 2, 10.0, tuple(p.tolist())))
    by_way = figures(rows, resamples=50)["announced"]["0.1"]
    assert by_way["early"]["detected"] < 0.3
    assert by_way["timed"]["detected"] == by_way["end"]["detected"] == 1.0


def test_what_it_cannot_say_is_no_warning() -> None:
    rows = [made_up(i, i < 10, None) for i in range(20)]
    silent = [Look(1, i, r.success, 10.0, (math.nan,) * N) for i, r in enumerate(rows)]
    found = figures(silent, resamples=50)
    assert found["announced"]["0.05"]["early"]["detected"] == 0.0
    assert found["announced"]["0.05"]["early"]["lead_s"] is None
    assert found["at"]["1"]["auc"] == 0.5


def test_there_must_be_both() -> None:
    with pytest.raises(ValueError, match="failures and successes"):
        figures([made_up(0, True, None)])


def test_rows_survive_the_file() -> None:
    rows = [made_up(0, True, None), made_up(1, False, 3)]
    assert looks_of_table(looks_table(rows)) == rows


def test_an_attempt_is_judged_on_its_way(stage) -> None:
    course = Course(stage, setup_of("dev", 7, 0, "mild"))  # the red block is lifted
    look = early.look(course, Watching(RiseDetector()))
    assert look.success
    assert look.p_success[0] < 0.5 < look.p_success[-1], "at first it has not risen"
    assert samples_at(1.0, 40) == 40 and samples_at(0.5, 41) == 21


def test_too_short_for_a_look_is_nothing_said(stage) -> None:
    course = Course(stage, setup_of("dev", 7, 0, "mild"))
    seen = Seen(course.attempt([Move(0)]), 1, lambda *_: pytest.fail("not enough to look at"))
    assert math.isnan(Watching(RiseDetector()).warn(seen, 3))


def test_the_command_says_what_is_wrong(tmp_path, capsys) -> None:
    assert early.main(["--detector", "nowhere:load", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ifailsense closed-loop early: ") and error.count("\n") == 1
