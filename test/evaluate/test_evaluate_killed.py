"""`ifailsense evaluate` whose worker or driver is killed in the middle: the same results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import killing_detector
import pytest
from killing_detector import MARK, NEEDLE, VICTIM

from ifailsense_ros.evaluate.results import RESULTS, read_results

pytest.importorskip("rosbags")
ROOT = Path(__file__).parents[2]
DEMO = ROOT / "bags" / "demo"
KILLED = -9


def evaluate(out: Path, mark: Path, victim: str, workers: int) -> int:
    paths = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    environment = {**os.environ, "PYTHONPATH": paths, VICTIM: victim, MARK: str(mark)}
    words = ["evaluate", str(DEMO), "--out", str(out), "--workers", str(workers), "--no-report"]
    words += ["--detector", f"{killing_detector.__name__}:make"]
    ended = subprocess.run(
        [sys.executable, "-m", "ifailsense_ros.cli", *words],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode


def contents(folder: Path) -> dict[str, bytes]:
    files = [folder / RESULTS, *(folder / "montages").iterdir()]
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_results_whoever_is_killed(tmp_path: Path) -> None:
    never = tmp_path / "never"
    never.touch()
    assert evaluate(tmp_path / "whole", never, "worker", 0) == 0
    rows, _ = read_results(tmp_path / "whole")
    bags = {path.parent.name for path in DEMO.glob("*/metadata.yaml")}
    assert len(rows) == len(bags) and any(NEEDLE in row.instruction for row in rows)
    expected = contents(tmp_path / "whole")

    mark, out = tmp_path / "worker", tmp_path / "worker_killed"
    assert evaluate(out, mark, "worker", 2) == 0
    assert mark.exists() and contents(out) == expected

    mark, out = tmp_path / "driver", tmp_path / "driver_killed"
    assert evaluate(out, mark, "driver", 2) == KILLED
    assert mark.exists() and not (out / RESULTS).exists()
    assert evaluate(out, mark, "driver", 2) == 0
    assert contents(out) == expected
