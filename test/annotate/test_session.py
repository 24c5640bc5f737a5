"""What a person said is in the file after every key, and nothing else in it is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from annotate_doubles import found
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.annotate.session import WORDS, Session
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.evaluate.labels import LabelBook, LabelNote, read_labels, write_labels


@pytest.fixture(params=["labels.csv", "labels.yaml"])
def file(request, tmp_path: Path) -> Path:
    return tmp_path / "notes" / request.param


def said(file: Path) -> dict[str, bool | None]:
    return {key: note.label for (_, key), note in read_labels(file).items()}


def test_every_label_is_in_the_file_at_once(tmp_path, file):
    session = Session(found(tmp_path), file)
    assert not file.exists()
    session.label(0, "success")
    assert said(file) == {"monday/0": True}
    session.label(3, "unsure")
    session.label(1, "failure")
    assert said(file) == {"monday/0": True, "monday/3": None, "monday/1": False}
    assert session.counts() == {"success": 1, "failure": 1, "unsure": 1, "total": 5}
    assert [session.next_open(), session.next_open(2), session.next_open(4)] == [2, 4, 2]
    session.close()


def test_a_later_session_goes_on(tmp_path, file):
    first = Session(found(tmp_path), file)
    first.label(0, "success")
    first.close()
    again = Session(found(tmp_path), file)
    assert again.label_of(0) == "success"
    assert again.next_open() == 1
    assert again.undo() is None  # what an earlier session said stays
    again.close()


def test_undo_goes_back_label_by_label(tmp_path, file):
    session = Session(found(tmp_path), file)
    session.label(0, "success")
    session.label(0, "failure")
    session.label(1, "unsure")
    assert session.undo() == 1
    assert session.label_of(1) is None
    assert session.undo() == 0
    assert said(file) == {"monday/0": True}
    assert session.undo() == 0
    assert said(file) == {}
    assert session.undo() is None
    session.close()


@given(st.lists(st.one_of(st.tuples(st.integers(0, 4), st.sampled_from(sorted(WORDS))), st.none())))
def test_the_file_says_what_the_session_says(tmp_path_factory, keys):
    """Whatever is pressed; None stands for undo."""
    folder = tmp_path_factory.mktemp("labels")
    session = Session(found(folder), folder / "labels.csv")
    states = [{}]
    for key in keys:
        if key is None:
            session.undo()
            states = states[:-1] or [{}]
        else:
            session.label(*key)
            states.append({**states[-1], f"monday/{key[0]}": WORDS[key[1]]})
        if session.file.exists():
            assert said(session.file) == states[-1]
    session.close()


def test_notes_of_others_and_of_other_fields_stay(tmp_path, file):
    path = str(tmp_path / "monday")
    own = LabelNote(False, "put it down", "placing", "incomplete_grasp")
    labels = {("elsewhere", "a/0"): LabelNote(True), (path, "monday/1"): own}
    write_labels(file, labels)
    session = Session(found(tmp_path), file)
    assert session.label_of(1) == "failure"
    session.label(1, "failure")
    assert read_labels(file) == labels
    session.label(1, "success")  # then it was no incomplete grasp either
    assert read_labels(file)[path, "monday/1"] == LabelNote(True, "put it down", "placing")
    assert ("elsewhere", "a/0") in read_labels(file)
    session.close()


def test_paths_are_found_from_wherever_they_are_named(tmp_path, monkeypatch):
    """Relative on the command line: relative to the file in it; and the same episode either way."""
    (tmp_path / "bags" / "monday").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "bags")
    session = Session(found(Path(), 2), tmp_path / "notes" / "labels.csv")
    session.label(0, "success")
    session.close()
    assert list(read_labels(session.file)) == [("../bags/monday", "monday/0")]
    monkeypatch.chdir(tmp_path)
    assert LabelBook(session.file).of("bags/monday") == {"monday/0": LabelNote(True)}
    again = Session(found(tmp_path / "bags", 2), session.file)
    assert again.label_of(0) == "success"
    again.label(0, "failure")
    assert said(session.file) == {"monday/0": False}
    again.close()


def test_only_one_session_has_a_file(tmp_path, file):
    session = Session(found(tmp_path), file)
    with pytest.raises(ConfigError, match="has it open"):
        Session(found(tmp_path), file)
    session.close()
    Session(found(tmp_path), file).close()
    assert not list(file.parent.glob(".*.lock"))


def test_what_another_program_wrote_is_not_overwritten(tmp_path, file):
    session = Session(found(tmp_path), file)
    session.label(0, "success")
    write_labels(file, {("else", "where"): LabelNote(False)})
    with pytest.raises(DataError, match="changed by another program"):
        session.label(1, "failure")
    assert session.label_of(1) is None
    assert said(file) == {"where": False}
    session.close()


def test_what_cannot_be_saved_is_not_said(tmp_path, file, monkeypatch):
    session = Session(found(tmp_path), file)
    session.label(0, "success")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match="No space left"):
        session.label(0, "failure")
    monkeypatch.undo()
    assert session.label_of(0) == "success"
    assert said(file) == {"monday/0": True}
    session.label(1, "unsure")
    assert session.undo() == 1
    session.close()


def test_a_kill_in_mid_work_leaves_the_last_file_whole(tmp_path):
    """Killed at any moment, the file can be read and holds what was said before."""
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from annotate_doubles import found
from ifailsense_ros.annotate.session import Session
session = Session(found(Path({str(tmp_path)!r}), 300), Path({str(tmp_path)!r}) / "labels.csv")
for n in range(10**6):
    session.label(n % 300, "success")
    print(n, flush=True)
"""
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in run.stdout:
        if int(line) == 40:
            run.send_signal(signal.SIGKILL)
            break
    run.wait()
    assert len(said(tmp_path / "labels.csv")) >= 41
    again = Session(found(tmp_path, 300), tmp_path / "labels.csv")  # the lock died with it
    again.close()


def test_a_folder_that_cannot_be_written_to_is_said_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        Session(found(tmp_path), tmp_path / "file" / "labels.csv")
    with pytest.raises(ConfigError, match=r"\.csv"):
        Session(found(tmp_path), tmp_path / "labels.txt")
    assert not list(tmp_path.glob(".*"))
