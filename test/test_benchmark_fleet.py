"""The fleet benchmark's own arithmetic, and that it runs from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
fleet = pytest.importorskip("benchmarks.fleet")

ROOT = Path(__file__).resolve().parents[1]


def _run(received: int, **dropped: int) -> dict[str, object]:
    return {
        "published": {"exo": 500, "gripper": 500},
        "received": received,
        "dropped": dropped,
        "verdicts": {"verdict_success": 3, "verdict_failure": 1, "verdict_unknown": 1},
        "episodes": 5,
        "late": 2,
        "took_s": 10.0,
        "latency_s": 0.25,
        "cpu_s": 2.0,
        "cores": {"cameras": 0.1, "receivers": 0.5, "detector": 0.2, "others": 0.3},
    }


def test_what_is_lost_and_what_is_dropped_are_told_apart() -> None:
    assert fleet.missing(_run(990, unmatched=7)) == (10, 7)
    assert fleet.keeps_up(_run(1000, unmatched=1))
    assert not fleet.keeps_up(_run(1000, unmatched=2))
    assert not fleet.keeps_up(_run(998))


def test_report_says_from_where_on_it_does_not_keep_up() -> None:
    good, bad = _run(1000), _run(900, unmatched=20)
    runs = {n: {"monitors": bad if n > 4 else good, "bare": good} for n in (2, 4, 6, 8)}
    text = "\n".join(fleet.report("raw", runs))
    assert "| 4 | 100 | 2 | 0 of 1000 | 0 of 1000 | 0 | 4 of 5 | 0.25 s | 2.00 ms |" in text
    assert "| 100 of 1000 | 0 of 1000 | 20 unmatched |" in text
    assert "monitors: from 6 robots on." in text
    assert "bare: at none of these numbers." in text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_benchmark_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.fleet", "--seconds", "3", "--robots", "2"]
    command += ["--transport", "compressed", "--profile", "none", "--out", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "runs.json").read_text())["compressed"]["2"]
    assert result["monitors"]["published"] == {"exo": 90, "gripper": 90}
    assert 0 < result["monitors"]["received"] <= 180
    assert 0 < result["bare"]["received"] <= 180
