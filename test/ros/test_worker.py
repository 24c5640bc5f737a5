"""The detector's process (and the thread with the same interface): answers, failures, restarts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path

import doubles
import numpy as np
import pytest
from ros_peer import ROOT, child_environment

from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason, Vote, VoteValue
from ifailsense_ros.model.handle import (
    Answer,
    DetectorSpec,
    Died,
    InProcessDetector,
    LoadFailed,
    Ready,
    checked,
    is_factory,
    judge_safely,
    judge_together,
    warm_up,
)
from ifailsense_ros.model.worker import DetectorWorker

DOUBLE = DetectorSpec("doubles:load")


def make_episode(instruction="brighten it"):
    views = [(np.full((16, 24, 3), 10 * i, np.uint8),) * 2 for i in range(4)]
    keyframes = tuple(Keyframe(i, v) for i, v in enumerate(views))
    return Episode(uuid.uuid4(), instruction, keyframes, 0, 3)


def wait_for(handle, kind, timeout_s=20.0):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        for event in handle.poll():
            assert isinstance(event, kind), event
            return event
        time.sleep(0.01)
    raise AssertionError(f"no {kind.__name__} within {timeout_s} s")


@pytest.fixture(params=["process", "thread"])
def handle(request):
    made = DetectorWorker(DOUBLE) if request.param == "process" else InProcessDetector(DOUBLE)
    made.start()
    yield made
    made.close()


@pytest.fixture
def worker():
    made = DetectorWorker(DOUBLE)
    made.start()
    assert isinstance(wait_for(made, Ready), Ready)
    yield made
    made.close()


def test_it_gets_ready_and_answers(handle):
    ready = wait_for(handle, Ready)
    assert ready == Ready("double@0", doubles.make_config())
    for request in (7, 8):
        handle.submit(request, make_episode())
        answer = wait_for(handle, Answer)
        assert answer.request_id == request
        assert answer.judgement.outcome is Outcome.SUCCESS
        assert [vote.source for vote in answer.judgement.votes] == ["fs:1", "vlm"]
    assert handle.poll() == []


@pytest.mark.parametrize(
    ("instruction", "reason", "text"),
    [
        ("raise", Reason.DETECTOR_ERROR, "RuntimeError: two lines of trouble"),
        ("memory", Reason.DETECTOR_OUT_OF_MEMORY, "no 3 GB left"),
    ],
)
def test_trouble_becomes_a_judgement(handle, instruction, reason, text):
    wait_for(handle, Ready)
    handle.submit(1, make_episode(instruction))
    judgement = wait_for(handle, Answer).judgement
    assert judgement.reason is reason
    assert text in judgement.detail
    handle.submit(2, make_episode())
    assert wait_for(handle, Answer).judgement.outcome is Outcome.SUCCESS


def test_after_a_restart_old_answers_do_not_come(handle):
    wait_for(handle, Ready)
    handle.submit(1, make_episode("sleep 0.5"))
    time.sleep(0.1)
    handle.restart()
    wait_for(handle, Ready)
    handle.submit(2, make_episode())
    assert wait_for(handle, Answer).request_id == 2


def test_a_hung_worker_is_killed_at_once(worker):
    pid = worker.pid
    worker.submit(1, make_episode("sleep 60"))
    time.sleep(0.3)
    before = time.monotonic()
    worker.restart()
    assert time.monotonic() - before < 1.0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    wait_for(worker, Ready)


def test_a_worker_that_dies_says_so(worker):
    worker.submit(1, make_episode("die"))
    assert "signal 9" in wait_for(worker, Died).detail
    worker.restart()
    wait_for(worker, Ready)


def test_an_answer_that_cannot_be_read_is_a_worker_that_died(worker):
    worker.submit(1, make_episode("garble"))
    assert "sent what cannot be read: ValueError" in wait_for(worker, Died).detail
    worker.restart()
    wait_for(worker, Ready)


@pytest.mark.parametrize("make", [DetectorWorker, InProcessDetector])
@pytest.mark.parametrize(
    ("factory", "text"),
    [
        ("doubles:load_broken", "another sha256; fetch it again"),
        ("doubles:no_such_thing", "detector factory 'doubles:no_such_thing' cannot be imported"),
        ("no_such_module:load", "No module named 'no_such_module'"),
    ],
)
def test_a_load_error_is_one_line(make, factory, text):
    made = make(DetectorSpec(factory))
    made.start()
    failed = wait_for(made, LoadFailed)
    assert text in failed.detail
    assert "\n" not in failed.detail
    time.sleep(0.2)
    assert made.poll() == [], "a failure is told once"
    made.close()


def test_loading_has_a_limit():
    made = DetectorWorker(DetectorSpec("doubles:load_slowly"), start_timeout_s=1.0)
    made.start()
    assert "not loaded within 1 s" in wait_for(made, LoadFailed).detail
    assert made.pid is None


def test_somebody_is_woken_for_every_event():
    woken = threading.Event()
    made = DetectorWorker(DOUBLE, on_event=woken.set)
    made.start()
    assert woken.wait(20.0)
    assert isinstance(made.poll()[0], Ready)
    made.close()


def test_the_environment_of_the_worker():
    made = DetectorWorker(DetectorSpec("doubles:load", num_threads=3))
    made.start()
    wait_for(made, Ready)
    environment = dict(
        entry.split("=", 1)
        for entry in Path(f"/proc/{made.pid}/environ").read_text().split("\0")
        if "=" in entry
    )
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["OMP_NUM_THREADS"] == "3"
    made.close()


def test_a_hung_worker_does_not_outlive_a_killed_parent():
    program = (
        "import test_worker as t, os, time\n"
        "w = t.DetectorWorker(t.DOUBLE); w.start(); t.wait_for(w, t.Ready)\n"
        "w.submit(1, t.make_episode('sleep 60')); time.sleep(0.2)\n"
        "print(w.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=child_environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    pid = int(done.stdout)
    end = time.monotonic() + 5.0
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and time.monotonic() < end:
        if stat.read_text().split()[2] == "Z":
            return  # ended; nobody has collected it yet
        time.sleep(0.1)
    assert not stat.exists()


def test_the_nodes_process_needs_no_torch():
    program = (
        "import sys, ifailsense_ros.model.worker\n"
        "assert not {'torch', 'transformers', 'rclpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], env=child_environment(), cwd=ROOT, check=True)


class Recorder(doubles.Double):
    def __init__(self):
        super().__init__()
        self.seen = []

    def judge(self, episode):
        self.seen.append(episode)
        super().judge(episode)
        raise RuntimeError("not warm yet")


def test_it_is_warmed_up_with_an_episode_of_its_own_shape():
    detector = Recorder()
    warm_up(detector)  # does not raise
    (episode,) = detector.seen
    assert (len(episode.keyframes), episode.num_pov) == (4, 2)
    assert episode.keyframes[0].views[0].shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b:c", True),
        ("doubles:load", True),
        ("sim-tiny", False),
        ("/models/a:b", False),
        ("./x:y", False),
        ("C:", False),
    ],
)
def test_what_is_a_factory(text, expected):
    assert is_factory(text) is expected


def test_a_process_that_cannot_be_started_is_said(monkeypatch):
    def out_of_memory(*arguments, **options):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", out_of_memory)
    told = []
    worker = DetectorWorker(DOUBLE, on_event=lambda: told.append(1))
    before = len(os.listdir("/proc/self/fd"))
    worker.restart()
    assert "cannot be started: OSError: [Errno 12]" in wait_for(worker, LoadFailed).detail
    assert told and len(os.listdir("/proc/self/fd")) == before


VOTE = Vote("vlm", VoteValue.SUCCESS, 0.9, 1.0)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("SUCCESS", "judge returned a str"),
        (Judgement("SUCCESS"), "Judgement.outcome is a str, not a Outcome"),
        (Judgement(Outcome.SUCCESS, detail=None), "Judgement.detail is a NoneType"),
        (Judgement(Outcome.SUCCESS, p_success=None), "Judgement.p_success is a NoneType"),
        (Judgement(Outcome.SUCCESS, votes=[VOTE]), "Judgement.votes is a list"),
        (Judgement(Outcome.SUCCESS, votes=(("vlm", 1),)), "one of the votes is a tuple"),
        (Judgement(Outcome.SUCCESS, votes=(replace(VOTE, weight="1"),)), "Vote.weight is a str"),
    ],
)
def test_what_is_no_judgement_is_an_unknown_with_its_reason(returned, said):
    class Odd:
        def judge(self, episode):
            return returned

        def judge_batch(self, episodes):
            return [returned] * len(episodes)

    episode = make_episode()
    for judgement in (judge_safely(Odd(), episode), *judge_together(Odd(), [episode, episode])):
        assert judgement.reason is Reason.DETECTOR_ERROR
        assert said in judgement.detail


def test_numbers_of_numpy_are_numbers():
    given = Judgement(Outcome.SUCCESS, p_success=np.float32(0.5), votes=(VOTE,))
    assert checked(given) is given
