"""Data sets and stores evaluated: the same pairs and verdicts as `ifailsense predict` has."""

import csv
import io

import pytest
from rich.console import Console

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.core.verdict import Outcome, Reason
from ifailsense_ros.data.records import Problem
from ifailsense_ros.evaluate import run
from ifailsense_ros.evaluate.breakdown import figures as figures_of_predictions
from ifailsense_ros.evaluate.cases import jobs_of
from ifailsense_ros.evaluate.predictions import predict
from ifailsense_ros.evaluate.results import Result, read_results
from ifailsense_ros.evaluate.summaries import Judged, figures_of
from ifailsense_ros.evaluate.tables import print_figures, print_problems


@pytest.fixture
def detector(rule_detector):
    return rule_detector()


@pytest.fixture
def evaluate(tmp_path, monkeypatch, detector):
    def go(*paths, **options) -> list[Result]:
        def load(which):
            return (detector,)

        load.cache_clear = lambda: None
        monkeypatch.setattr(run, "load_detectors", load)
        names = run.Detectors((detector.model_id,))
        places = [str(path) for path in paths]
        go.found = run.evaluate(
            places, names, tmp_path / "out", workers=0, progress=False, **options
        )
        return read_results(tmp_path / "out")[0]

    return go


@pytest.mark.parametrize("kind", ["smf_store", "failure_store", "smf_set"])
def test_pairs_are_those_of_predict(request, evaluate, detector, kind):
    made = request.getfixturevalue(kind)
    folder = getattr(made, "folder", made)
    expected = list(predict(detector, folder, "test", progress=False))
    found = evaluate(folder, split="test")
    assert [(r.key, r.instruction, r.label, r.kind, r.outcome, r.votes) for r in found] == [
        (f"{p.key}:{p.pair_id}", p.instruction, p.label, p.kind, p.outcome, p.votes)
        for p in expected
    ]
    assert len({r.key for r in found}) == len(found) > 4
    ours = evaluate.found.figures[detector.model_id]["all"]
    theirs = figures_of_predictions(expected)
    for name in ("n", "accuracy", "recall", "failure_recall", "confusion"):
        assert ours[name] == theirs[name], name
    assert all(r.montage and r.end_ns > r.start_ns for r in found)


def test_a_split_must_be_named_where_there_are_several(smf_store, evaluate):
    with pytest.raises(ConfigError, match="has the splits dev, test, train: name one with --split"):
        evaluate(smf_store)
    assert {r.key.split("/")[0] for r in evaluate(f"store:{smf_store}?split=dev")} == {"dev"}
    with pytest.raises(DataError, match="nothing"):
        evaluate(smf_store, split="nothing")
    with pytest.raises(ConfigError, match="no option 'colour'"):
        evaluate(f"store:{smf_store}?colour=red")


def test_a_shard_is_a_job_and_keeps_its_name_until_it_changes(smf_store):
    first = jobs_of([str(smf_store)], split="dev")
    assert [job.part for job in first] == sorted(p.name for p in smf_store.glob("dev-*.parquet"))
    assert len({job.name for job in first}) == len(first)
    assert [job.name for job in jobs_of([str(smf_store)], split="dev")] == [j.name for j in first]
    assert first[0].where == f"{smf_store}: {first[0].part}"


def test_opening_a_test_split_is_noted_once(smf_store, evaluate, tmp_path):
    log = tmp_path / "opened.csv"
    command = ["ifailsense", "evaluate", "here"]
    for _ in range(2):
        evaluate(smf_store, split="test", opened=log, command=command)
        evaluate(smf_store, split="dev", opened=log, command=command)
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["data"], r["command"]) for r in rows] == [("smf", "ifailsense evaluate here")]


# --- figures and tables


def judged(label, outcome, kind="", category="lifting", cluster="", reason=0) -> Judged:
    return Judged(label, outcome, reason, cluster, category, kind)


ROWS = [
    *(judged(True, 1, "expert", cluster=f"s{n}") for n in range(8)),
    *(judged(True, 2, "expert", "pushing", cluster=f"s{n}") for n in range(2)),
    *(judged(False, 2, "missing_rotation", cluster=f"s{n}") for n in range(3)),
    *(judged(False, 1, "dropped", "pushing", cluster=f"s{n}") for n in range(3)),
    judged(False, 0, "", cluster="s9", reason=int(Reason.CAMERA_STALE)),
    judged(None, 1),
    judged(None, 0, reason=int(Reason.CAMERA_STALE)),
]  # fmt: skip


def test_figures_by_category_and_class():
    found = figures_of(ROWS)
    assert found["all"]["n"] == 17
    assert found["all"]["accuracy"] == round(11 / 17, 4)
    assert list(found["category"]) == ["lifting", "pushing"]
    assert found["category"]["pushing"]["accuracy"] == 0.0
    classes = found["failure_class"]
    assert list(classes) == ["missing_rotation", "dropped", "(none)"]
    assert classes["missing_rotation"]["failure_recall"] == 1.0
    assert classes["missing_rotation"]["failures"] == 3
    # Beside them the successes of the same three groups, of which two are called failures.
    assert classes["missing_rotation"]["false_alarms"] == 0.4
    assert classes["dropped"]["failure_recall"] == classes["(none)"]["failure_recall"] == 0.0
    assert found["unlabelled"] == {"n": 2, "UNKNOWN": 1, "SUCCESS": 1, "FAILURE": 0}
    assert found["unknown"] == {"CAMERA_STALE": 2}


def printed(of, *what) -> str:
    out = io.StringIO()
    of(*what, Console(file=out, width=120, color_system=None))
    return out.getvalue()


def test_tables_show_every_detector_and_what_has_no_label():
    other = [row._replace(outcome=int(Outcome.SUCCESS)) for row in ROWS]
    text = printed(print_figures, {"one@1": figures_of(ROWS), "[two]@2": figures_of(other)})
    for wanted in ("one@1", "[two]@2", "Accuracy by task category", "missing_rotation", "0.647"):
        assert wanted in text, wanted
    assert "one@1: 2 episodes without a label: 1 SUCCESS, 0 FAILURE, 1 UNKNOWN" in text
    assert "one@1: UNKNOWN because of CAMERA_STALE 2" in text
    line = next(line for line in text.splitlines() if "accuracy" in line)
    assert line.count("[0.") == 2  # intervals, not eaten as markup


def test_without_a_label_there_are_no_metrics():
    text = printed(print_figures, {"one@1": figures_of([judged(None, 1), judged(None, 2)])})
    assert text.strip() == "one@1: 2 episodes without a label: 1 SUCCESS, 1 FAILURE, 0 UNKNOWN"


def test_many_problems_are_cut_short_on_the_terminal():
    text = printed(print_problems, [Problem(f"[bag] {n}", "is broken") for n in range(30)])
    lines = text.splitlines()
    assert lines[0] == "[bag] 0: is broken" and len(lines) == 21
    assert lines[-1] == "... and 10 more in problems.json"
