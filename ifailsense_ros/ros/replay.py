"""Replays rosbag2 folders over real ROS 2, without rosbag2_py: what the demo and the tests use.

    python -m ifailsense_ros.ros.replay bags/demo/* --rate 4

Messages go out as the bytes that were recorded, so header stamps are the original ones. With
`--clock` the time at which they were received goes out on /clock.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rosgraph_msgs.msg import Clock

from ifailsense_ros.core.errors import BagError, ConfigError, IFailSenseError
from ifailsense_ros.data.rosbag import STRING_TYPE, Bag, open_bag
from ifailsense_ros.ros.process import start_ros

# After discovery on our side, the other side may need a moment more.
_SETTLE_S = 0.3
_ACK_TIMEOUT_S = 5.0
_CLOCK_S = 0.025
"""Between two times on /clock: 40 Hz, as of `ros2 bag play`."""


class Replayer:
    """Publishes recorded messages on their topics.

    Reliable, so that a reliable subscriber loses nothing; compatible with the monitor's best
    effort camera subscriptions. Latched topics stay latched.

    Args:
        node: whose publishers these are.
        rate: how much faster than recorded, > 0.
        clock: publish the recording's time on /clock.
        topics: only these; None: all.
    """

    def __init__(
        self,
        node: Node,
        rate: float = 1.0,
        *,
        clock: bool = False,
        topics: Collection[str] | None = None,
    ) -> None:
        if not rate > 0:
            raise ConfigError(f"--rate {rate}: must be greater than 0")
        self._node = node
        self._rate = rate
        self._topics = None if topics is None else set(topics)
        self._clock = node.create_publisher(Clock, "/clock", 10) if clock else None
        self._publishers: dict[str, Publisher] = {}

    def advertise(self, bag: Bag) -> None:
        """Create publishers for the topics of a bag that have none yet.

        Raises:
            BagError: a message package is not installed.
        """
        for topic, msgtype in sorted(bag.topics.items()):
            if topic in self._publishers or not self._is_wanted(topic):
                continue
            latched = bag.is_latched(topic)
            if latched is None:
                # The instruction is latched by convention; others never unless recorded so.
                latched = msgtype == STRING_TYPE
            qos = QoSProfile(
                depth=1 if latched else 100,
                reliability=ReliabilityPolicy.RELIABLE,
                durability=(
                    DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
                ),
            )
            message_class = _message_class(bag, topic, msgtype)
            self._publishers[topic] = self._node.create_publisher(message_class, topic, qos)

    def wait_for_subscribers(self, timeout_s: float) -> None:
        """Wait until every topic has a subscriber.

        Raises:
            ConfigError: nobody came in time; names the topics.
        """
        deadline = time.monotonic() + timeout_s
        while lonely := [
            p.topic_name for p in self._publishers.values() if not p.get_subscription_count()
        ]:
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"no subscriber on {', '.join(sorted(lonely))} after {timeout_s:g} s: start "
                    "the monitor, or remap the topics (--ros-args -r OLD:=NEW)"
                )
            self._sleep(0.05)
        self._sleep(_SETTLE_S)

    def play(self, bag: Bag) -> int:
        """Publish a bag's messages at their recorded pace; returns how many."""
        count = 0
        started = first_ns = None
        for message in bag.messages(self._topics):
            if started is None or first_ns is None:
                started, first_ns = time.monotonic(), message.receive_ns
            due = started + (message.receive_ns - first_ns) / 1e9 / self._rate
            self._wait_until(due, message.receive_ns)
            self._publishers[message.topic].publish(message.data)
            count += 1
        return count

    def pause(self, seconds: float) -> None:
        """Let time pass between two bags."""
        self._sleep(seconds)

    def flush(self) -> None:
        """Wait until reliable subscribers have everything."""
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=_ACK_TIMEOUT_S))

    def _is_wanted(self, topic: str) -> bool:
        return self._topics is None or topic in self._topics

    def _wait_until(self, due: float, recorded_ns: int) -> None:
        """Let time pass until a message is due, on /clock too."""
        while self._clock is not None and (left := due - time.monotonic()) > _CLOCK_S:
            self._tell_time(recorded_ns - round(left * self._rate * 1e9))
            self._sleep(_CLOCK_S)
        self._sleep(due - time.monotonic())
        if self._clock is not None:
            self._tell_time(recorded_ns)

    def _tell_time(self, now_ns: int) -> None:
        assert self._clock is not None
        self._clock.publish(Clock(clock=Time(nanoseconds=now_ns).to_msg()))

    def _sleep(self, seconds: float) -> None:
        """In short pieces, so that Ctrl-C ends a long gap of the recording."""
        deadline = time.monotonic() + seconds
        while self._node.context.ok():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.1))
        raise ExternalShutdownException


def _message_class(bag: Bag, topic: str, msgtype: str) -> Any:
    package, _, name = msgtype.split("/")
    try:
        return getattr(import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise BagError(
            f"{bag.path}: {topic} is {msgtype}, which is not installed here: install {package}, "
            "or leave the topic out of the bag"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, 2 for a user's mistake, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="ifailsense_replay", description="Replay rosbag2 folders over ROS 2."
    )
    parser.add_argument("bags", nargs="+", metavar="BAG", help="rosbag2 folder (MCAP or sqlite3)")
    parser.add_argument("--rate", type=float, default=1.0, help="times as fast as recorded")
    parser.add_argument(
        "--pause", type=float, default=1.0, metavar="SECONDS", help="between two bags"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="longest wait for a subscriber on every topic; 0: do not wait",
    )
    parser.add_argument("--clock", action="store_true", help="publish the bag's time on /clock")
    parser.add_argument(
        "--topic", action="append", metavar="TOPIC", help="only this one; may be repeated"
    )
    arguments = list(sys.argv[1:] if argv is None else argv)
    own, ros = arguments, []
    if "--ros-args" in arguments:
        at = arguments.index("--ros-args")
        own, ros = arguments[:at], arguments[at:]
    args = parser.parse_args(own)
    try:
        # Before ROS starts: a bad bag is told at once, and not after half of the others.
        for path in args.bags:
            with open_bag(path):
                pass
        start_ros(ros)
        try:
            return _replay(args)
        finally:
            rclpy.try_shutdown()
    except IFailSenseError as error:
        print(f"ifailsense_replay: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130


def _replay(args: argparse.Namespace) -> int:
    node = Node("replay")
    replayer = Replayer(node, args.rate, clock=args.clock, topics=args.topic)
    try:
        for path in args.bags:
            with open_bag(path) as bag:
                replayer.advertise(bag)
        if args.wait > 0:
            replayer.wait_for_subscribers(args.wait)
        for number, path in enumerate(args.bags):
            if number:
                replayer.pause(args.pause)
            with open_bag(path) as bag:
                print(f"replay {path}: {replayer.play(bag)} messages", flush=True)
        replayer.flush()
    except Exception:
        if not node.context.ok():  # Ctrl-C during a publish: "context is invalid"
            raise ExternalShutdownException from None
        raise
    finally:
        node.destroy_node()
    return 0


if __name__ == "__main__":
    sys.exit(main())
