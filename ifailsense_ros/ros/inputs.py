"""The subscriptions of the monitor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from action_msgs.msg import GoalStatusArray
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.msg import EpisodeEvent
from ifailsense_ros.ros.intake import Intake

# Deep enough for a planner that sends many events at once.
EVENT_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
# The server latches one; here none may be dropped while a picture is decoded.
_GOAL_STATUS_QOS = QoSProfile(
    depth=100,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_JUMP_BACK = Duration(seconds=-1)


class Inputs:
    """Subscribes to everything and passes it to the intake.

    Args:
        node: whose subscriptions these are.
        values: of the parameters.
        intake: whose callbacks are called.

    Raises:
        ConfigError: `goal_status_action` is no name of an action.
    """

    def __init__(self, node: Node, values: Mapping[str, Any], intake: Intake) -> None:
        self._node = node
        compressed = values["image_transport"] == "compressed"
        goal_status = _goal_status_topic(values["goal_status_action"])
        durability = DurabilityPolicy[values["instruction_durability"].upper()]
        instruction_qos = QoSProfile(
            depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=durability
        )
        subscribe = node.create_subscription
        self._subscriptions = [
            subscribe(String, "instruction", intake.on_instruction, instruction_qos),
            subscribe(EpisodeEvent, "episode", intake.on_episode, EVENT_QOS),
        ]
        if goal_status:
            self._subscriptions.append(
                subscribe(GoalStatusArray, goal_status, intake.on_goal_status, _GOAL_STATUS_QOS)
            )
        for camera in intake.cameras:
            # rclpy writes overrides into the profile it is given: one of its own for each.
            sensor_data = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
            self._subscriptions.append(
                subscribe(
                    CompressedImage if compressed else Image,
                    f"{camera}/image" + ("/compressed" if compressed else ""),
                    lambda data, camera=camera: intake.on_image(camera, data),
                    sensor_data,
                    # As bytes: a picture that is made into a Python message costs more than all
                    # that is done with it.
                    raw=True,
                    qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                )
            )
        threshold = JumpThreshold(min_forward=None, min_backward=_JUMP_BACK, on_clock_change=False)
        self._jump_handle = node.get_clock().create_jump_callback(
            threshold, post_callback=intake.on_clock_jump
        )

    def close(self) -> None:
        """Unsubscribe."""
        self._jump_handle.unregister()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)


def _goal_status_topic(action: str) -> str:
    topic = f"{action}/_action/status" if action else ""
    try:
        if topic:
            validate_topic_name(topic)
    except InvalidTopicNameException as error:
        raise ConfigError(
            f"parameter goal_status_action: {action!r} is not the name of an action"
        ) from error
    return topic
