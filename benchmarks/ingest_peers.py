"""The other processes of the ingest and fleet benchmarks: the cameras, and a subscriber that only
counts.

Started by ingest.py and fleet.py; by hand for a look:

    python -m benchmarks.ingest_peers publish --transport raw --seconds 10
    python -m benchmarks.ingest_peers count --transport raw

Both speak JSON lines on stdout.
"""

from __future__ import annotations

import argparse
import json
import signal
import struct
import sys
import time
import uuid
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from unique_identifier_msgs.msg import UUID

from ifailsense_ros.msg import EpisodeEvent

CAMERAS = ("exo", "gripper")
WIDTH, HEIGHT, RATE_HZ = 640, 480, 30
PICTURES = 15
"""Different pictures per camera, sent in turn."""

EPISODE_EVERY_S, EPISODE_LASTS_S = 10.0, 8.0
_STAMP_OFFSET = 4
"""In a serialized message with a header: behind the 4 bytes that name the encoding."""


def topic(camera: str, transport: str) -> str:
    """Name of a camera's topic."""
    return f"{camera}/image" + ("/compressed" if transport == "compressed" else "")


def message_type(transport: str) -> type:
    """Type of a camera's topic."""
    return CompressedImage if transport == "compressed" else Image


def say(**values: Any) -> None:
    """One JSON line for the benchmark."""
    print(json.dumps(values), flush=True)


def make_pictures(transport: str, seed: int) -> list[bytearray]:
    """Serialized messages of 640x480 pictures with as much detail as a camera's (JPEG 40-90 kB)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (PICTURES, 24, 32, 3), dtype=np.uint8)
    pictures = []
    for small in coarse:
        smooth = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        noise = random.normal(0, 4, smooth.shape)
        picture = np.clip(smooth + noise, 0, 255).astype(np.uint8)
        if transport == "compressed":
            jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            message = CompressedImage(format="rgb8; jpeg compressed bgr8", data=jpeg)
        else:
            message = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
            message.data = picture.tobytes()
        message.header.frame_id = "camera"
        pictures.append(bytearray(serialize_message(message)))
    return pictures


class Cameras(Node):
    """Publishes both cameras of a robot, and an episode of 8 s every 10 s.

    Pictures are serialized once; only the stamp is written anew. Building messages in Python would
    take the CPU that the receiver needs.

    Args:
        transport: raw or compressed.
        pictures: of each camera, from `make_pictures`.
        namespace: of the robot.
    """

    def __init__(
        self, transport: str, pictures: dict[str, list[bytearray]], namespace: str = ""
    ) -> None:
        super().__init__("cameras", namespace=namespace)
        reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._images = {
            camera: self.create_publisher(
                message_type(transport), topic(camera, transport), qos_profile_sensor_data
            )
            for camera in CAMERAS
        }
        self._events = self.create_publisher(EpisodeEvent, "episode", reliable)
        self._pictures = pictures
        self.published = dict.fromkeys(CAMERAS, 0)
        self.episodes = 0
        self._running = False

    @property
    def all_heard(self) -> bool:
        """Whether every camera has a subscriber."""
        return all(p.get_subscription_count() for p in self._images.values())

    def publish_pair(self, number: int) -> None:
        """Both cameras, with the same stamp, as from a synchronised driver."""
        stamp = time.time_ns()
        for camera, publisher in self._images.items():
            message = self._pictures[camera][number % PICTURES]
            struct.pack_into("<iI", message, _STAMP_OFFSET, *divmod(stamp, 10**9))
            publisher.publish(bytes(message))
            self.published[camera] += 1

    def publish_boundary(self, elapsed_s: float) -> None:
        """START or END, when due; an END without pictures after it would wait for its grace."""
        in_episode = elapsed_s % EPISODE_EVERY_S < EPISODE_LASTS_S
        if in_episode == self._running:
            return
        self._running = in_episode
        event = EpisodeEvent(instruction="lift the red block" if in_episode else "")
        event.event = EpisodeEvent.START if in_episode else EpisodeEvent.END
        event.header.stamp = self.get_clock().now().to_msg()
        if in_episode:
            self._id = UUID(uuid=list(uuid.uuid4().bytes))
            self.episodes += 1
        event.episode_id = self._id
        self._events.publish(event)


def publish(transport: str, seconds: float, namespaces: list[str], rate_hz: float) -> None:
    """Wait for subscribers, publish for so long, and say how much. Robots take turns within each
    period, as cameras that know nothing of each other.
    """
    rclpy.init()
    pictures = {c: make_pictures(transport, seed) for seed, c in enumerate(CAMERAS)}
    robots = [Cameras(transport, pictures, namespace) for namespace in namespaces]
    deadline = time.monotonic() + 60
    for node in robots:
        while not node.all_heard:
            if time.monotonic() > deadline:
                sys.exit("error: nobody subscribed to the cameras within 60 s")
            rclpy.spin_once(node, timeout_sec=0.1)
    time.sleep(1.0)  # the subscribers' side of the matching
    say(event="start")
    began, late = time.monotonic(), 0
    for turn in range(round(seconds * rate_hz) * len(robots)):
        number, robot = divmod(turn, len(robots))
        due = began + turn / (rate_hz * len(robots))
        late += time.monotonic() > due + 1 / rate_hz
        time.sleep(max(0.0, due - time.monotonic()))
        robots[robot].publish_boundary(due - began)
        robots[robot].publish_pair(number)
    took = time.monotonic() - began
    published = {camera: sum(node.published[camera] for node in robots) for camera in CAMERAS}
    episodes = sum(node.episodes for node in robots)
    say(event="done", published=published, episodes=episodes, late=late, took_s=took)
    time.sleep(1.0)  # best effort: what is still on its way
    for node in robots:
        node.destroy_node()
    rclpy.shutdown()


def count(transport: str, namespace: str) -> None:
    """Subscribe to both cameras and count, as a node would that does nothing else."""
    rclpy.init()
    node = Node("bare_subscriber", namespace=namespace)
    received = dict.fromkeys(CAMERAS, 0)

    def take(camera: str) -> None:
        received[camera] += 1

    for camera in CAMERAS:
        node.create_subscription(
            message_type(transport),
            topic(camera, transport),
            lambda message, camera=camera: take(camera),
            qos_profile_sensor_data,
        )
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    finally:
        say(event="counted", received=received)


def main() -> None:
    """Play one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("publish", "count"))
    parser.add_argument("--transport", choices=("raw", "compressed"), default="raw")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=RATE_HZ, help="Hz of each camera")
    parser.add_argument("--namespace", action="append", help="of a robot; may be given again")
    args = parser.parse_args()
    if args.part == "publish":
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        publish(args.transport, args.seconds, args.namespace or [""], args.rate)
    else:
        count(args.transport, (args.namespace or [""])[0])


if __name__ == "__main__":
    main()
