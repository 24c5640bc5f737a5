"""The node in the test's own process: what happens when a transition fails unforeseen."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

import rclpy
from rclpy.lifecycle import TransitionCallbackReturn

from ifailsense_ros.ros import monitor_node
from ifailsense_ros.ros.monitor_node import MonitorNode

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


@pytest.fixture
def node(domain):
    """A node with a detector double in a thread."""
    context = rclpy.Context()
    parameters = ("autostart:=false", "in_process:=true", "detector:=doubles:load")
    words = [word for p in parameters for word in ("-p", p)]
    rclpy.init(args=["--ros-args", *words], context=context, domain_id=domain)
    made = MonitorNode(context=context)
    yield made
    made.settle()
    made.destroy_node()
    context.try_shutdown()


def test_an_unforeseen_error_leaves_a_node_that_can_be_configured_again(node, monkeypatch, capfd):
    def fail(*arguments):
        raise RuntimeError("nobody has thought of this")

    with monkeypatch.context() as patch:
        patch.setattr(monitor_node, "Monitoring", fail)
        assert node.trigger_configure() is ERROR
    assert node.life == "unconfigured"
    assert node.refusal == "RuntimeError: nobody has thought of this"
    assert "nobody has thought of this" in capfd.readouterr().err
    assert node.trigger_configure() is SUCCESS
    assert node.refusal == ""
    with monkeypatch.context() as patch:
        patch.setattr(node._monitoring, "activate", fail)
        assert node.trigger_activate() is ERROR
    assert node.life == "unconfigured"
    assert node.trigger_configure() is SUCCESS
    assert node.trigger_activate() is SUCCESS
    assert node.life == "active"


def test_a_configure_that_is_to_stop_stops(node):
    node._stop_requested = lambda: True
    assert node.trigger_configure() is FAILURE
    assert node.refusal == "the process is to end"
    assert node.life == "unconfigured"
