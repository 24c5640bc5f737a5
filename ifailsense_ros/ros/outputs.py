"""What the monitor publishes: verdicts, early warnings, failures, boundaries and montages."""

from __future__ import annotations

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from ifailsense_ros.core.effects import SECOND, Boundary, Publish, PublishProvisional
from ifailsense_ros.core.montage import MontageGeometry, annotate, compose
from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.msg import EpisodeEvent, FailureVerdict
from ifailsense_ros.ros import conversions
from ifailsense_ros.ros.publishers import create_publisher, wait_until_acked

LIVELINESS_LEASE_S = 5.0
"""A monitor whose main loop has not turned for this long is not alive."""


class Outputs:
    """The node's private topics.

    Not lifecycle publishers: an inactive one would drop a verdict without a word. The tracker
    alone decides; inactive, it has settled everything and accepts nothing.

    Args:
        node: whose topics they are.
        geometry: of the checkpoint's montage.
        montage_scale: screen pixels per pixel of the montage; 0: no montage is published.
    """

    def __init__(self, node: Node, geometry: MontageGeometry, montage_scale: int) -> None:
        self._logger = node.get_logger()
        self._node = node
        self._geometry = geometry
        self.montage_scale = montage_scale
        # Deep enough that nothing is lost when many episodes are settled at once.
        reliable = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        latched = QoSProfile(
            depth=100,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
            # Asserted by the main loop: a process whose loop hangs is not alive. Subscribers that
            # ask for nothing, or for AUTOMATIC, match.
            liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
            liveliness_lease_duration=Duration(seconds=LIVELINESS_LEASE_S),
        )
        pictures = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._verdicts = create_publisher(node, FailureVerdict, "~/verdict", latched)
        self._warnings = create_publisher(node, FailureVerdict, "~/verdict/provisional", reliable)
        # Volatile: a planner that starts anew must not act on an old failure.
        self._failures = create_publisher(node, FailureVerdict, "~/failure", reliable)
        self._boundaries = create_publisher(node, EpisodeEvent, "~/episode_events", reliable)
        self._montages = create_publisher(node, Image, "~/montage", pictures)

    def assert_liveliness(self) -> None:
        """The main loop turns."""
        self._verdicts.assert_liveliness()

    def boundary(self, boundary: Boundary, frame_id: str) -> None:
        """Tell a boundary of an episode."""
        self._boundaries.publish(conversions.to_event_message(boundary, frame_id))

    def verdict(self, effect: Publish, frame_id: str) -> FailureVerdict:
        """Publish a final verdict, and its picture if anybody looks; returns the message."""
        verdict, judgement = effect.verdict, effect.verdict.judgement
        message = conversions.to_verdict_message(verdict, frame_id)
        self._verdicts.publish(message)
        if judgement.outcome is Outcome.FAILURE:
            self._failures.publish(message)
        reason = f" {judgement.reason.name}: {judgement.detail}" if judgement.detail else ""
        self._logger.info(
            f"{judgement.outcome.name}{reason} [{verdict.instruction!r}, "
            f"{verdict.latency_ns / SECOND:.2f} s]"
        )
        if self.montage_scale and self._montages.get_subscription_count():
            self._montage(effect, frame_id)
        return message

    def warning(self, effect: PublishProvisional, frame_id: str) -> FailureVerdict:
        """Publish an early warning; returns the message."""
        message = conversions.to_verdict_message(effect.verdict, frame_id)
        self._warnings.publish(message)
        return message

    def close(self) -> None:
        """Take the topics back."""
        for publisher in (
            self._verdicts,
            self._warnings,
            self._failures,
            self._boundaries,
            self._montages,
        ):
            self._node.destroy_publisher(publisher)

    def wait_for_all_acked(self, timeout_s: float) -> None:
        """Until verdicts, failures and boundaries have been heard, or waited for in vain."""
        publishers = (self._verdicts, self._failures, self._boundaries)
        if not wait_until_acked(publishers, timeout_s):
            self._logger.warning(f"somebody has not heard everything within {timeout_s} s")

    def _montage(self, effect: Publish, frame_id: str) -> None:
        if effect.episode is None:
            montage = np.zeros((0, 0, 3), np.uint8)
        else:
            montage = compose(effect.episode, self._geometry)
        picture = annotate(montage, effect.verdict, self._geometry, scale=self.montage_scale)
        message = conversions.to_image_message(picture, effect.verdict.end_ns, frame_id)
        self._montages.publish(message)
