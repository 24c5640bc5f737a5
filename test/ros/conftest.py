"""Real rclpy and DDS for the tests: a domain of their own, a peer node, and the monitor beside it.

Each test draws its own domain id, so that tests neither hear each other nor anything else on the
machine; `ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST` keeps them on loopback.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for ros_peer.py and doubles.py

from ros_peer import MonitorProcess, Peer


@pytest.fixture
def domain(monkeypatch) -> int:
    """A DDS domain for this test and the processes it starts."""
    drawn = random.SystemRandom().randint(1, 100)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(drawn))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return drawn


@pytest.fixture
def peer_factory(domain):
    """Makes peers on the test's domain."""
    rclpy = pytest.importorskip("rclpy")
    contexts, peers = [], []

    def make(**settings) -> Peer:
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain)
        contexts.append(context)
        peers.append(Peer(context, **settings))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()
    for context in contexts:
        context.try_shutdown()


@pytest.fixture
def start_monitor(domain, tmp_path):
    """Starts monitor processes with the parameters given; the double unless told otherwise."""
    monitors = []

    def start(*parameters: str) -> MonitorProcess:
        if not any(p.startswith("detector:=") for p in parameters):
            parameters = ("detector:=doubles:load", *parameters)
        log = tmp_path / f"monitor-{len(monitors)}.log"
        monitors.append(MonitorProcess(log, *parameters))
        return monitors[-1]

    yield start
    for monitor in monitors:
        monitor.close()
