"""The monitor as a managed node, over its services as a lifecycle manager uses them."""

from __future__ import annotations

import math
import os
import signal
import time
import uuid

import pytest

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.duration import Duration
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import LivelinessPolicy, QoSProfile
from ros_peer import LOSSLESS

from ifailsense_ros.msg import FailureVerdict

pytestmark = pytest.mark.timeout(240)

R = FailureVerdict
ONE = uuid.UUID(int=1)


def reasons(peer, since=0):
    return [verdict.reason_code for verdict in peer.verdicts[since:]]


def test_a_managed_life(peer_factory, start_monitor):
    monitor = start_monitor("autostart:=false", "end_grace:=1.0", *LOSSLESS)
    peer = peer_factory()
    assert peer.life() == "unconfigured"
    assert not peer.transition("activate"), "not from here"
    assert peer.life() == "unconfigured", "and the node has survived the question"
    assert peer.transition("configure")
    assert peer.life() == "inactive"
    peer.connect(monitor)
    peer.episode("lift")
    peer.until(lambda: peer.values("episodes").get("start_while_inactive") == "1")
    assert peer.verdicts == []

    assert peer.transition("activate")
    peer.episode("lift")
    assert peer.next_verdict(monitor).verdict == R.SUCCESS
    # Judged, queued and running: each gets its verdict.
    peer.episode("sleep 60")
    peer.episode("push")
    peer.event(1, ONE, "lift")
    peer.film(4)
    assert peer.transition("deactivate")
    peer.until(lambda: len(peer.verdicts) == 4)
    assert reasons(peer, 1) == [R.REASON_DEACTIVATED] * 3
    assert [v.instruction for v in peer.verdicts[1:]] == ["sleep 60", "push", "lift"]
    assert peer.set_parameter("slop", 0.1).endswith("deactivate and clean up first")

    assert peer.transition("cleanup")
    assert peer.life() == "unconfigured"
    assert monitor.worker_pids() == []
    peer.until(lambda: not peer.node.count_subscribers("/exo/image"))
    assert peer.set_parameter("slop", 0.1) == ""
    # Everything once more, in the same process.
    assert peer.transition("configure")
    assert peer.transition("activate")
    peer.connect(monitor)
    peer.stamp_ns += 10**9
    peer.episode("lift")
    peer.until(lambda: len(peer.verdicts) == 5, monitor=monitor)
    assert peer.verdicts[-1].verdict == R.SUCCESS
    peer.event(1, ONE, "lift")
    assert peer.transition("active_shutdown")
    peer.until(lambda: len(peer.verdicts) == 6, monitor=monitor)
    assert peer.verdicts[-1].reason_code == R.REASON_SHUT_DOWN
    assert peer.life() == "finalized"
    assert monitor.worker_pids() == []
    monitor.process.send_signal(signal.SIGINT)
    assert monitor.wait() == 0
    assert "Traceback" not in monitor.output


def test_a_wrong_parameter_refuses_to_configure_until_it_is_mended(peer_factory, start_monitor):
    monitor = start_monitor("autostart:=false", "slop:=5.0", "detector:=doubles:load_broken")
    peer = peer_factory()
    assert not peer.transition("configure")
    refused = "parameter slop: 5.0 is not allowed, must be in 0.0..1.0"
    assert f"not configured: {refused}" in monitor.output
    peer.until(lambda: "lifecycle" in str(list(peer.status)))
    peer.until(lambda: refused in peer.status["monitor: lifecycle"].message)
    assert peer.set_parameter("slop", 0.05) == ""
    assert not peer.transition("configure")
    assert "not configured: checkpoint /x: model.safetensors has another" in monitor.output
    assert peer.set_parameter("detector", "doubles:load") == ""
    assert peer.transition("configure")
    assert peer.life() == "inactive"
    peer.until(lambda: peer.status["monitor: lifecycle"].message == "inactive")


def test_parameters_change_at_run_time_where_that_is_safe(peer_factory, start_monitor):
    # Without a grace any other instruction is a change, however soon after START it comes.
    monitor = start_monitor(
        "publish_montage:=false", "end_grace:=1.0", "instruction_grace:=0.0", *LOSSLESS
    )
    peer = peer_factory()
    peer.connect(monitor)
    for name, value, why in (
        ("slop", 0.1, "while the node is unconfigured"),
        ("end_grace", -1.0, "end_grace"),
        ("end_grace", math.nan, "out of range"),
        ("end_grace", 1, "Wrong parameter type"),
        ("instruction_change", "maybe", "must be one of unknown, end, ignore"),
        ("autostart", False, "read-only"),
    ):
        assert why in peer.set_parameter(name, value), name
    peer.event(1, ONE, "push")
    peer.film(6)
    peer.until(lambda: peer.events)  # a service call may overtake what topics carry
    assert peer.set_parameter("instruction_change", "ignore") == ""
    assert peer.set_parameter("publish_montage", True) == ""
    peer.film(6)
    peer.say("open the drawer")
    assert peer.next_verdict(monitor).reason_code == R.REASON_INSTRUCTION_CHANGED, "the old rule"
    peer.until(lambda: len(peer.montages) == 1)
    peer.event(1, None, "push")
    peer.film(12)
    peer.say("lift the block")
    peer.event(2)
    assert peer.next_verdict(monitor).verdict == R.SUCCESS, "the new rule"


def test_while_configure_waits_the_node_beats_and_can_be_stopped(peer_factory, start_monitor):
    monitor = start_monitor("autostart:=false", "detector:=doubles:load_slowly")
    peer = peer_factory()
    assert peer.life() == "unconfigured"
    client = peer.node.create_client(ChangeState, "/monitor/change_state")
    peer.until(client.service_is_ready)
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    client.call_async(request)
    peer.until(lambda: "loading detector" in monitor.output)
    peer.beats.clear()
    peer.until(lambda: "busy for" in peer.status["monitor: main loop"].message, 20.0, monitor)
    assert len(peer.beats) >= 2
    peer.node.destroy_client(client)
    before = time.monotonic()
    monitor.process.send_signal(signal.SIGINT)
    assert monitor.wait() == 0
    assert time.monotonic() - before < 10.0
    assert "Traceback" not in monitor.output


def test_a_monitor_that_hangs_is_not_alive(peer_factory, start_monitor):
    monitor = start_monitor(*LOSSLESS)
    peer = peer_factory()
    alive = []
    peer.node.create_subscription(
        FailureVerdict,
        "/monitor/verdict",
        lambda message: None,
        QoSProfile(
            depth=1,
            liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
            liveliness_lease_duration=Duration(seconds=8),
        ),
        event_callbacks=SubscriptionEventCallbacks(
            liveliness=lambda event: alive.append(event.alive_count)
        ),
    )
    peer.connect(monitor)
    peer.until(lambda: alive[-1:] == [1])
    os.kill(monitor.process.pid, signal.SIGSTOP)
    try:
        peer.until(lambda: alive[-1:] == [0], 30.0)
    finally:
        os.kill(monitor.process.pid, signal.SIGCONT)
    peer.until(lambda: alive[-1:] == [1], 30.0)
    peer.episode("lift")
    assert peer.next_verdict(monitor).verdict == R.SUCCESS
