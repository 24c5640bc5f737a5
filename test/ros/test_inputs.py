"""The subscriptions: what wakes the main loop, and in which order it gets what has come."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy")

import rclpy
import ros_peer
from action_msgs.msg import GoalStatus, GoalStatusArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import String

from ifailsense_ros.core.cdr_pictures import CdrPicture
from ifailsense_ros.msg import EpisodeEvent
from ifailsense_ros.ros.inputs import Inputs

pytestmark = pytest.mark.timeout(120)

VALUES = {
    "image_transport": "raw",
    "goal_status_action": "arm/move",
    "instruction_durability": "transient_local",
}
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PATIENCE_S = 20.0


class Notes:
    """An intake that writes down what it gets."""

    cameras = ("exo", "gripper")

    def __init__(self):
        self.got = []

    def on_image(self, camera, data):
        self.got.append(int(CdrPicture(data, compressed=False).decode()[0, 0, 0]))

    def on_episode(self, message):
        self.got.append(f"event {message.event}")

    def on_goal_status(self, message):
        self.got.append("goals")

    def on_instruction(self, message):
        self.got.append(message.data)

    def on_clock_jump(self, jump):
        self.got.append("jump")


@pytest.fixture
def bench(domain):
    """An executor, the inputs in a node on it, what they got, and a node to publish with."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node, peer = (rclpy.create_node(name, context=context) for name in ("inputs", "peer"))
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    notes = Notes()
    inputs = Inputs(node, VALUES, notes)
    yield executor, inputs, notes, peer
    inputs.close()
    executor.shutdown()
    context.try_shutdown()


def publisher(peer, kind, topic):
    made = peer.create_publisher(kind, topic, LATCHED)
    wait(made.get_subscription_count)
    return made


def wait(done, turn=lambda: time.sleep(0.01)):
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end, f"waited {PATIENCE_S} s in vain"
        turn()


def test_pictures_wait_for_the_main_loop(bench):
    executor, inputs, notes, peer = bench
    camera = publisher(peer, Image, "exo/image")
    message = ros_peer.make_image(9)
    camera.publish(message)
    wait(lambda: notes.got, inputs.take)
    assert notes.got == [9]
    camera.publish(message)
    words = publisher(peer, String, "instruction")
    for _ in range(20):
        executor.spin_once(timeout_sec=0.0)
    assert len(notes.got) == 1, "the executor leaves pictures alone"
    words.publish(String(data="lift"))

    def turn():
        executor.spin_once(timeout_sec=0.05)
        inputs.take()

    wait(lambda: "lift" in notes.got, turn)


@pytest.mark.parametrize(
    ("stamps", "order"),
    [
        ((5, 6), ["event 1", "event 2", 1, 2]),
        ((0, 0), [1, 2, "event 1", "event 2"]),
        ((5, 0), ["event 1", 1, 2, "event 2"]),
        ((0, 6), [1, 2, "event 1", "event 2"]),
    ],
)
def test_events_overtake_pictures_unless_they_are_meant_for_now(bench, stamps, order):
    """After a stall all have come: no order but that of the events themselves is to be trusted."""
    _, inputs, notes, peer = bench
    camera = publisher(peer, Image, "exo/image")
    events = publisher(peer, EpisodeEvent, "episode")
    for level in (1, 2):
        camera.publish(ros_peer.make_image(level))
    for number, stamp in enumerate(stamps, 1):
        message = EpisodeEvent(event=number)
        message.header.stamp.sec = stamp
        events.publish(message)
    time.sleep(0.5)  # nothing here says that all have come
    inputs.take()
    assert notes.got == order


def test_cameras_take_turns(bench):
    """Or one that is ahead by a queue of the pairing would lose its pictures."""
    _, inputs, notes, peer = bench
    exo, gripper = (publisher(peer, Image, f"{camera}/image") for camera in notes.cameras)
    for level in range(5):
        exo.publish(ros_peer.make_image(level))
    for level in range(100, 103):
        gripper.publish(ros_peer.make_image(level))
    time.sleep(0.5)
    inputs.take()
    assert notes.got == [0, 100, 1, 101, 2, 102, 3, 4]


def test_the_end_of_a_goal_comes_behind_the_pictures(bench):
    """Its status has no stamp."""
    _, inputs, notes, peer = bench
    camera = publisher(peer, Image, "exo/image")
    goals = publisher(peer, GoalStatusArray, "arm/move/_action/status")
    camera.publish(ros_peer.make_image(1))
    goals.publish(GoalStatusArray(status_list=[GoalStatus(status=GoalStatus.STATUS_EXECUTING)]))
    time.sleep(0.5)
    inputs.take()
    camera.publish(ros_peer.make_image(2))
    goals.publish(GoalStatusArray(status_list=[GoalStatus(status=GoalStatus.STATUS_SUCCEEDED)]))
    time.sleep(0.5)
    inputs.take()
    assert notes.got == ["goals", 1, 2, "goals"]


def test_waiting_beside_unread_pictures_does_not_go_round_in_circles(bench, monkeypatch):
    """Fast DDS ends a wait for the QoS events of a subscription that has something to read."""
    executor, inputs, notes, peer = bench
    camera = publisher(peer, Image, "exo/image")
    camera.publish(ros_peer.make_image(9))
    wait(lambda: notes.got, inputs.take)
    for _ in range(20):  # whatever else was due
        executor.spin_once(timeout_sec=0.0)
    turns = []
    get_nodes = executor.get_nodes
    monkeypatch.setattr(executor, "get_nodes", lambda: turns.append(1) or get_nodes())
    camera.publish(ros_peer.make_image(9))
    executor.spin_once(timeout_sec=0.5)
    assert len(turns) < 10
