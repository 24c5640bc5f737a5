"""`ifailsense train fs`: mistakes are one line. For what it makes see test_own.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulated_bags import write_sessions

from ifailsense_ros.cli import main
from ifailsense_ros.evaluate.labels import LabelNote, write_labels


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Four labelled attempts in two bags, and one that nobody could judge."""
    folder = tmp_path_factory.mktemp("recorded")
    truth = write_sessions(folder / "bags", ("00", "04"), copies=1, seed=0)
    notes = {(str(folder / "bags"), key): LabelNote(label) for key, label in truth.items()}
    notes[str(folder / "bags"), "session-1/1"] = LabelNote(None)
    write_labels(folder / "labels.csv", notes)
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", "bags", "--labels", "nowhere.csv"], "nowhere.csv"),
        (["--data", "bags", "--checkpoint", "nowhere"], "nowhere"),
        (["--data", "bags", "--steps", "0"], "--steps 0"),
        (["--data", "bags", "--lr", "nan"], "--lr nan"),
        (["--data", "bags", "--held-out", "0.9"], "--held-out 0.9"),
        (["--data", "bags", "--validation", "0"], "--validation 0"),
        (["--data", "bags"], "0 successes among 0"),  # nothing beside these bags says any
        (["--data", "bags", "--labels", "labels.csv"], "2 successes among 3"),
    ],
)
def test_a_mistake_is_one_line(place, monkeypatch, capsys, words, said):
    monkeypatch.chdir(place)
    assert main(["train", "fs", *words, "--out", "out/mine", "--threads", "1"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("ifailsense: ")
    assert said in last


def test_it_has_help_of_its_own(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "fs", "--help"])
    assert ended.value.code == 0
    assert "ifailsense train fs" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "train fs" in capsys.readouterr().out
