"""The subscriptions of the monitor.

Events wake the main loop. Pictures do not: waking up for one costs rclpy more than all that is done
with it, so they are taken when the main loop turns, ten times a second or more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from action_msgs.msg import GoalStatus, GoalStatusArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from ifailsense_ros.core.errors import ConfigError, text_of
from ifailsense_ros.msg import EpisodeEvent
from ifailsense_ros.ros.conversions import to_ns
from ifailsense_ros.ros.intake import Intake

# Three turns of the main loop at 60 Hz.
_PICTURES_KEPT = 20
# Deep enough for a planner that sends many events at once.
EVENT_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
# The server latches one; here none may be dropped while a picture is decoded.
_GOAL_STATUS_QOS = QoSProfile(
    depth=100,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_ENDED = (GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_CANCELED, GoalStatus.STATUS_ABORTED)
_JUMP_BACK = Duration(seconds=-1)


class Inputs:
    """Subscribes to everything and passes it to the intake.

    Args:
        node: whose subscriptions these are.
        values: of the parameters.
        intake: whose callbacks are called.

    Raises:
        ConfigError: `goal_status_action` is no name of an action, or a `qos_overrides` parameter
            has no such value.
    """

    def __init__(self, node: Node, values: Mapping[str, Any], intake: Intake) -> None:
        self._node = node
        compressed = values["image_transport"] == "compressed"
        goal_status = _goal_status_topic(values["goal_status_action"])
        durability = DurabilityPolicy[values["instruction_durability"].upper()]
        instruction_qos = QoSProfile(
            depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=durability
        )
        events = [
            (String, "instruction", intake.on_instruction, instruction_qos),
            (EpisodeEvent, "episode", intake.on_episode, EVENT_QOS),
        ]
        if goal_status:
            events.append((GoalStatusArray, goal_status, intake.on_goal_status, _GOAL_STATUS_QOS))
        self._came: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._events = [
            node.create_subscription(
                kind, topic, lambda m, callback=callback: self._came.append((callback, m)), qos
            )
            for kind, topic, callback, qos in events
        ]
        try:
            self._cameras = [
                self._camera(f"{camera}/image", compressed, partial(intake.on_image, camera))
                for camera in intake.cameras
            ]
        except Exception as error:  # what rclpy raises for a wrong override differs
            for subscription in self._events:
                node.destroy_subscription(subscription)
            raise ConfigError(f"qos_overrides of the cameras: {text_of(error)}") from error
        threshold = JumpThreshold(min_forward=None, min_backward=_JUMP_BACK, on_clock_change=False)
        self._jump_handle = node.get_clock().create_jump_callback(
            threshold, post_callback=intake.on_clock_jump
        )

    def _camera(
        self, topic: str, compressed: bool, callback: Callable[[bytes], None]
    ) -> Subscription:
        return self._node.create_subscription(
            CompressedImage if compressed else Image,
            topic + ("/compressed" if compressed else ""),
            callback,
            # rclpy writes overrides into the profile it is given: one of its own for each.
            QoSProfile(depth=_PICTURES_KEPT, reliability=ReliabilityPolicy.BEST_EFFORT),
            callback_group=_Polled(),
            # As bytes: to make a Python message of a picture is more work than to shrink it.
            raw=True,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def take(self) -> None:
        """Pass on what has come.

        Events overtake pictures: after a stall, a START behind newer pictures would look like a
        jump in time. But one without a stamp is meant for now, the time of the newest picture; it
        and what follows it come behind them.
        """
        for subscription in self._events:
            while _take_one(subscription):
                pass
        while self._came and not _is_meant_for_now(self._came[0][1]):
            self._pass_on()
        # In turn: a camera that is ahead of the others by a whole queue would lose its pictures.
        while any([_take_one(subscription) for subscription in self._cameras]):
            pass
        while self._came:
            self._pass_on()

    def close(self) -> None:
        """Unsubscribe."""
        self._jump_handle.unregister()
        for subscription in (*self._events, *self._cameras):
            self._node.destroy_subscription(subscription)

    def _pass_on(self) -> None:
        callback, message = self._came.popleft()
        callback(message)


def _take_one(subscription: Subscription) -> bool:
    """Call back with a message that waits; whether there was one."""
    with subscription.handle:
        taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
    if taken is None:
        return False
    if isinstance(subscription.callback_group, _Polled):
        subscription.callback_group.heard = True
    subscription.callback(taken[0])
    return True


def _is_meant_for_now(message: Any) -> bool:
    """Whether it has no stamp, but is about a time."""
    if isinstance(message, EpisodeEvent):
        return not to_ns(message.header.stamp)
    if isinstance(message, GoalStatusArray):
        return any(status.status in _ENDED for status in message.status_list)
    return False


class _Polled(ReentrantCallbackGroup):
    """Of a subscription that the executor does not wait for.

    It does for its QoS events (a publisher that does not match is logged) until it has been heard.
    Then it must not: Fast DDS ends a wait for them whenever there is a message, and the executor
    would go round in circles until that is taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heard = False

    def can_execute(self, entity: Any) -> bool:
        """See `CallbackGroup`."""
        return not self.heard and not isinstance(entity, Subscription)


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
