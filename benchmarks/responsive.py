"""While verdicts take five seconds: do services answer in time, are diagnostics regular?

    python -m benchmarks.responsive                     # a minute
    python -m benchmarks.responsive --seconds 600 --transport raw

The monitor is a process of its own that takes in two cameras of 640x480 at 30 Hz, an episode of 8 s
every 10 s, with a detector double that sleeps five seconds over each. Meanwhile services of the
monitor are called, one after the other, as fast as they answer but no more than ten times a second.

Every call is held to 200 ms, and every interval between two messages of /diagnostics to 1 s +-20 %
(by the monitor's clock; those that tell a change at once come in between, and may be closer). The
command ends with 1 when one of them is not kept. A test of that would fail whenever the machine is
busy, so this is none: look at the load that is printed with it.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import DescribeParameters, GetParameters
from rclpy.node import Node

from benchmarks.ingest import PROFILE, ROOT, next_line, process
from ifailsense_ros.ros import conversions

ANSWER_S = 0.2
INTERVAL_S = (0.8, 1.2)
_PAUSE_S = 0.1
_PATIENCE_S = 120.0
_SERVICES = (
    (GetParameters, "get_parameters", GetParameters.Request(names=["slop"])),
    (DescribeParameters, "describe_parameters", DescribeParameters.Request(names=["slop"])),
    (GetState, "get_state", GetState.Request()),
)


class Client(Node):
    """Calls the monitor's services, and listens to its diagnostics."""

    def __init__(self) -> None:
        super().__init__("responsive_benchmark")
        self.answers: list[float] = []
        """Seconds from each call to its answer."""
        self.beats: list[float] = []
        """When diagnostics were sent, by the monitor's clock, seconds."""
        self.state = ""
        self.verdicts = 0
        self._calls = [
            (self.create_client(kind, f"monitor/{name}"), request)
            for kind, name, request in _SERVICES
        ]
        self.create_subscription(DiagnosticArray, "/diagnostics", self._take, 100)

    def _take(self, message: DiagnosticArray) -> None:
        self.beats.append(conversions.to_ns(message.header.stamp) / 1e9)
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if status.name == "monitor: lifecycle":
                self.state = values["state"]
            if status.name == "monitor: episodes":
                self.verdicts = int(values.get("verdicts", 0))

    def wait_until_active(self, monitor: Any) -> None:
        """Until the monitor accepts episodes."""
        deadline = time.monotonic() + _PATIENCE_S
        while self.state != "active":
            rclpy.spin_once(self, timeout_sec=0.5)
            if monitor.poll() is not None or time.monotonic() > deadline:
                sys.exit("error: the monitor did not become active; see the log")

    def measure(self, seconds: float) -> None:
        """Call and listen for so long."""
        self.beats.clear()
        end, turn = time.monotonic() + seconds, 0
        while (asked := time.monotonic()) < end:
            client, request = self._calls[turn % len(self._calls)]
            future = client.call_async(request)
            rclpy.spin_until_future_complete(self, future, timeout_sec=_PATIENCE_S)
            if not future.done():
                sys.exit(f"error: {client.srv_name} did not answer within {_PATIENCE_S:g} s")
            self.answers.append(time.monotonic() - asked)
            while time.monotonic() < asked + _PAUSE_S:
                rclpy.spin_once(self, timeout_sec=max(0.0, asked + _PAUSE_S - time.monotonic()))
            turn += 1


def distribution(values: Sequence[float]) -> str:
    """Least, median, 99 % and largest, in milliseconds."""
    ordered = sorted(values)
    chosen = (
        ordered[0],
        statistics.median(ordered),
        ordered[round(0.99 * (len(ordered) - 1))],
        ordered[-1],
    )
    return " | ".join(f"{1000 * value:.0f}" for value in chosen)


def report(answers: Sequence[float], intervals: Sequence[float]) -> tuple[list[str], bool]:
    """Markdown lines, and whether everything was kept.

    Args:
        answers: seconds from each call to its answer.
        intervals: seconds between two messages of /diagnostics.
    """
    late = sum(answer >= ANSWER_S for answer in answers)
    # One that tells a change at once makes two short intervals of one.
    silent = sum(interval > INTERVAL_S[1] for interval in intervals)
    hurried = sum(interval < INTERVAL_S[0] for interval in intervals)
    lines = [
        "| ms | number | least | median | 99 % | largest | not kept |",
        "|---|---|---|---|---|---|---|",
        f"| service answers | {len(answers)} | {distribution(answers)} | {late} |",
        f"| between diagnostics | {len(intervals)} | {distribution(intervals)} "
        f"| {silent} too long, {hurried} short |",
    ]
    return lines, not late and not silent


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when a bound was not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--transport", choices=("raw", "compressed"), default="raw")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "responsive")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    log = args.out / "log.txt"
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_DOMAIN_ID"] = str(random.randint(1, 100))
    for variable in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        os.environ[variable] = str(PROFILE)
    rclpy.init()
    client = Client()
    parameters = {"detector": "benchmarks.slow_double:load", "image_transport": args.transport}
    ros_args = [a for name, v in parameters.items() for a in ("-p", f"{name}:={v}")]
    cameras = ["publish", "--transport", args.transport, "--seconds", str(args.seconds + 5)]
    with process("ifailsense_ros.ros.monitor", "--ros-args", *ros_args, log=log) as monitor:
        client.wait_until_active(monitor)
        with process("benchmarks.ingest_peers", *cameras, log=log) as publisher:
            next_line(publisher, "start")
            client.measure(args.seconds)
    lines, kept = report(client.answers, [b - a for a, b in pairwise(client.beats)])
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}\n")
    print("\n".join(lines))
    print(f"\n{client.verdicts} verdicts, each of a judgement of 5 s")
    client.destroy_node()
    rclpy.shutdown()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
