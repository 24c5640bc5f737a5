#!/usr/bin/env python3
"""What to do when an episode did not succeed: recoveries by reason code. An example to copy.

    python examples/recovery_dispatch.py --ros-args -p monitor:=/monitor

As in Nav2, recoveries for one fault are tried in turn, from the cheapest to the last resort, and
what is tried depends on a code, not on a text. Each verdict that is no success names the next one
on `~/recovery` (std_msgs/String); the nodes that can do these things subscribe to that. Success of
the same instruction starts its list anew.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import String

from ifailsense_ros.msg import FailureVerdict as Verdict

NOTHING = "nothing"
ASK = "ask_a_person"
"""The end of every list, and the answer to codes that this file does not know."""

RECOVERIES: dict[int, tuple[str, ...]] = {
    # A FAILURE. The scene is not what the plan assumed: look first, then plan from here.
    Verdict.REASON_NONE: ("look_again_and_replan", "go_home_and_replan", ASK),
    # Cameras. Nothing is known of the attempt, so nothing may be taken for done.
    Verdict.REASON_CAMERA_ABSENT: ("hold_still", "restart_cameras", ASK),
    Verdict.REASON_CAMERA_STALE: ("hold_still", "restart_cameras", ASK),
    Verdict.REASON_BAD_IMAGE: ("restart_cameras", ASK),
    Verdict.REASON_CLOCK_JUMPED: ("look_again_and_replan", ASK),
    # Us: events or instruction were not as they should be. The robot may be done or not, so look.
    Verdict.REASON_TOO_FEW_KEYFRAMES: ("look_again_and_replan", ASK),
    Verdict.REASON_NO_INSTRUCTION: ("say_instruction_again", ASK),
    Verdict.REASON_INSTRUCTION_CHANGED: ("look_again_and_replan", ASK),
    Verdict.REASON_SUPERSEDED: (NOTHING,),  # the next episode is running already
    Verdict.REASON_ABORTED: (NOTHING,),  # whoever aborted knows why
    # The detector. It restarts by itself; give it the time.
    Verdict.REASON_QUEUE_FULL: ("hold_still", ASK),
    Verdict.REASON_DETECTOR_ERROR: ("hold_still", "restart_monitor", ASK),
    Verdict.REASON_DETECTOR_OUT_OF_MEMORY: ("restart_monitor", ASK),
    Verdict.REASON_DETECTOR_TIMEOUT: ("hold_still", "restart_monitor", ASK),
    # It looked and cannot say: show it more, from elsewhere.
    Verdict.REASON_VLM_ABSTAINED: ("look_from_elsewhere", ASK),
    Verdict.REASON_LOW_CONFIDENCE: ("look_from_elsewhere", ASK),
    Verdict.REASON_OUT_OF_DISTRIBUTION: (ASK,),
    # Nobody is watching any more.
    Verdict.REASON_DEACTIVATED: ("hold_still", ASK),
    Verdict.REASON_SHUT_DOWN: ("hold_still", ASK),
}


class Dispatcher:
    """Chooses recoveries; free of ROS, so that it can be tested and put elsewhere."""

    def __init__(self) -> None:
        self._tried: Counter[tuple[str, int]] = Counter()

    def next(self, verdict: Verdict) -> str | None:
        """The recovery to try now; None after SUCCESS."""
        if verdict.verdict == Verdict.SUCCESS:
            for key in [k for k in self._tried if k[0] == verdict.instruction]:
                del self._tried[key]
            return None
        key = (verdict.instruction, verdict.reason_code)
        recoveries = RECOVERIES.get(verdict.reason_code, (ASK,))
        recovery = recoveries[min(self._tried[key], len(recoveries) - 1)]
        self._tried[key] += 1
        return recovery


class RecoveryDispatch(Node):
    """Publishes a recovery for each verdict that is no success."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("recovery_dispatch", **kwargs)
        monitor = self.declare_parameter("monitor", "/monitor").value.rstrip("/")
        self._dispatcher = Dispatcher()
        self._recoveries = self.create_publisher(String, "~/recovery", 10)
        # ~/verdict and not ~/failure: an UNKNOWN needs an answer, too. Volatile, though the topic
        # is latched: after a restart nothing old is to be recovered from.
        self.create_subscription(
            Verdict, f"{monitor}/verdict", self.on_verdict, QoSProfile(depth=10)
        )

    def on_verdict(self, message: Verdict) -> None:
        """Every final verdict comes here once."""
        recovery = self._dispatcher.next(message)
        if recovery is not None:
            why = message.reason or "the robot failed"
            self.get_logger().info(f"{message.instruction!r}: {recovery} ({why})")
            self._recoveries.publish(String(data=recovery))


def main() -> int:
    """Run until interrupted."""
    rclpy.init(args=sys.argv)
    try:
        rclpy.spin(RecoveryDispatch())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
