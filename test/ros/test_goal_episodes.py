"""Episodes from the goals of a robot's action server, over real DDS; and early warnings."""

from __future__ import annotations

import uuid

import pytest

pytest.importorskip("rclpy")

from rclpy.action import ActionClient, ActionServer, CancelResponse
from ros_peer import LOSSLESS

from ifailsense_ros.action import CheckEpisode
from ifailsense_ros.msg import EpisodeEvent, FailureVerdict
from ifailsense_ros.ros import conversions

pytestmark = pytest.mark.timeout(240)

R = FailureVerdict


class Robot:
    """An action server and its client. Any action will do: its goals say nothing to the monitor."""

    def __init__(self, peer) -> None:
        self._peer = peer
        self._handles = []
        self._server = ActionServer(
            peer.node,
            CheckEpisode,
            "/arm/pick",
            execute_callback=lambda handle: CheckEpisode.Result(),
            handle_accepted_callback=self._handles.append,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
        )
        self._client = ActionClient(peer.node, CheckEpisode, "/arm/pick")
        peer.until(self._client.server_is_ready)

    def begin(self):
        """A goal is accepted and executed; returns its server's and its client's handle."""
        sent = self._client.send_goal_async(CheckEpisode.Goal())
        self._peer.until(sent.done)
        return self._handles[-1], sent.result()

    def end(self, handle, how: str) -> None:
        """succeed, abort, or canceled."""
        handle.execute(lambda h: getattr(h, how)() or CheckEpisode.Result())
        self._peer.spin(0.2)


def test_goals_are_episodes(peer_factory, start_monitor):
    monitor = start_monitor(
        "goal_status_action:=/arm/pick", "end_grace:=0.2", "camera_stale:=60.0", *LOSSLESS
    )
    peer = peer_factory()
    peer.connect(monitor)
    robot = Robot(peer)
    status = "/arm/pick/_action/status"
    peer.until(lambda: peer.node.count_subscribers(status) > 0)
    # The server stamps with its own clock: here the cameras live in that time too.
    peer.say("lift the block")
    peer.stamp_ns = peer.node.get_clock().now().nanoseconds
    peer.spin(0.3)
    for how, expected in (("succeed", R.SUCCESS), ("abort", R.FAILURE)):
        peer.stamp_ns = peer.node.get_clock().now().nanoseconds
        server, client = robot.begin()
        peer.until(lambda: peer.events and peer.events[-1].event == EpisodeEvent.START)
        # The server has stamped the acceptance; on a busy machine that was a while ago.
        peer.stamp_ns = peer.node.get_clock().now().nanoseconds
        peer.film(brighter=expected == R.SUCCESS)
        peer.spin(0.3)  # its end has no stamp: the pictures must be there
        robot.end(server, how)
        verdict = peer.next_verdict(monitor)
        assert verdict.verdict == expected, verdict.reason
        assert conversions.to_uuid(verdict.episode_id) == uuid.UUID(
            bytes=bytes(client.goal_id.uuid)
        )
        assert verdict.instruction == "lift the block"
    # Two at a time: the second is refused, whatever becomes of it; canceled is aborted.
    peer.stamp_ns = peer.node.get_clock().now().nanoseconds
    server, client = robot.begin()
    second, _ = robot.begin()
    peer.until(lambda: peer.values("episodes").get("goals_refused") == "1", monitor=monitor)
    robot.end(second, "succeed")
    peer.film(2)
    assert len(peer.verdicts) == 2
    future = client.cancel_goal_async()
    peer.until(future.done)
    robot.end(server, "canceled")
    assert peer.next_verdict(monitor).reason_code == R.REASON_ABORTED

    # A monitor that comes late does not see what has ended, nor the beginning of what runs.
    running, _ = robot.begin()
    peer.spin(1.5)
    late = start_monitor("goal_status_action:=/arm/pick", "end_grace:=0.2", "__ns:=/late")
    peer.say("lift the block")
    verdicts = []
    topic = "/late/monitor/verdict"
    peer.node.create_subscription(FailureVerdict, topic, verdicts.append, 10)
    peer.until(lambda: peer.node.count_publishers(topic), 30.0, late)
    peer.until(lambda: "is ready" in late.output, 30.0, late)
    peer.spin(0.5)
    robot.end(running, "succeed")
    peer.until(lambda: len(verdicts) == 1, 20.0, late)
    assert verdicts[0].verdict == R.UNKNOWN
    peer.spin(0.3)
    assert len(verdicts) == 1


def test_early_warnings(peer_factory, start_monitor):
    """They come while the episode runs, are not latched, and replace nothing."""
    monitor = start_monitor("provisional_period:=0.3", "end_grace:=1.0", *LOSSLESS)
    peer = peer_factory()
    peer.connect(monitor)
    peer.event(1, uuid.UUID(int=1), "lift")
    peer.film(20, brighter=False, pause_s=0.05)
    peer.until(lambda: len(peer.warnings) >= 2, monitor=monitor)
    assert peer.verdicts == [] and peer.failures == []
    warning = peer.warnings[0]
    assert warning.verdict == R.FAILURE
    assert conversions.to_uuid(warning.episode_id) == uuid.UUID(int=1)
    assert warning.header.stamp == warning.keyframe_stamps[-1]
    assert conversions.to_ns(warning.header.stamp) < peer.stamp_ns
    peer.event(2)
    assert peer.next_verdict(monitor).verdict == R.FAILURE
    # A detector that is slow to warn delays the final verdict once, and is asked no more.
    peer.event(1, None, "sleep 1")
    peer.film(12, pause_s=0.1)
    peer.event(2)
    assert peer.next_verdict(monitor).verdict == R.SUCCESS
    peer.until(lambda: int(peer.values("episodes").get("provisional_skipped_busy", 0)) >= 1)
    # Switched off at run time.
    assert peer.set_parameter("provisional_period", 0.0) == ""
    count = len(peer.warnings)
    peer.episode("lift", pause_s=0.1)
    assert peer.next_verdict(monitor).verdict == R.SUCCESS
    assert len(peer.warnings) == count
