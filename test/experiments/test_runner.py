import csv
import json
import signal
import subprocess

import pytest
from filelock import FileLock
from made_up import checkpoint_config, data_set

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.experiments import runner as runner_module
from ifailsense_ros.experiments.cells import PredictionCell, TrainingCell
from ifailsense_ros.experiments.opening import Chosen
from ifailsense_ros.experiments.runner import INTERRUPTED, LOCK_FILE, Runner, subprocess_worker
from ifailsense_ros.experiments.state import CLOSED, DONE, FAILED, NOT_RUN, STARTED, WAITING


def names(cells):
    return [c.name for c in cells]


def go(runner, pattern):
    return runner.go(runner.selected(pattern))


def test_a_chosen_cell_takes_along_what_it_needs(runner):
    assert names(runner.selected("blocks-on-unseen/unseen")) == [
        "train/sim-tiny",
        "data/unseen-train",
        "train/blocks-on-unseen",
        "blocks-on-unseen/unseen",
    ]
    with pytest.raises(ConfigError, match="no such cell"):
        runner.selected("nothing*")


def test_every_cell_is_done_once(runner, worker, place):
    assert go(runner, "control-*/smf") == 0
    first = list(worker.done)
    assert len(first) == 10 and first[0] == "train/control-image_blind"
    assert go(runner, "control-*/smf") == 0
    assert worker.done == first
    assert all(runner.state(place.cells[n]).name == DONE for n in first)


def test_other_data_is_another_cell_and_what_was_made_stays(runner, worker, place):
    go(runner, "sim-tiny/unseen")
    before = place.folder(place.cells["sim-tiny/unseen"])
    data_set(place.data / "unseen", "other")
    place._hashes.clear()
    assert runner.state(place.cells["sim-tiny/unseen"]).name == NOT_RUN
    assert runner.state(place.cells["train/sim-tiny"]).name == DONE
    go(runner, "sim-tiny/unseen")
    assert worker.done.count("sim-tiny/unseen") == 2 and worker.done.count("train/sim-tiny") == 1
    assert before.is_dir() and before != place.folder(place.cells["sim-tiny/unseen"])


def test_a_failing_cell_is_listed_and_stops_no_other(runner, worker, place, said):
    worker.statuses["train/control-image_blind"] = -9
    assert go(runner, "control-*/smf") == 1
    assert "control-shuffled_labels/smf" in worker.done
    assert "control-image_blind/smf" not in worker.done
    assert runner.state(place.cells["train/control-image_blind"]).name == FAILED
    assert runner.state(place.cells["control-image_blind/smf"]).name == WAITING
    assert any("failed: train/control-image_blind" in line for line in said)
    assert go(runner, "control-*/smf") == 0  # tried again, and it works


def test_ctrl_c_stops_at_once_and_the_same_command_goes_on(runner, worker, place):
    worker.statuses["train/sim-tiny"] = INTERRUPTED
    assert go(runner, "sim-tiny/smf") == INTERRUPTED
    assert runner.state(place.cells["train/sim-tiny"]).name == STARTED
    assert worker.done == ["train/sim-tiny"]
    assert go(runner, "sim-tiny/smf") == 0


def test_a_cell_that_another_run_is_at_work_on_is_left_to_it(runner, worker, place, said):
    names_of = ["train/control-image_blind", "train/control-shuffled_labels"]
    held = place.folder(place.cells[names_of[0]])
    held.mkdir(parents=True)
    with FileLock(held / LOCK_FILE):
        assert go(runner, ",".join(names_of)) == 0
    assert worker.done == names_of[1:]
    assert f"{names_of[0]}: another run is at work on it, and it is left to that" in said
    assert go(runner, ",".join(names_of)) == 0
    assert worker.done == names_of[::-1]


def test_what_another_run_has_done_meanwhile_is_not_done_again(runner, worker, place, monkeypatch):
    cell = place.cells["train/control-image_blind"]

    class Late(FileLock):
        def acquire(self, *args, **options):
            assert Runner._do(runner, cell) == 0  # the other one, just before
            return super().acquire(*args, **options)

    monkeypatch.setattr(runner_module, "FileLock", Late)
    assert go(runner, cell.name) == 0
    assert worker.done == [cell.name]


def test_progress_says_how_much_is_left(runner, said, place):
    go(runner, "sim-tiny/*")
    assert said[0].startswith("[1/8] train/sim-tiny: about 1 h 30 min, 1 h 4")
    assert said[-1] == "8 of 8 cells are done"
    assert any("about" in line for line in runner.table(list(place.cells.values()))[-1:])


def test_a_finished_run_is_taken_over(runner, worker, place, tmp_path):
    config = checkpoint_config(TrainingCell("train/elsewhere", "sim-tiny"))
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint" / "checkpoint.json").write_text(config.to_json())
    place.adopt("train/sim-tiny", str(tmp_path / "run"))
    assert go(runner, "sim-tiny/smf") == 0 and worker.done == ["sim-tiny/smf"]
    assert place.run_folder(place.cells["train/sim-tiny"]) == tmp_path / "run"
    with pytest.raises(ConfigError, match="no training cell"):
        place.adopt("sim-tiny/smf", str(tmp_path / "run"))


def test_data_with_a_folder_for_each_split_is_found(place):
    data_set(place.data / "failures_dev")
    assert place.data_folder("failures", "dev").name == "failures_dev"
    assert place.data_folder("failures", "test").name == "failures"


# --- test once


def git(folder, *command):
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    (folder / "results").mkdir(parents=True)
    git(folder, "init", "-q")
    return folder


def test_a_test_split_is_closed_until_the_choice_is_committed(place, worker, said, checkout):
    chosen = Chosen(checkout / "results" / "chosen.csv")
    runner = Runner(place, chosen, worker, said.append)
    assert go(runner, "sim-tiny/*") == 0
    # Validation is no test split.
    assert worker.done == ["train/sim-tiny", "sim-tiny/validation"]
    assert runner.state(place.cells["sim-tiny/smf"]).name == CLOSED
    assert "6 cells open a test split" in said[-1]
    with chosen.path.open() as file:
        (row,) = csv.DictReader(file)
    assert row["cell"] == "train/sim-tiny" and row["checkpoint"].startswith("sim-tiny@")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "chosen")
    assert go(runner, "sim-tiny/*") == 0
    assert set(worker.done) == {n for n, c in place.cells.items() if _is_main(c)}


def _is_main(cell):
    return cell.name == "train/sim-tiny" or (
        isinstance(cell, PredictionCell) and cell.of == "train/sim-tiny"
    )


def test_what_was_opened_before_the_choice_is_refused(checkout):
    chosen = Chosen(checkout / "results" / "chosen.csv")
    meta = {"split": "test", "checkpoint": "a@1+base", "date": "2020-01-01T00:00:00+00:00"}
    assert "never committed" in chosen.refuses(meta)
    chosen.add("a@1", "train/a", "0")
    assert "never committed" in chosen.refuses(meta)
    assert not Chosen(chosen.path, uncommitted=True).may_open("test", "a@1")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "chosen")
    assert "chosen after" in chosen.refuses(meta)
    assert chosen.refuses({**meta, "date": "2100-01-01T00:00:00+00:00"}) == ""
    assert chosen.refuses({**meta, "split": "dev"}) == ""


def test_a_choice_is_written_down_once(tmp_path):
    chosen = Chosen(tmp_path / "chosen.csv", uncommitted=True)
    for _ in range(2):
        chosen.add("a@1", "train/a", "0")
    assert len((tmp_path / "chosen.csv").read_text().splitlines()) == 2


def test_records_say_what_happened(runner, place):
    go(runner, "sim-tiny/smf")
    cell = place.cells["sim-tiny/smf"]
    record = json.loads((place.folder(cell) / "record.json").read_text())
    assert (record["cell"], record["state"]) == ("sim-tiny/smf", "done")


def test_a_runner_that_is_told_to_end_lets_its_cell_save_itself(tmp_path, monkeypatch):
    # A stand-in for the process of a cell: it ends the runner, and waits for its own signal.
    child = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(130))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "signal.pause()\n"
    )
    started = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command: started([command[0], "-c", child]))
    work = subprocess_worker(tmp_path, tmp_path, "test", tmp_path / "opened.csv", 1)
    before = signal.getsignal(signal.SIGTERM)
    assert work(TrainingCell("train/x", "sim-tiny")) == INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) == before
