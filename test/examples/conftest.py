"""A DDS domain of the test's own, with the nodes of an example and of a stand-in monitor."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for stand_in.py

from stand_in import World


@pytest.fixture
def world(monkeypatch):
    """See `World`; on a domain of its own."""
    rclpy = pytest.importorskip("rclpy")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=random.SystemRandom().randint(1, 100))
    world = World(context)
    yield world
    world.executor.shutdown()
    for node in (world.node, world.monitor_node):
        node.destroy_node()
    context.try_shutdown()
