"""Tasks with all monitors, without a model and without OpenGL."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")

from stand_ins import RiseDetector

from ifailsense_ros.closed_loop import command
from ifailsense_ros.closed_loop.experiment import (
    NO_VERDICT,
    Arms,
    Chunk,
    Loaded,
    carry_out,
    chunks_of,
    do_chunk,
    run,
)
from ifailsense_ros.closed_loop.monitors import (
    GRIPPER,
    NOBODY,
    ORACLE,
    RETRY_ONCE,
    SIMPLE,
    Watching,
    simple_monitor,
)
from ifailsense_ros.closed_loop.recovery import Rules
from ifailsense_ros.closed_loop.scenes import Course, Move, keyframes_of, setup_of
from ifailsense_ros.closed_loop.settings import load_settings
from ifailsense_ros.core.keyframes import select_keyframes
from ifailsense_ros.core.verdict import Outcome, Reason

pytestmark = pytest.mark.sim

SETTINGS = load_settings()
FEW = replace(SETTINGS, tasks=replace(SETTINGS.tasks, split="dev", seeds=(7,), count=12))
LIFT = 0
"""A task of seed 7 whose first attempt succeeds: the red block is lifted."""
WRONG = 9
"""One whose first attempt fails."""


def course(stage, index: int) -> Course:
    return Course(stage, setup_of("dev", 7, index, "mild"))


@pytest.fixture(scope="module")
def tries(stage):
    monitors = [simple_monitor(name) for name in SIMPLE]
    done = do_chunk(Chunk("dev", 7, 0, 12, "mild"), Loaded(FEW, stage, monitors))
    return [list(found) for _, found in groupby(done.rows, lambda row: (row.index, row.monitor))]


def test_every_monitor_sees_the_same_first_attempt(tries) -> None:
    assert len(tries) == 12 * len(SIMPLE)
    for index in range(12):
        firsts = {(t[0].kind, t[0].performed, t[0].success) for t in tries if t[0].index == index}
        assert len(firsts) == 1


def test_what_the_planners_do(tries) -> None:
    for of_task in tries:
        first, last = of_task[0], of_task[-1]
        assert [row.tries for row in of_task] == list(range(1, len(of_task) + 1))
        assert last.choice in ("done", "ask for help")
        if first.monitor == NOBODY:
            assert len(of_task) == 1 and first.outcome == NO_VERDICT
        if first.monitor == RETRY_ONCE:
            assert len(of_task) == 2
        if first.monitor == ORACLE:
            assert last.success == (last.choice == "done")
            assert all(not row.success for row in of_task[:-1])
        assert [row.home_s > 0 for row in of_task] == [row.tries > 1 for row in of_task]


def test_there_is_something_to_gain(tries) -> None:
    success = {name: [t[-1].success for t in tries if t[0].monitor == name] for name in SIMPLE}
    assert 0 < sum(success[NOBODY]) < sum(success[ORACLE])
    assert sum(success[NOBODY]) <= sum(success[GRIPPER]) <= sum(success[ORACLE])


def test_a_detector_is_shown_what_a_monitor_node_would_freeze(stage) -> None:
    lift, detector = course(stage, LIFT), RiseDetector()
    (row,) = carry_out(lift, Watching(detector), SETTINGS)
    assert row.monitor == "rise@0"
    assert row.success and row.outcome == Outcome.SUCCESS and row.p_success > 0.5
    (episode,) = detector.asked
    states = lift.attempt([Move(0)]).states
    assert episode.instruction == lift.setup.instruction == row.instruction
    assert episode.num_pov == 2 and len(episode.keyframes) == 4
    assert episode.keyframes[0].stamp_ns == 0
    assert episode.keyframes[-1].stamp_ns == episode.end_ns == (len(states) - 1) * 100_000_000
    grey = [int(k.views[0].mean()) for k in episode.keyframes]
    assert grey[-1] > grey[0], "the block is up at the end"


def test_pictures_are_taken_once_and_of_keyframes_only(stage) -> None:
    lift, before = course(stage, LIFT), stage.camera.taken
    for _ in range(2):
        list(carry_out(lift, Watching(RiseDetector()), SETTINGS))
    assert stage.camera.taken == before + 4


@pytest.mark.parametrize("count", [4, 30, 64, 65, 150])
def test_keyframes_of_long_attempts_too(count: int) -> None:
    picks = keyframes_of(count, 4)
    assert picks[0] == 0 and picks[-1] == count - 1
    exact = select_keyframes(list(range(count)), 4)
    assert np.abs(np.subtract(picks, exact)).max() <= count // 64
    assert count > 64 or picks == exact


def test_unknown_ends_in_help(stage) -> None:
    (row,) = carry_out(course(stage, LIFT), Watching(RiseDetector(unknown=True)), SETTINGS)
    assert row.choice == "ask for help"
    assert row.reason == Reason.OUT_OF_DISTRIBUTION


def test_early_warnings_give_an_attempt_up_and_save_its_time(stage) -> None:
    wrong = course(stage, WRONG)
    patient = list(carry_out(wrong, Watching(RiseDetector()), SETTINGS))
    hasty = replace(SETTINGS, planner=Rules(max_tries=3, give_up_below=0.5, give_up_after=2))
    rows = list(carry_out(wrong, Watching(RiseDetector()), hasty))
    assert rows[0].given_up and not rows[0].done and rows[0].outcome == NO_VERDICT
    assert rows[0].duration_s == pytest.approx(1.0), "two warnings, half a second apart"
    assert rows[0].duration_s < patient[0].duration_s
    assert rows[1].policy_seed == 1, "asked anew"
    again = list(carry_out(wrong, Watching(RiseDetector()), SETTINGS))
    assert [r.success for r in again] == [r.success for r in patient], "nothing was disturbed"


def test_attempts_are_the_same_in_whatever_order_they_are_asked_for(stage) -> None:
    rows = [[Move(0), Move(1)], [Move(0, 12), Move(1)], [Move(0), Move(0)], [Move(0)]]
    one = course(stage, WRONG)
    there = [one.attempt(moves).states for moves in rows]
    other = course(stage, WRONG)
    back = [other.attempt(moves).states for moves in reversed(rows)]
    for a, b in zip(there, reversed(back), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch) -> None:
    few = replace(FEW, tasks=replace(FEW.tasks, count=3))
    arms = Arms(few)
    rows, problems = run(arms, "", tmp_path, workers=0, progress=False)
    first = list(rows)
    assert not problems
    assert {(r.index, r.monitor) for r in first} == {(i, m) for i in range(3) for m in SIMPLE}

    def fails(*_) -> None:
        raise AssertionError("done before")

    monkeypatch.setattr("ifailsense_ros.closed_loop.experiment.do_chunk", fails)
    again, _ = run(arms, "", tmp_path, workers=0, progress=False)
    assert [repr(r) for r in again] == [repr(r) for r in first]


def test_chunks_cover_every_task_once() -> None:
    tasks = replace(SETTINGS, tasks=replace(SETTINGS.tasks, count=23))
    found = [(c.seed, i) for c in chunks_of(tasks) for i in range(c.first, c.end)]
    assert sorted(found) == [(seed, i) for seed in (801, 802, 803) for i in range(23)]
    assert len({c.name for c in chunks_of(tasks)}) == 9


# --- the command ----------------------------------------------------------------------------------


def test_the_command(tmp_path, capsys) -> None:
    arguments = ["--no-detector", "--split", "dev", "--seeds", "7", "--tasks", "4"]
    assert command.main([*arguments, "--workers", "0", "--out", str(tmp_path)]) == 0
    assert "4 tasks" in capsys.readouterr().out
    assert (tmp_path / "tries.parquet").is_file()
    import json

    content = json.loads((tmp_path / "figures.json").read_text())
    assert content["made"]["fixed"] is False, "other tasks than the settings'"
    assert set(content["figures"]["monitors"]) == set(SIMPLE)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seeds", "a"], "--seeds a"),
        (["--tasks", "0"], "--tasks"),
        (["--detector", "nowhere:load"], "nowhere"),
        (["--settings", "no/such.yaml"], "no/such.yaml"),
        (["--seeds", "-1"], "--seeds"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path, capsys, arguments, named) -> None:
    assert command.main([*arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
