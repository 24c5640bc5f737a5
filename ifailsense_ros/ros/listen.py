"""Prints a monitor's verdicts as JSON lines and saves its montages: for scripts without ROS.

    python -m ifailsense_ros.ros.listen --monitor /monitor --montage-dir out

One JSON object a line: `{"kind": "verdict", ...}`, `{"kind": "montage", ...}`, and
`{"kind": "diagnostics", ...}` whenever the monitor's status changes.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from ifailsense_ros.core.errors import ConfigError, IFailSenseError, ImageError
from ifailsense_ros.core.images import decode_image
from ifailsense_ros.core.verdict import Outcome, Reason, VoteValue
from ifailsense_ros.msg import FailureVerdict
from ifailsense_ros.ros.process import start_ros


def _ns(time: Any) -> int:
    return time.sec * 10**9 + time.nanosec


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else round(value, 6)


def verdict_to_dict(message: FailureVerdict) -> dict[str, Any]:
    """A FailureVerdict as JSON values; codes by their names, stamps in nanoseconds."""
    return {
        "kind": "verdict",
        "episode_id": str(uuid.UUID(bytes=bytes(bytearray(message.episode_id.uuid)))),
        "instruction": message.instruction,
        "verdict": Outcome(message.verdict).name,
        "reason_code": Reason(message.reason_code).name,
        "reason": message.reason,
        "p_success": _number(message.p_success),
        "votes": [
            {
                "source": v.source,
                "vote": VoteValue(v.vote).name,
                "p_success": _number(v.p_success),
                "weight": v.weight,
            }
            for v in message.votes
        ],
        "stamp_ns": _ns(message.header.stamp),
        "keyframe_stamps_ns": [_ns(s) for s in message.keyframe_stamps],
        "latency_s": _ns(message.latency) / 1e9,
        "model_id": message.model_id,
    }


class Listener(Node):
    """Subscribes to what a monitor publishes.

    Args:
        monitor: full name of the monitor node, e.g. "/monitor".
        montage_dir: where pictures go; None: montages are not subscribed to.
    """

    def __init__(self, monitor: str, montage_dir: Path | None) -> None:
        super().__init__("listener")
        monitor = monitor.rstrip("/")
        self._status: dict[str, str] = {}
        self._montages = 0
        self._montage_dir = montage_dir
        # Deep queues: a script must not miss a verdict because it was slow for a moment.
        latched = QoSProfile(
            depth=100,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        self.create_subscription(FailureVerdict, f"{monitor}/verdict", self._on_verdict, latched)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        if montage_dir is not None:
            self.create_subscription(Image, f"{monitor}/montage", self._on_montage, 20)

    def _on_verdict(self, message: FailureVerdict) -> None:
        _print(verdict_to_dict(message))

    def _on_montage(self, message: Image) -> None:
        assert self._montage_dir is not None
        try:
            picture = decode_image(
                message.height,
                message.width,
                message.encoding,
                message.is_bigendian,
                message.step,
                message.data,
            )
        except ImageError as error:
            self.get_logger().warning(f"montage: {error}")
            return
        self._montages += 1
        path = self._montage_dir / f"montage-{self._montages:03d}.png"
        if cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
            stamp = _ns(message.header.stamp)
            _print({"kind": "montage", "stamp_ns": stamp, "path": str(path)})

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {v.key: v.value for v in status.values}
            # Counters change every second; only what the summary line says is news.
            if self._status.get(status.name) != status.message:
                self._status[status.name] = status.message
                level = int.from_bytes(status.level, "little")
                _print(
                    {
                        "kind": "diagnostics",
                        "name": status.name,
                        "level": level,
                        "message": status.message,
                        "values": values,
                    }
                )


def _print(item: dict[str, Any]) -> None:
    print(json.dumps(item), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; runs until it is interrupted. Returns 0, or 2 for a user's mistake."""
    parser = argparse.ArgumentParser(
        prog="ifailsense_listen", description="Print a monitor's verdicts as JSON lines."
    )
    parser.add_argument("--monitor", default="/monitor", help="full name of the monitor node")
    parser.add_argument("--montage-dir", type=Path, help="save ~/montage as PNG in this folder")
    arguments = list(sys.argv[1:] if argv is None else argv)
    own, ros = arguments, []
    if "--ros-args" in arguments:
        at = arguments.index("--ros-args")
        own, ros = arguments[:at], arguments[at:]
    args = parser.parse_args(own)
    try:
        if args.montage_dir is not None:
            _make_folder(args.montage_dir)
        start_ros(ros)
        node = Listener(args.monitor, args.montage_dir)
        rclpy.spin(node)
    except IFailSenseError as error:
        print(f"ifailsense_listen: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--montage-dir {path}: cannot be made ({error.strerror})") from error


if __name__ == "__main__":
    sys.exit(main())
