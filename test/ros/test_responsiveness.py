"""While the detector takes five seconds over a verdict, the node does everything else in time."""

from __future__ import annotations

import statistics
import time
import uuid
from itertools import pairwise

import pytest

pytest.importorskip("rclpy")

from rcl_interfaces.srv import GetParameters
from ros_peer import LOSSLESS

from ifailsense_ros.msg import FailureVerdict
from ifailsense_ros.ros import conversions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2)
TAKES_S = 5.0


def test_a_slow_detector_holds_nothing_up(peer_factory, start_monitor):
    monitor = start_monitor("end_grace:=1.0", *LOSSLESS)
    peer = peer_factory()
    peer.connect(monitor)
    client = peer.node.create_client(GetParameters, "/monitor/get_parameters")
    peer.until(client.service_is_ready)
    peer.episode(f"sleep {TAKES_S}", start=ONE)
    peer.spin(0.5)
    began, answered = time.monotonic(), []
    peer.beats.clear()
    # The next episode runs while the detector still thinks about this one.
    peer.stamp_ns += 50_000_000  # a picture stamped exactly at END belongs to what ended
    peer.event(1, TWO, "lift")
    first_ns = peer.stamp_ns
    while time.monotonic() < began + TAKES_S - 1.0:
        peer.film(2, pause_s=0.05)
        asked = time.monotonic()
        future = client.call_async(GetParameters.Request(names=["slop"]))
        peer.until(future.done)
        answered.append(time.monotonic() - asked)
    peer.event(2, TWO)
    assert peer.verdicts == []
    gaps = [b - a for a, b in pairwise(peer.beats)]
    # The machine of a test may be busy: medians are held to what is promised.
    assert statistics.median(answered) < 0.2, answered
    assert 0.8 < statistics.median(gaps) < 1.2, gaps
    assert max(gaps) < 3.0

    slow, quick = (peer.next_verdict(monitor) for _ in range(2))
    assert [conversions.to_uuid(v.episode_id) for v in (slow, quick)] == [ONE, TWO]
    assert slow.verdict == FailureVerdict.SUCCESS
    assert quick.verdict == FailureVerdict.FAILURE, "the pre-roll shows the bright end of the first"
    # All its pairs came while the detector was busy, and none is missing at either end.
    stamps = [conversions.to_ns(stamp) for stamp in quick.keyframe_stamps]
    assert stamps[0] <= first_ns, "from the pre-roll on"
    assert stamps[-1] == peer.stamp_ns - 100_000_000
    peer.until(lambda: peer.values("camera exo").get("received") == _published(peer, first_ns))


def _published(peer, first_ns) -> str:
    """Pictures of one camera: twelve of the first episode, then one every 100 ms of stamps."""
    return str(12 + (peer.stamp_ns - first_ns) // 100_000_000)
