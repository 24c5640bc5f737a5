"""The ingest benchmark's own arithmetic, and that it runs from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
ingest = pytest.importorskip("benchmarks.ingest")

ROOT = Path(__file__).resolve().parents[1]


def _counts(**values: int) -> dict[str, int]:
    return {"received": 0, "used": 0, "decimated": 0, "dropped": 0, "buffered": 0} | values


def _run(camera: dict[str, int], slope: float | None) -> dict[str, object]:
    return {
        "published": {"exo": 100},
        "received": {"exo": camera["received"]},
        "cameras": {"exo": camera},
        "cpu_s": 0.1,
        "rss_mb": 100.0,
        "slope_mb_per_min": slope,
    }


def test_what_is_not_accounted_for_is_found() -> None:
    assert ingest.unaccounted(_counts(received=10, used=4, decimated=3, dropped=2, buffered=1)) == 0
    lost = _counts(received=10, used=4, decimated=3, dropped=2)
    assert ingest.unaccounted(lost) == 1
    broken = ingest.check({"raw": {"node": [_run(lost, 0.0)], "bare": []}})
    assert broken == ["raw, exo: 1 unaccounted for"]


def test_pictures_from_elsewhere_are_noticed() -> None:
    run = _run(_counts(received=101, used=101), 0.0)
    broken = ingest.check({"raw": {"node": [run], "bare": []}})
    assert broken == ["raw, exo: somebody else publishes in this domain"]


def test_memory_that_grows_is_found() -> None:
    # 2 MB/min, under a saw-tooth of 20 MB with the period of the episodes, after a large start.
    grown = [100.0 + 2.0 * t / 60 + 2.0 * (t % 10) for t in range(60)]
    samples = [(float(t), 500.0 if t < 10 else grown[t]) for t in range(60)]
    slope = ingest.slope_mb_per_min(samples)
    assert slope == pytest.approx(2.0)
    steady, grows = _run(_counts(), 0.1), _run(_counts(), slope)
    broken = ingest.check({"raw": {"node": [grows, steady, grows], "bare": []}})
    assert broken == ["raw: memory grows 2.00 MB/min"]
    assert not ingest.check({"raw": {"node": [grows, steady, steady], "bare": []}})


def test_slope_of_a_short_run_is_not_given() -> None:
    assert ingest.slope_mb_per_min([(float(t), 100.0) for t in range(19)]) is None


def test_report_keeps_losses_in_dds_apart() -> None:
    counts = _counts(received=90, used=50, decimated=36, dropped=4) | {"dropped/unmatched": 4}
    run = _run(counts, None)
    text = "\n".join(ingest.report("raw", {"node": [run], "bare": [run]}))
    assert "| exo | 100 | 10 | 90 | 50 | 36 | 4 | 0 | 0 |" in text
    assert "1.11 ms" in text


@pytest.mark.slow
def test_benchmark_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.ingest", "--seconds", "3", "--runs", "1"]
    command += ["--transport", "compressed", "--profile", "none", "--out", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert run.returncode == 0, run.stderr
    (node,) = json.loads((tmp_path / "runs.json").read_text())["compressed"]["node"]
    assert node["published"] == {"exo": 90, "gripper": 90}
    for counts in node["cameras"].values():
        assert 0 < counts["received"] <= 90
        assert counts["used"] > 0
        assert ingest.unaccounted(counts) == 0
