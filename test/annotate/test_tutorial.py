"""The commands of docs/tutorial.md, run as they stand there, on bags of the simulated Franka."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from simulated_bags import write_sessions

from ifailsense_ros.evaluate.labels import read_labels
from ifailsense_ros.evaluate.results import read_results

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
SCENES = ("00", "01", "02", "03", "04", "05")


def commands() -> list[str]:
    """Every indented line of the page that begins with `ifailsense`."""
    text = TUTORIAL.read_text("utf-8")
    return [line.strip() for line in text.splitlines() if line.startswith("    ifailsense ")]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> tuple[Path, dict[str, str], dict[str, dict[str, bool]]]:
    """A folder with bags, an environment where `ifailsense` is this checkout's, and the truth."""
    folder = tmp_path_factory.mktemp("tutorial")
    truths = {
        "bags": write_sessions(folder / "bags", SCENES, copies=3, seed=0),
        "tomorrow": write_sessions(folder / "tomorrow", SCENES[:2], copies=1, seed=1),
    }
    (folder / "bin").mkdir()
    command = folder / "bin" / "ifailsense"
    command.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ifailsense_ros.cli "$@"\n'
    )
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    return folder, environment, truths


def annotate(command: str, folder: Path, environment: dict[str, str], truth: dict[str, bool]):
    """What a person does: open the page, say of each episode how it ended, press Ctrl-C."""
    run = subprocess.Popen(
        shlex.split(command), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        lines = iter(run.stdout.readline, "")
        address = next(found for line in lines if (found := re.match(r"open (http://\S+)", line)))
        host, path = re.fullmatch(r"http://([^/]+)(/.*)", address[1]).groups()
        said = 0
        while (number := ask(host, f"{path}api/state")["next"]) is not None:
            key = ask(host, f"{path}api/episode/{number}")["key"]
            word = "success" if truth[key] else "failure"
            ask(host, f"{path}api/label", {"number": number, "label": word})
            said += 1
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 0
    finally:
        run.kill()
    assert said == len(truth)


def ask(host: str, path: str, content: dict | None = None) -> dict:
    connection = http.client.HTTPConnection(host, timeout=60)
    body = None if content is None else json.dumps(content)
    kind = {} if body is None else {"Content-Type": "application/json"}
    connection.request("GET" if body is None else "POST", path, body, kind)
    answer = connection.getresponse()
    said = json.loads(answer.read())
    assert answer.status == 200, said
    return said


def test_the_tutorial_says_what_this_test_runs():
    words = [tuple(command.split()[1:3]) for command in commands()]
    assert ("detect", "bags/session-0") in words
    assert [w[0] for w in words].count("annotate") == 2
    assert ("train", "fs") in words
    assert (ROOT / "docs" / "img" / "annotate.jpg").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_command_of_the_tutorial_runs_as_written(place):
    folder, environment, truths = place
    for command in commands():
        words = shlex.split(command)
        if words[1] == "annotate":
            annotate(command, folder, environment, truths[words[2]])
            continue
        run = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, f"{command}\n{run.stdout}{run.stderr}"
        if words[1:3] == ["train", "fs"]:
            assert "| after |" in run.stdout
    assert len(list((folder / "out" / "seen").iterdir())) == 6
    labels = read_labels(folder / "labels.csv")
    assert {key: note.label for (_, key), note in labels.items()} == truths["bags"]
    before, _ = read_results(folder / "out" / "before")
    assert {r.key: r.label for r in before} == truths["bags"]
    assert (folder / "out" / "before" / "report.html").is_file()
    config = json.loads((folder / "out" / "mine" / "checkpoint" / "checkpoint.json").read_text())
    parts = config["metrics"]["episodes"].values()
    assert sum(part["successes"] + part["failures"] for part in parts) == len(truths["bags"])
    assert sum(part["groups"] for part in parts) == len(SCENES)
    compared, _ = read_results(folder / "out" / "compared")
    detectors = {r.detector for r in compared}
    assert {d.partition("@")[0] for d in detectors} == {"sim-tiny", "mine"}
    assert len(compared) == 2 * len(truths["tomorrow"])
