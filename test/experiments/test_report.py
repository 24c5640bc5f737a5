import math
from dataclasses import replace

import pytest
from made_up import FakeWorker, predictions

from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.data.smf import ExpertEpisode
from ifailsense_ros.evaluate.breakdown import figures
from ifailsense_ros.evaluate.predictions import read_predictions, write_predictions
from ifailsense_ros.evaluate.votes import guarded
from ifailsense_ros.experiments.cells import PredictionCell
from ifailsense_ros.experiments.held_out import SetWithoutPairs, is_held_out
from ifailsense_ros.experiments.paper import TABLE_1, TABLE_2
from ifailsense_ros.experiments.report import write_report
from ifailsense_ros.experiments.results import ratio
from ifailsense_ros.experiments.trust import _scores, _sure_enough

pytest.importorskip("matplotlib")


@pytest.fixture
def page(runner, place, chosen, tmp_path):
    """Writes the report after some cells; returns its text."""

    def write(pattern):
        runner.go(runner.selected(pattern))
        return write_report(place, chosen, tmp_path / "docs", "test").read_text()

    return write


def test_nothing_is_said_of_what_was_not_run(place, chosen, tmp_path):
    text = write_report(place, chosen, tmp_path / "docs", "test").read_text()
    assert "`ifailsense experiments --only 'sim-tiny/smf'`" in text
    ours = [line for line in text.splitlines() if line.startswith("|") and "paper" not in line]
    assert not any(" to 0." in line for line in ours)  # no interval, no figure
    assert ".png" not in text and not list((tmp_path / "docs" / "img").iterdir())


def test_figures_are_those_of_the_predictions(page, place, tmp_path):
    text = page("sim-tiny/*")
    rows, _ = read_predictions(place.predictions(place.cells["sim-tiny/smf"]))
    full = next(x for x in text.splitlines() if x.startswith("| sim-tiny | full | 2 |"))
    assert full.split(" | ")[3] == ratio(figures(rows), "accuracy")
    shown = {p.name for p in (tmp_path / "docs" / "img").iterdir()}
    assert shown == {f"results-{x}.png" for x in ("failures", "contrast", "calibration")}
    assert all(name in text for name in shown)
    lora = next(x for x in text.splitlines() if x.startswith("| sim-tiny | LoRA only | 2 |"))
    assert lora != full and "not run" not in lora
    assert "| sim-tiny-smf | full | 2 | not run" in text
    assert place.data_hash("smf", "test")[:16] in text and "desk 2" in text


def test_the_papers_own_figures_are_marked(page):
    text = page("sim-tiny/smf")
    for row in (*TABLE_1, *TABLE_2):
        assert any(
            f"{row.accuracy:.4f}" in line and line.count("*") >= 8 for line in text.splitlines()
        ), row


def test_predictions_that_break_a_rule_are_refused(page, place, chosen, tmp_path):
    page("sim-tiny/smf")
    path = place.predictions(place.cells["sim-tiny/smf"])
    rows, meta = read_predictions(path)
    write_predictions(path, rows, {**meta, "date": "2020-01-01T00:00:00+00:00"})
    text = write_report(place, chosen, tmp_path / "docs", "test").read_text()
    assert "**Refused**" in text and "was chosen after the test split was opened" in text
    full = next(x for x in text.splitlines() if x.startswith("| sim-tiny | full | 2 |"))
    assert "refused" in full


def test_a_trial_on_another_split_does_not_touch_the_documentation(place, chosen, tmp_path):
    page = write_report(place, chosen, tmp_path / "docs", "dev")
    assert page == place.out / "report-dev" / "results.md" and not (tmp_path / "docs").exists()
    assert "not results" in page.read_text()


def test_promises_hold_on_pairs_that_the_thresholds_have_not_seen(place):
    known = FakeWorker(place)
    cell = PredictionCell("a/validation", "train/sim-tiny", "smf", "validation")
    scores = _scores_of(predictions(cell, 400))
    fresh = predictions(replace(cell, name="b/smf", split="test"), 400)
    assert known.done == []
    for rate in (0.02, 0.05, 0.1):
        kept = _sure_enough(fresh, scores, rate)
        missed = sum(p.outcome == Outcome.SUCCESS for p in kept if not p.label) / 400
        alarms = sum(p.outcome == Outcome.FAILURE for p in kept if p.label) / 400
        slack = 3 * math.sqrt(2 * rate * (1 - rate) / 400)  # of two samples of 400
        assert missed <= rate + slack and alarms <= rate + slack
    assert sum(p.outcome != Outcome.UNKNOWN for p in kept) > 600


def _scores_of(rows):
    from ifailsense_ros.experiments.results import Loaded

    return _scores(Loaded("a", rows, {}))


def test_the_guard_is_applied_to_kept_distances():
    cell = PredictionCell("a/smf", "train/sim-tiny", "smf")
    near, far = predictions(cell, 1)
    rows = [replace(near, montage_distance=1.0), replace(far, montage_distance=3.0)]
    assert [p.outcome for p in guarded(rows, 2.0)] == [near.outcome, Outcome.UNKNOWN]
    unknown = [replace(near, montage_distance=math.nan)]
    assert guarded(unknown, 2.0) == unknown  # without a distance nothing is refused


def test_pairs_that_are_held_out_are_never_drawn():
    tasks = [f"task_{n}" for n in range(12)]
    held = {(a, b) for a in tasks for b in tasks if is_held_out(a, b, 5)}
    assert 0.08 < len(held) / 132 < 0.35 and all(a != b for a, b in held)

    made = SetWithoutPairs.__new__(SetWithoutPairs)
    made._one_in, made.categories = 5, {"all": tuple(tasks)}
    done, wrong = next(iter(sorted(held)))
    episode = ExpertEpisode(0, done, "all", "do", wrong, "do other", ("verb",), tuple(tasks))
    left = made._without(episode)
    assert left.negative_task is None and left.negative_instruction is None
    assert not any(is_held_out(done, t, 5) for t in left.wrong_tasks)
    other = next(t for t in tasks if t != done and (done, t) not in held)
    assert made._without(replace(episode, negative_task=other)).negative_task == other
    assert is_held_out("", wrong, 1) is False  # nothing was done: no combination
