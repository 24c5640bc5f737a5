"""Which episodes a person is shown, under which names, and with which labels they are learned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from annotate_doubles import record
from simulated_bags import write_sessions

from ifailsense_ros.annotate.episodes import Episodes, Found, labelled
from ifailsense_ros.annotate.session import Session
from ifailsense_ros.cli import main
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.bag_sidecar import write_sidecar
from ifailsense_ros.evaluate.baselines.load import open_detector
from ifailsense_ros.evaluate.cases import jobs_of
from ifailsense_ros.evaluate.judge import judge_job
from ifailsense_ros.evaluate.labels import LabelNote, read_labels, write_labels

ROOT = Path(__file__).resolve().parents[2]
LEROBOT = ROOT / "test" / "data" / "readers" / "lerobot-0.4.4"


@pytest.fixture(scope="module")
def bags(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "bags"
    write_sessions(folder, ("00", "04"), copies=1, seed=0)
    return folder


def test_keys_are_those_of_results(bags, monkeypatch):
    monkeypatch.chdir(bags.parent)
    detector = open_detector("baseline:always-success")
    for path in ("bags", "bags/session-1"):
        shown = [(e.path, e.key) for e in Episodes([path])]
        jobs = jobs_of([path])
        judged = [(r.path, r.key) for j in jobs for r in judge_job(j, [detector]).rows]
        assert judged == shown
    assert [e.key for e in Episodes(["bags"])] == [
        *("session-0/0", "session-0/1"),
        *("session-1/0", "session-1/1"),
    ]


def test_the_episodes_of_a_bag_are_one_group(bags):
    groups = [e.record.group for e in Episodes([str(bags)])]
    assert groups == ["session-0", "session-0", "session-1", "session-1"]


def test_a_label_of_the_file_beats_the_data(bags, tmp_path):
    path = str(bags)
    write_labels(
        tmp_path / "labels.csv",
        {
            (path, "session-0/0"): LabelNote(False, "put it down", kind="drop"),
            (path, "session-0/1"): LabelNote(None),
            (path, "session-1/1"): LabelNote(True),
        },
    )
    found = list(Episodes([path], labels=tmp_path / "labels.csv"))
    assert [e.label for e in found] == [False, None, None, True]
    assert found[0].instruction == "put it down"
    learned = list(labelled(found))
    assert [(name.split()[-1], label, text) for name, _, label, text in learned] == [
        ("session-0/0", False, "put it down"),
        ("session-1/1", True, found[3].record.instruction),
    ]
    assert (learned[0][1].success, learned[0][1].kind, learned[0][1].task) == (False, "drop", "")


def test_what_was_unsure_is_not_learned_even_if_the_data_have_a_label():
    expert = record(0, success=True, task="lift")
    assert [x[2] for x in labelled([Found("bags", "0", expert)])] == [True]
    assert list(labelled([Found("bags", "0", expert, LabelNote(None))])) == []


def test_one_camera(bags):
    assert {e.record.num_pov for e in Episodes([str(bags)], num_pov=1)} == {1}


def test_a_damaged_bag_is_noted_and_the_rest_shown(tmp_path):
    folder = tmp_path / "bags"
    write_sessions(folder, ("00", "04"), copies=1, seed=0)
    (file,) = (folder / "session-0").glob("*.mcap")
    file.write_bytes(file.read_bytes()[:1000])
    found = Episodes([str(folder)])
    assert [e.key for e in found] == ["session-1/0", "session-1/1"]
    (problem,) = found.problems
    assert "session-0" in problem.where


def test_lerobot_data_sets():
    pytest.importorskip("av")
    found = list(Episodes([str(LEROBOT)]))
    assert len(found) == 3
    assert all(e.path == str(LEROBOT) for e in found)


def test_what_is_no_recording_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such"):
        Episodes([str(tmp_path / "nowhere")])
    sys.path.append(str(ROOT / "test" / "train"))
    from tiny_runs import make_store

    make_store(tmp_path / "store")
    with pytest.raises(ConfigError, match=r"--split|pairs are no recordings"):
        Episodes([str(tmp_path / "store")])


def test_sidecars_keep_their_say(tmp_path):
    """A label beside a bag is what the data say; the file of labels is another voice."""
    folder = tmp_path / "bags"
    write_sessions(folder, ("00",), copies=1, seed=0)
    notes = [{"label": "success", "group": "desk"}, {"label": "failure", "group": "desk"}]
    write_sidecar(folder / "session-0", notes)
    found = list(Episodes([str(folder)]))
    assert [(e.label, e.record.group) for e in found] == [(True, "desk"), (False, "desk")]
    session = Session(found, tmp_path / "labels.csv")
    assert session.next_open() == 0  # a person has said nothing yet
    session.close()


# --- the command ----------------------------------------------------------------------------------


def test_the_command_ends_with_what_was_said(bags, tmp_path):
    labels = tmp_path / "labels.csv"
    write_labels(labels, {(str(bags), "session-0/0"): LabelNote(True)})
    words = ["annotate", str(bags), "--labels", str(labels)]
    run = subprocess.Popen(
        [sys.executable, "-m", "ifailsense_ros.cli", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    while not any("Ctrl-C" in line for line in lines):
        lines.append(run.stdout.readline())
        assert lines[-1], run.stderr.read()
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert "Traceback" not in err
    assert "1 success, 0 failure, 0 unsure, 3 without a label" in out
    assert lines[1].startswith("open http://127.0.0.1:")
    assert len(read_labels(labels)) == 1


def test_ctrl_c_before_the_first_request_is_an_end_as_well(bags, tmp_path, monkeypatch, capsys):
    def at_once(url):
        raise KeyboardInterrupt

    monkeypatch.setattr("webbrowser.open", at_once)
    words = ["annotate", str(bags), "--labels", str(tmp_path / "labels.csv"), "--browser"]
    assert main(words) == 0
    assert "4 without a label" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "no such file"),
        (["{bags}", "--keyframes", "0"], "--keyframes 0"),
        (["{bags}", "--labels", "labels.txt"], ".csv"),
        (["{bags}", "--port", "99999"], "--port 99999"),
        (["{bags}", "--results", "nowhere"], "nowhere"),
        (["{bags}", "--exo-topic", "/other"], "no episode that could be shown"),
    ],
)
def test_a_mistake_is_one_line(bags, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(["annotate", *(w.format(bags=bags) for w in words)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("ifailsense: ")
    assert said in last
