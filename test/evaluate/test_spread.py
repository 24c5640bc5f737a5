"""Jobs spread over workers: every row once, in order, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_jobs import MadeUp, made_up_work, to_table

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.records import Problem
from ifailsense_ros.evaluate import spread as spread_module
from ifailsense_ros.evaluate.crews import Failed, Lost, Ready
from ifailsense_ros.evaluate.job_shards import Packed, fingerprint_of
from ifailsense_ros.evaluate.spread import WORK, Spread, Work, spread


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture
def jobs(marks: Path) -> list[MadeUp]:
    return [MadeUp(number, marks) for number in range(6)]


def run(jobs: Sequence[MadeUp], folder: Path, workers: int = 0, work: Work | None = None) -> Spread:
    return spread(jobs, work or made_up_work(), folder, workers=workers, progress=False)


def merged(result: Spread, folder: Path) -> bytes:
    """The rows as one file."""
    pq.write_table(to_table(list(result.rows())), folder / "merged.parquet")
    return (folder / "merged.parquet").read_bytes()


def places(result: Spread) -> list[tuple[int, int]]:
    return [(row["job"], row["row"]) for row in result.rows()]


def all_places(jobs: Sequence[MadeUp]) -> list[tuple[int, int]]:
    return [(job.number, row) for job in jobs for row in range(job.rows)]


def begun(marks: Path) -> Counter[int]:
    return Counter(int(mark.name.split("-")[0]) for mark in marks.iterdir())


def test_rows_come_in_the_order_of_the_jobs(tmp_path, jobs):
    jobs = jobs[::-1]
    result = run(jobs, tmp_path / "out")
    assert places(result) == all_places(jobs)
    assert (tmp_path / "out" / "montages" / "4.jpg").read_bytes() == b"picture 4"
    assert not result.lost and result.done_before == 0


def test_number_of_workers_does_not_change_a_byte(tmp_path, jobs):
    jobs[2] = replace(jobs[2], kill=1)  # so that the second is not done in the usual order
    jobs[4] = replace(jobs[4], rows=2500)
    side_by_side = run(jobs, tmp_path / "two", workers=2)
    (jobs[2].marks / "2-0-x").touch()
    here = run(jobs, tmp_path / "here")
    assert places(side_by_side) == all_places(jobs)
    assert merged(side_by_side, tmp_path / "two") == merged(here, tmp_path / "here")


def test_what_is_done_is_not_done_again(tmp_path, jobs, marks):
    first = run(jobs[:4], tmp_path)
    second = run(jobs, tmp_path)
    assert (first.done_before, second.done_before) == (0, 4)
    assert set(begun(marks).values()) == {1}
    assert places(second) == all_places(jobs)


def test_a_changed_setting_begins_anew(tmp_path, jobs, marks):
    run(jobs, tmp_path)
    result = run(jobs, tmp_path, work=made_up_work(2.0))
    assert {row["factor"] for row in result.rows()} == {2.0}
    assert set(begun(marks).values()) == {2}
    assert len(list((tmp_path / WORK).glob("*.parquet"))) == len(jobs)


def test_a_changed_job_alone_is_done_again(tmp_path, jobs, marks):
    run(jobs, tmp_path)
    run([replace(jobs[0], content="new"), *jobs[1:]], tmp_path)
    assert begun(marks) == {0: 2, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1}


@pytest.mark.parametrize("damage", [b"", b"PAR1 no longer", None])
def test_a_damaged_shard_is_made_again(tmp_path, jobs, marks, damage):
    before = merged(run(jobs, tmp_path), tmp_path)
    victim = sorted((tmp_path / WORK).glob("*.parquet"))[0]
    victim.write_bytes(victim.read_bytes()[:-9] if damage is None else damage)
    (tmp_path / WORK / "x.parquet.part").write_bytes(b"left over")
    assert merged(run(jobs, tmp_path), tmp_path) == before
    assert sorted(begun(marks).values()) == [1, 1, 1, 1, 1, 2]
    assert not list((tmp_path / WORK).glob("*.part"))


def test_problems_stay_with_the_shard_and_errors_are_tried_again(tmp_path, jobs, marks, capfd):
    jobs[1] = replace(jobs[1], problem="one episode is cut off")
    jobs[2] = replace(jobs[2], raises="data")
    jobs[3] = replace(jobs[3], raises="bug")
    expected = [
        Problem("job 1", "one episode is cut off"),
        Problem("job 2", "job 2: is damaged; copy it again"),
        Problem("job 3", "ZeroDivisionError: a bug"),
    ]
    for _ in range(2):
        result = run(jobs, tmp_path)
        assert list(result.problems()) == expected
        assert places(result) == all_places([j for j in jobs if j.number not in (2, 3)])
    assert begun(marks) == {0: 1, 1: 1, 2: 2, 3: 2, 4: 1, 5: 1}
    assert capfd.readouterr().err.count("Traceback") == 2  # of the bug alone


def test_a_job_that_kills_its_workers_is_given_up(tmp_path, jobs, marks):
    jobs[0] = replace(jobs[0], kill=1000)
    jobs[3] = replace(jobs[3], kill=1)
    result = run(jobs, tmp_path, workers=2)
    assert places(result) == all_places(jobs[1:])
    (problem,) = result.problems()
    assert problem.where == "job 0" and "SIGKILL" in problem.what
    assert begun(marks)[0] == 2 and begun(marks)[3] == 2
    # Nothing is kept of it: the machine was perhaps short of memory.
    mended = run([replace(jobs[0], kill=0), *jobs[1:]], tmp_path)
    assert mended.done_before == 5 and not mended.lost
    assert places(mended) == all_places(jobs)


def test_workers_that_cannot_load(tmp_path, jobs):
    with pytest.raises(ConfigError, match="no such checkpoint"):
        run(jobs, tmp_path, 2, made_up_work(error="no such checkpoint"))
    with pytest.raises(ConfigError, match=r"3 workers .* while they loaded .* SIGKILL"):
        run(jobs, tmp_path, 1, made_up_work(kill=True))


def test_a_job_named_twice(tmp_path, jobs):
    with pytest.raises(ConfigError, match="job 1: is there twice"):
        run([*jobs, jobs[1]], tmp_path)


def test_two_runs_in_one_folder(tmp_path, jobs):
    (tmp_path / WORK).mkdir()
    with (
        spread_module._alone_in(tmp_path / WORK),
        pytest.raises(ConfigError, match="another run is at work there"),
    ):
        run(jobs, tmp_path)
    assert places(run(jobs, tmp_path)) == all_places(jobs)


def test_settings_out_of_range(tmp_path, jobs):
    for wrong in ({"workers": -1}, {"threads": 0}, {"attempts": 0}, {"ray": "auto", "workers": 0}):
        with pytest.raises(ConfigError):
            spread(jobs, made_up_work(), tmp_path, progress=False, **wrong)


def test_fingerprint_follows_the_files(tmp_path):
    bag = tmp_path / "bag"
    bag.mkdir()
    (bag / "a.mcap").write_bytes(b"1")
    before = fingerprint_of([bag])
    assert fingerprint_of([bag]) == before
    os.utime(bag / "a.mcap", ns=(1, 1))
    touched = fingerprint_of([bag])
    (bag / "b.yaml").touch()
    gone = fingerprint_of([bag / "c"])
    assert len({before, touched, fingerprint_of([bag]), gone}) == 4


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from made_up_jobs import MadeUp, made_up_work
from ifailsense_ros.evaluate.spread import spread

if __name__ == "__main__":
    marks = Path({marks!r})
    jobs = [MadeUp(n, marks, signal={signal} if n == 3 else 0) for n in range(6)]
    try:
        spread(jobs, made_up_work(), {out!r}, workers=2, progress=False)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_driver_is_killed_and_the_same_command_goes_on(tmp_path, jobs, marks, kind):
    """A worker does it, in the middle of a job."""
    script = tmp_path / "driver.py"
    out = tmp_path / "out"
    here = str(Path(__file__).parent)
    script.write_text(DRIVER.format(here=here, marks=str(marks), signal=int(kind), out=str(out)))
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ended = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == (130 if kind == signal.SIGINT else -kind), ended.stderr
    assert "Traceback" not in ended.stderr
    workers = {int(mark.name.split("-")[2]) for mark in marks.iterdir()}
    left = [psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)]
    assert not psutil.wait_procs(left, timeout=20)[1]
    assert not (out / "montages" / "3.jpg").exists()

    before = set(begun(marks))
    result = run(jobs, out)
    assert 3 in before and 0 < result.done_before < 6
    assert places(result) == all_places(jobs)
    fresh = run(jobs, tmp_path / "fresh")
    assert merged(result, tmp_path) == merged(fresh, tmp_path)


class Chance:
    """A crew whose workers answer, and die, in an order that hypothesis chooses."""

    def __init__(self, data: st.DataObject, size: int, deaths: int) -> None:
        self.size, self._data, self._deaths = size, data, deaths
        self._doing: dict[int, MadeUp | None] = {}
        self._idle: set[int] = set()
        self._started = 0
        self.most = 0

    def start(self) -> int:
        self._started += 1
        self._doing[self._started] = None
        self.most = max(self.most, len(self._doing) + len(self._idle))
        return self._started

    def give(self, worker: int, job: MadeUp) -> None:
        self._idle.remove(worker)
        self._doing[worker] = job

    def wait(self) -> list[tuple[int, Ready | Packed | Lost | Failed]]:
        assert self._doing, "waits for nobody"
        alive = sorted({*self._doing, *self._idle})
        busy = self._data.draw(st.sampled_from(sorted(self._doing)))
        told = []
        if self._deaths and self._data.draw(st.booleans()):
            victim = self._data.draw(st.sampled_from(alive))
            self._deaths -= 1
            self._doing.pop(victim, None)
            self._idle.discard(victim)
            told.append((victim, Lost("killed")))
        if busy in self._doing:
            job = self._doing.pop(busy)
            self._idle.add(busy)
            told.append((busy, Ready() if job is None else Packed(job.name.encode())))
        return told

    def close(self) -> None:
        pass


@given(st.data(), st.integers(0, 9), st.integers(1, 4), st.integers(0, 2))
def test_every_job_is_settled_once(data, count, size, deaths):
    todo = deque((f"{number} ", MadeUp(number, Path())) for number in range(count))
    crew = Chance(data, size, deaths)
    found = [(job, packed) for (_, job), packed in spread_module._carry_out(todo, crew, 2)]
    assert sorted(job.number for job, _ in found) == list(range(count))
    given_up = [packed for _, packed in found if packed.error]
    assert len(given_up) <= deaths // 2
    assert all(p.error or p.shard == job.name.encode() for job, p in found)
    assert crew.most <= size


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_gives_the_same_bytes(tmp_path, jobs, marks, monkeypatch):
    pytest.importorskip("ray")
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{Path(__file__).parent}")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    jobs[1] = replace(jobs[1], kill=1)
    jobs[2] = replace(jobs[2], kill=1000, problem="x")
    result = spread(jobs, made_up_work(), tmp_path / "ray", workers=2, ray="local", progress=False)
    (problem,) = result.problems()
    assert problem.where == "job 2" and "Ray" in problem.what
    assert begun(marks) == {0: 1, 1: 2, 2: 2, 3: 1, 4: 1, 5: 1}
    here = run([job for job in jobs if job.number != 2], tmp_path / "here")
    assert merged(result, tmp_path) == merged(here, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1", "ray://127.0.0.1:1"])
def test_no_ray_cluster(tmp_path, jobs, monkeypatch, address):
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=f"--ray {address}: no such cluster"):
        spread(jobs, made_up_work(), tmp_path, ray=address, progress=False)
