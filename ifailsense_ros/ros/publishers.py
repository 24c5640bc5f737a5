"""Publishers of ours: cheap to have, and waited for without holding anybody up."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks

_ASK_EVERY_S = 0.01


def create_publisher(node: Node, kind: Any, topic: str, qos: QoSProfile | int) -> Publisher:
    """A publisher that does not listen to its own QoS events: the executor would look at each of
    them whenever it wakes, and a subscriber that asks for too much logs it on its own side.
    """
    silent = PublisherEventCallbacks(use_default_callbacks=False)
    return node.create_publisher(kind, topic, qos, event_callbacks=silent)


def wait_until_acked(publishers: Iterable[Publisher], timeout_s: float) -> bool:
    """Until every subscriber has what was published; False if that takes too long.

    Asked again and again: rclpy holds the interpreter while it waits, and the heartbeat with it.
    """
    deadline = time.monotonic() + timeout_s
    for publisher in publishers:
        while not publisher.wait_for_all_acked(Duration()):
            if time.monotonic() > deadline:
                return False
            time.sleep(_ASK_EVERY_S)
    return True
