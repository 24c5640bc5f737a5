"""A small soak of a real monitor process; `python -m benchmarks.soak` plays 10,000 episodes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

soak = pytest.importorskip("benchmarks.soak")

ROOT = Path(__file__).resolve().parents[1]


def play(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 100))}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", "--out", str(out), *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_two_hundred_episodes_with_faults(tmp_path):
    """In two parts, as after an interruption."""
    arguments = ("--seed", "3", "--interrupt-every", "120")
    first = play(tmp_path, "--episodes", "80", *arguments)
    assert first.returncode == 0, first.stderr
    done = play(tmp_path, "--episodes", "200", *arguments)
    assert done.returncode == 0, done.stderr
    state = json.loads((tmp_path / "soak.json").read_text())
    assert state["done"] >= 200
    assert state["interrupted"] == 1
    assert len(state["drawn"]) > 15, "most kinds of faults"
    assert state["silences"]["number"] > 10
    assert state["silences"]["longest"] < 10.0
    assert "Traceback" not in (tmp_path / "brief.log").read_text()
    # Other settings do not go on with this run.
    other = play(tmp_path, "--episodes", "300", "--seed", "4")
    assert other.returncode != 0
    assert "other settings" in other.stderr


def test_silences_of_diagnostics_are_counted():
    silences = soak.Silences()
    silences.add([])
    silences.add([1.0, 0.9, 1.3])
    silences.add([1.0])
    assert str(silences) == "longest silence 1.30 s, 1 of 4 (25.00%) longer than 1.2 s"


def test_memory_is_compared_from_a_thousand_episodes_on():
    flat = [(n, 100.0 + n % 3) for n in range(0, 3000, 25)]
    assert "101.0 MB after 1000 episodes, 101.0 MB at the end" in soak.memory_growth(flat)
    growing = [(n, 100.0 + n / 100) for n in range(0, 3000, 25)]
    assert "+17.0 %" in soak.memory_growth(growing)
    assert soak.memory_growth(flat[:45]) == ""
