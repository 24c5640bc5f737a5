"""The demo: its processes, what it shows, and the whole thing on the committed bags."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from ifailsense_ros.core.errors import BagError
from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.demo.__main__ import match_montages
from ifailsense_ros.demo.episodes import DemoEpisode, load_episodes
from ifailsense_ros.demo.show import (
    Record,
    captioned,
    contact_sheet,
    needed_matches,
    print_header,
    print_record,
    print_summary,
    votes_text,
)
from ifailsense_ros.ros.processes import ChildDied, Processes

ROOT = Path(__file__).resolve().parents[2]
BAGS = ROOT / "bags" / "demo"


def _python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def _wait(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


SLEEPS = "import time\nprint('up')\ntime.sleep(600)"


# --- processes ------------------------------------------------------------------------------------


def test_lines_are_collected_and_a_natural_end_is_lawful(tmp_path: Path) -> None:
    with Processes(tmp_path, os.environ, tmp_path) as processes:
        processes.start("a", _python("print('one'); print('two')"), may_end=True)
        _wait(lambda: processes.ended("a"))
        processes.check()
        lines = [processes.lines.get(timeout=1) for _ in range(2)]
        assert [(line.child, line.text) for line in lines] == [("a", "one"), ("a", "two")]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; print('no model', file=sys.stderr); sys.exit(2)", "exit status 2"),
        ("import os, sys; print('no model', file=sys.stderr, flush=True); os.abort()", "SIGABRT"),
        ("import sys; print('no model', file=sys.stderr)", "exit status 0"),
    ],
)
def test_a_death_is_told_with_the_last_words(tmp_path: Path, code: str, says: str) -> None:
    with Processes(tmp_path, os.environ, tmp_path) as processes:
        processes.start("other", _python(SLEEPS))
        processes.start("monitor", _python(code))
        with pytest.raises(ChildDied, match=f"the monitor process ended with .*{says}") as caught:
            _wait(lambda: processes.check() is not None)
    assert "no model" in str(caught.value)
    assert str(tmp_path / "monitor.log") in str(caught.value)


def test_everybody_is_ended_also_the_stubborn_and_their_children(tmp_path: Path) -> None:
    stubborn = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"child = subprocess.Popen([sys.executable, '-c', {SLEEPS!r}])\n"
        "print(child.pid)\n"
        "time.sleep(600)"
    )
    with Processes(tmp_path, os.environ, tmp_path) as processes:
        # Patience with the stubborn one is what this test would otherwise wait for.
        processes.interrupt_s = 0.5
        processes.start("stubborn", _python(stubborn))
        grandchild = int(processes.lines.get(timeout=20).text)
        assert _alive(grandchild)
    _wait(lambda: not _alive(grandchild))


def test_ctrl_c_ends_the_children_in_order(tmp_path: Path) -> None:
    """The whole parent is a process here, interrupted as a terminal would."""
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from ifailsense_ros.ros.processes import Processes\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "sleeper = [sys.executable, '-u', '-c', 'import os,time\\ntry:\\n print(os.getpid())\\n"
        ' time.sleep(600)\\nexcept KeyboardInterrupt: open("polite","w").close()\']\n'
        "with Processes(folder, os.environ, folder) as processes:\n"
        "    processes.start('sleeper', sleeper)\n"
        "    print(processes.lines.get().text, flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        _python(code), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=30)
    assert not _alive(child)
    assert (tmp_path / "polite").exists()


# --- what is shown --------------------------------------------------------------------------------


def _record(truth: Outcome, said: str | None, votes: str = "1 1 1 1", **extra) -> Record:
    episode = DemoEpisode(Path("bag-a"), uuid.uuid4(), "lift it", truth, "drop", 3.0)
    if said is None:
        return Record(episode)
    *fs, vlm = votes.split()
    names = {"1": "SUCCESS", "0": "FAIL", "?": "ABSTAIN", "-": "NOT_RUN"}
    verdict = {
        "episode_id": str(episode.episode_id),
        "verdict": said,
        "reason": extra.get("reason", ""),
        "reason_code": extra.get("reason_code", "NONE"),
        "p_success": extra.get("p", 0.9),
        "votes": [{"source": f"fs:{i}", "vote": names[v], "weight": 1.0} for i, v in enumerate(fs)]
        + [{"source": "vlm", "vote": names[vlm], "weight": 2.0}],
        "latency_s": 0.5,
        "model_id": "sim-tiny@1",
    }
    return Record(episode, verdict, extra.get("action"), extra.get("picture"))


def _printed(function, *args, width: int = 140, **options) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    function(console, *args, **options)
    return console.export_text()


def test_an_interrupt_at_a_childs_birth_still_finds_it_in_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    born: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def interrupted_popen(*args, **kwargs):
        born.append(popen(*args, **kwargs))
        signal.raise_signal(signal.SIGINT)
        return born[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted_popen)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(KeyboardInterrupt), Processes(tmp_path, os.environ, tmp_path) as processes:
        processes.start("sleeper", command)
    assert born[0].poll() is not None


def test_votes_in_short() -> None:
    record = _record(Outcome.SUCCESS, "SUCCESS", "1 0 1 ?")
    assert votes_text(record.verdict["votes"]) == "fs 1 0 1 | vlm ?"
    assert votes_text(record.verdict["votes"][-1:]) == "vlm ?"
    assert votes_text([]) == ""


def test_unknown_and_silence_never_match() -> None:
    for truth in (Outcome.SUCCESS, Outcome.FAILURE):
        assert not _record(truth, "UNKNOWN").matches
        assert not _record(truth, None).matches
        assert _record(truth, truth.name).matches
    assert not _record(Outcome.FAILURE, "SUCCESS").matches


@pytest.mark.parametrize("width", [80, 140])
def test_a_row_says_everything(width: int) -> None:
    record = _record(
        Outcome.FAILURE, "SUCCESS", "1 1 0 1", action="go on", picture=Path("out/a.png")
    )
    text = _printed(print_record, 3, record, width=width)
    for part in ("3", "WRONG", "bag-a", "FAILURE", "SUCCESS", "0.90", "fs 1 1 0 | vlm 1", "0.50 s"):
        assert part in text
    assert '"lift it"' in text
    assert "replanner   go on" in text
    assert "out/a.png" in text
    assert "votes" in _printed(print_header)


def test_a_row_of_an_unknown_says_why() -> None:
    record = _record(
        Outcome.FAILURE, "UNKNOWN", p=None, reason="too late", reason_code="CAMERA_STALE"
    )
    assert "CAMERA_STALE: too late" in _printed(print_record, 1, record)
    assert "none" in _printed(print_record, 1, _record(Outcome.FAILURE, None))


@pytest.mark.parametrize(("total", "needed"), [(12, 10), (6, 5), (1, 1), (24, 20), (13, 11)])
def test_how_many_must_match(total: int, needed: int) -> None:
    assert needed_matches(total) == needed


@pytest.mark.parametrize(("right", "good"), [(12, True), (10, True), (9, False), (0, False)])
def test_summary(right: int, good: bool) -> None:
    records = [_record(Outcome.FAILURE, "FAILURE") for _ in range(right)]
    records += [_record(Outcome.FAILURE, "SUCCESS") for _ in range(12 - right)]
    results: list[bool] = []

    def run(console: Console) -> None:
        results.append(print_summary(console, records, shuffled=False))

    text = _printed(run)
    assert results == [good]
    assert f"{right} of 12 verdicts match the truth (needed: 10)" in text
    assert f"failures missed: {12 - right}" in text


def test_summary_of_the_control() -> None:
    bad = [_record(Outcome.FAILURE, "SUCCESS")] * 12
    assert "shuffled on purpose, and the verdicts no longer match" in _printed(
        print_summary, bad, shuffled=True
    )
    good = [_record(Outcome.FAILURE, "FAILURE")] * 12
    assert "Something is wrong" in _printed(print_summary, good, shuffled=True)


def test_contact_sheet_holds_every_picture() -> None:
    pictures = [np.full((20 + i, 30, 3), 10 * i, np.uint8) for i in range(5)]
    sheet = contact_sheet(pictures, columns=2)
    for i in range(5):
        assert (sheet == 10 * i).all(2).sum() == (20 + i) * 30
    assert captioned(pictures[0], "truth").shape[0] > 20


def _match(verdict_stamps: list[int], montage_stamps: list[int]) -> tuple[list, int, int]:
    records = deque()
    for number, stamp in enumerate(verdict_stamps):
        records.append(_record(Outcome.SUCCESS, "SUCCESS"))
        records[-1].verdict = {"stamp_ns": stamp, "number": number}
    montages = deque({"stamp_ns": s, "path": str(n)} for n, s in enumerate(montage_stamps))
    found = [(r.verdict["number"], int(path)) for r, path in match_montages(records, montages)]
    return found, len(records), len(montages)


@pytest.mark.parametrize(
    ("verdicts", "montages", "found", "left"),
    [
        ([7, 7, 8], [7, 7, 8], [(0, 0), (1, 1), (2, 2)], (0, 0)),
        ([7], [], [], (1, 0)),
        ([], [7], [], (0, 1)),  # the montage is heard first, and waits for its verdict
        ([6], [7], [], (1, 1)),
        ([7], [7, 7], [(0, 0)], (0, 1)),
        ([6, 7, 8], [7, 8], [(1, 0), (2, 1)], (0, 0)),  # the first montage was lost
    ],
)
def test_montages_find_their_verdicts(
    verdicts: list[int], montages: list[int], found: list, left: tuple[int, int]
) -> None:
    assert _match(verdicts, montages) == (found, *left)


# --- the bags -------------------------------------------------------------------------------------


def test_the_committed_bags() -> None:
    episodes = load_episodes(BAGS)
    assert len(episodes) == 12
    assert len({e.episode_id for e in episodes}) == 12
    assert [e.scene for e in episodes] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert [e.truth for e in episodes] == [Outcome.SUCCESS, Outcome.FAILURE] * 6
    assert {e.kind for e in episodes} == {
        "success",
        "semantic_misalignment",
        "incomplete_grasp",
        "inadequate_grip_retention",
    }
    assert sum(f.stat().st_size for f in BAGS.rglob("*") if f.is_file()) < 15_000_000


def test_folders_that_hold_no_demo(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="no such folder"):
        load_episodes(tmp_path / "nowhere")
    with pytest.raises(BagError, match=r"holds no bag with a truth\.yaml"):
        load_episodes(tmp_path)
    (tmp_path / "bag").mkdir()
    for text in ("", "truth: maybe", "[1", "truth: success"):
        (tmp_path / "bag" / "truth.yaml").write_text(text)
        with pytest.raises(BagError, match="not a truth file"):
            load_episodes(tmp_path)


# --- the whole demo -------------------------------------------------------------------------------


def _demo(*arguments: str, timeout_s: float = 200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ifailsense_ros.demo", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def test_mistakes_of_the_user(tmp_path: Path) -> None:
    for arguments, says in (
        (("--bags", str(tmp_path / "none")), "no such folder"),
        (("--rate", "0"), "--rate 0.0: must be greater than 0"),
    ):
        run = _demo(*arguments, "--out", str(tmp_path / "out"))
        assert run.returncode == 2
        assert says in run.stderr
        assert run.stderr.count("\n") == 1


@pytest.mark.timeout(120)
def test_a_monitor_that_cannot_start_is_told(tmp_path: Path) -> None:
    run = _demo("--detector", "no-such-thing", "--out", str(tmp_path))
    assert run.returncode == 3
    assert "the monitor process ended with exit status" in run.stderr
    assert "no-such-thing" in run.stderr


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_demo_matches_the_truth(tmp_path: Path) -> None:
    run = _demo("--out", str(tmp_path))
    assert run.returncode == 0, run.stdout + run.stderr
    assert "12 verdicts match the truth" in run.stdout
    for episode in load_episodes(BAGS):
        path = tmp_path / f"{episode.name}.png"
        assert episode.name in run.stdout
        assert path.name in run.stdout
        assert cv2.imread(str(path)).shape[1] > 300
    assert run.stdout.count("replanner   ") == 12
    assert (tmp_path / "contact_sheet.png").is_file()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_with_shuffled_weights_the_demo_says_so_and_fails(tmp_path: Path) -> None:
    run = _demo("--shuffle-weights", "--out", str(tmp_path))
    assert run.returncode == 1, run.stdout + run.stderr
    assert "CONTROL: the detector's trained weights are shuffled" in run.stdout
    # Not only told: the verdicts themselves must have stopped to match, at the pace of the real
    # demo, so that shuffling is the only difference.
    assert "the verdicts no longer match" in run.stdout
    right = int(run.stdout.split(" of 12 verdicts match")[0].split()[-1])
    assert right < 10


@contextlib.contextmanager
def _running_demo(folder: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """A demo with a detector double, and its children: pid by the last word of what runs."""
    double = ["--detector", "pixel_detector:make"]
    run = subprocess.Popen(
        [sys.executable, "-m", "ifailsense_ros.demo", "--out", folder, *double],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "test" / "ros")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait(lambda: len(_children(run.pid)) >= 3)
        yield run, _children(run.pid)
    finally:
        run.kill()
        run.wait()


def _children(pid: int) -> dict[str, int]:
    children = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
        for name in ("ros.monitor", "ros.listen", "replanner.py"):
            if any(word.endswith(name) for word in words):
                children[name] = int(child)
    return children


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nobody_behind(tmp_path: Path, number: signal.Signals) -> None:
    with _running_demo(tmp_path) as (run, children):
        run.send_signal(number)
        _, err = run.communicate(timeout=60)
        assert run.returncode == 130
        assert "interrupted" in err
        _wait(lambda: not any(_alive(pid) for pid in children.values()))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_process_that_dies_is_named_and_the_others_are_ended(tmp_path: Path) -> None:
    with _running_demo(tmp_path) as (run, children):
        os.kill(children["ros.monitor"], signal.SIGKILL)
        _, err = run.communicate(timeout=60)
        assert run.returncode == 3
        assert "the monitor process ended with signal SIGKILL" in err
        _wait(lambda: not any(_alive(pid) for pid in children.values()))
