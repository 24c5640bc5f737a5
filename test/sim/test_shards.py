"""Shards made side by side: resumed, never mixed, whole or not at all. No world is simulated."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: the `sim` extra")
pytest.importorskip("tqdm", reason="needs tqdm: the `sim` extra")

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.episode_store import EpisodeRow, list_shards, read_episodes
from ifailsense_ros.sim.shards import Job, Made, jobs_of, make_shards


def row(index: int) -> EpisodeRow:
    return EpisodeRow(
        split="dev",
        index=index,
        attempt=0,
        task="lift",
        negative_task="push",
        category="lifting",
        contrast=(),
        phrasing=0,
        instruction="lift it",
        negative_instruction="push it",
        outcomes={"lift": 1},
        feasible=("lift",),
        duration_s=1.0,
        stamps_ns=(0, 10**9),
        images=(),
        states=np.zeros((2, 3), np.float32),
        generator_version="test",
    )


def make(job: Job) -> Made:
    """Rows of a range; ends the process where the settings say so."""
    if job.first == job.settings.get("die_at"):
        os.kill(os.getpid(), signal.SIGKILL)
    rows = [row(i) for i in range(job.first, job.end)]
    count = len(rows)
    return Made(
        rows,
        collections.Counter({"rejected disputed lift": count, "other": 1}),
        collections.Counter(physics=0.5 * count),
    )


def jobs(folder: Path, episodes: int, first: int = 0, **settings: Any) -> list[Job]:
    return list(jobs_of(make, folder, "dev", first, episodes, settings, shard_episodes=4))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_range_is_made_once_and_summed(tmp_path: Path, workers: int) -> None:
    first = make_shards(jobs(tmp_path, 10), workers=workers)
    assert [r.index for r in read_episodes(tmp_path, "dev")] == list(range(10))
    assert first.episodes_made == 10
    assert first.counted("rejected") == {"disputed lift": 10}
    assert first.seconds == {"physics": 5.0}
    stamps = [p.stat().st_mtime_ns for p in list_shards(tmp_path)]
    again = make_shards(jobs(tmp_path, 10), workers=workers)
    assert [p.stat().st_mtime_ns for p in list_shards(tmp_path)] == stamps
    assert again.tally == first.tally
    assert (again.episodes_made, again.seconds) == (0, {})


def test_asking_for_more_replaces_the_short_shard(tmp_path: Path) -> None:
    make_shards(jobs(tmp_path, 6))
    assert make_shards(jobs(tmp_path, 7)).episodes_made == 3  # of the second shard
    assert [r.index for r in read_episodes(tmp_path, "dev")] == list(range(7))
    assert make_shards(jobs(tmp_path, 5)).episodes_made == 0


def test_other_settings_never_mix(tmp_path: Path) -> None:
    make_shards(jobs(tmp_path, 4, look="mild"))
    with pytest.raises(ConfigError, match="look 'mild', not 'strong'"):
        make_shards(jobs(tmp_path, 8, look="strong"))
    assert len(list_shards(tmp_path)) == 1


def test_leavings_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "dev-000004-000005.parquet.1.part").write_bytes(b"half")
    make_shards(jobs(tmp_path, 1, first=4))
    assert [p.name for p in tmp_path.iterdir()] == ["dev-000004-000005.parquet"]


@pytest.mark.parametrize(("episodes", "first"), [(0, 0), (4, 2), (4, -4)])
def test_bad_range(tmp_path: Path, episodes: int, first: int) -> None:
    with pytest.raises(ConfigError, match="--first"):
        jobs(tmp_path, episodes, first)
    with pytest.raises(ConfigError, match="--workers"):
        make_shards(jobs(tmp_path, 4), workers=0)


def test_a_killed_worker_is_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="worker process was killed"):
        make_shards(jobs(tmp_path, 12, die_at=8), workers=2)
    assert all(not p.name.endswith(".part") for p in tmp_path.iterdir())


def test_interrupted_run_ends_its_workers_and_goes_on(tmp_path: Path) -> None:
    """SIGINT to the parent alone, as a supervisor sends it, while workers are at work."""
    script = tmp_path / "endless.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys, time
            from pathlib import Path
            from ifailsense_ros.sim.shards import Made, jobs_of, make_shards

            def make(job):
                print("working", flush=True)
                while True:
                    time.sleep(1)

            if __name__ == "__main__":
                jobs = jobs_of(make, Path({str(tmp_path / "out")!r}), "dev", 0, 100, {{}})
                try:
                    make_shards(jobs, workers=2)
                except KeyboardInterrupt:
                    sys.exit(130)
            """
        )
    )
    # A background shell starts its children with SIGINT ignored.
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    process.send_signal(signal.SIGINT)
    # The pipe closes when the last worker is gone.
    assert set(process.communicate(timeout=60)[0].split()) <= {b"working"}
    assert process.returncode == 130
    assert list((tmp_path / "out").iterdir()) == []
