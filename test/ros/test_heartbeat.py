"""Diagnostics go on, whatever holds the main loop up and whatever becomes of a beat."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import types
from itertools import pairwise

import pytest

pytest.importorskip("rclpy")

from rclpy.duration import Duration
from ros_peer import ROOT, child_environment

from ifailsense_ros.ros import heartbeat
from ifailsense_ros.ros.publishers import wait_until_acked

# Ten times what is promised: the machine of a test may be busy. benchmarks/responsive.py has the
# strict bounds.
PATIENCE_S = 10.0


class Publisher:
    """Keeps when it was asked to publish; refuses what it is told to refuse."""

    def __init__(self, refuses=()):
        self.times = []
        self.enough = threading.Event()
        self._refuses = refuses

    def publish(self, message):
        self.times.append(time.monotonic())
        if len(self.times) >= 4:
            self.enough.set()
        if len(self.times) in self._refuses:
            raise RuntimeError("publisher's context is invalid")


@pytest.fixture
def beat(monkeypatch):
    """Starts a heartbeat ten times as fast, on a node without DDS; returns its publisher."""
    beating = []

    def start(publisher, errors):
        clock = types.SimpleNamespace(to_msg=lambda: heartbeat.DiagnosticArray().header.stamp)
        node = types.SimpleNamespace(
            context=types.SimpleNamespace(ok=lambda: True),
            get_clock=lambda: types.SimpleNamespace(now=lambda: clock),
            get_logger=lambda: types.SimpleNamespace(error=errors.append),
            get_fully_qualified_name=lambda: "/monitor",
        )
        monkeypatch.setattr(heartbeat, "create_publisher", lambda *_: publisher)
        for name in ("PERIOD_S", "_AHEAD_S", "_LEAST_S"):
            monkeypatch.setattr(heartbeat, name, getattr(heartbeat, name) / 10)
        beating.append(heartbeat.Heartbeat(node, lambda: None))
        beating[-1].start()
        return beating[-1]

    yield start
    for one in beating:
        one.stop()


def test_a_main_loop_that_never_turns_does_not_stop_it(beat):
    publisher, errors = Publisher(), []
    beat(publisher, errors)
    assert publisher.enough.wait(PATIENCE_S)
    assert errors == []


def test_a_beat_that_fails_is_not_the_last(beat):
    publisher, errors = Publisher(refuses=(2,)), []
    beat(publisher, errors)
    assert publisher.enough.wait(PATIENCE_S)
    assert errors == ["diagnostics were not published: publisher's context is invalid"]


def test_after_a_late_beat_the_next_is_not_hurried(beat, monkeypatch):
    publisher, late = Publisher(), threading.Event()
    real = publisher.publish

    def slow(message):
        real(message)
        if len(publisher.times) == 2:
            late.wait(0.15)  # one and a half periods

    publisher.publish = slow
    beat(publisher, [])
    assert publisher.enough.wait(PATIENCE_S)
    least = heartbeat._LEAST_S
    assert all(b - a >= least for a, b in pairwise(publisher.times)), publisher.times


class Unheard:
    """A publisher whose subscriber answers when it was asked so often."""

    def __init__(self, answers_at):
        self.asked = 0
        self._answers_at = answers_at

    def wait_for_all_acked(self, timeout):
        assert timeout == Duration(), "rclpy holds the interpreter while it waits"
        self.asked += 1
        return self.asked >= self._answers_at


def test_waiting_for_subscribers_holds_nobody_up():
    first, second = Unheard(3), Unheard(2)
    assert wait_until_acked([first, second], PATIENCE_S)
    assert (first.asked, second.asked) == (3, 2)
    never = Unheard(10**9)
    assert not wait_until_acked([never, second], 0.05)
    assert never.asked >= 2


LISTENER = """
import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from ifailsense_ros.msg import FailureVerdict
rclpy.init()
node = Node("hangs")
qos = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
heard = lambda message: print("heard", flush=True)
node.create_subscription(FailureVerdict, "/monitor/verdict", heard, qos)
rclpy.spin(node)
"""


@pytest.mark.timeout(240)
def test_a_listener_that_hangs_does_not_stop_it(peer_factory, start_monitor):
    """The monitor waits for it at its end, but not for ever."""
    monitor = start_monitor("detector:=doubles:load_exo_only")
    peer = peer_factory()
    listener = subprocess.Popen(
        [sys.executable, "-c", LISTENER], env=child_environment(), cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        peer.connect(monitor, cameras=1)
        peer.episode(cameras=("exo",))
        peer.next_verdict(monitor)
        assert listener.stdout.readline() == b"heard\n"
        listener.send_signal(signal.SIGSTOP)
        peer.episode(cameras=("exo",))
        peer.next_verdict(monitor)
        began = time.monotonic()
        peer.beats.clear()
        monitor.process.send_signal(signal.SIGINT)
        peer.until(lambda: monitor.process.poll() is not None, 60.0)
        waited = time.monotonic() - began
        assert monitor.process.returncode == 0
        assert "has not heard everything" in monitor.output
        assert waited > 1.5
        assert peer.beats, "while it waited"
    finally:
        os.kill(listener.pid, signal.SIGKILL)
        listener.wait(10)
        listener.stdout.close()
