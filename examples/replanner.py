#!/usr/bin/env python3
"""What a planner does with the monitor's verdicts. An example to copy; it moves nothing.

    python examples/replanner.py --ros-args -p monitor:=/monitor

It prints one line per verdict: what a planner of yours would do next.

Two topics of the monitor matter to a planner:

- `~/failure` carries failures only and is volatile: whoever starts late gets none of the old ones.
  Act on it without asking what kind of verdict it is. That is what Nav2-style recoveries want.
- `~/verdict` carries every final verdict, exactly one per started episode: what a behaviour tree
  waits for before it goes on. It is latched (transient_local) for people and tools that look
  later; a planner that acts subscribes VOLATILE, or it would act on an old verdict after a restart.
"""

from __future__ import annotations

import sys
import uuid

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from ifailsense_ros.msg import FailureVerdict as Verdict

# What to do about an UNKNOWN depends on whose fault it is. Branch on `reason_code`; `reason` is a
# line for people and may change. UNKNOWN is never a success: the robot may or may not have done it.
SENSORS = {
    Verdict.REASON_CAMERA_ABSENT,
    Verdict.REASON_CAMERA_STALE,
    Verdict.REASON_BAD_IMAGE,
    Verdict.REASON_CLOCK_JUMPED,
}
CALLER = {
    Verdict.REASON_NO_INSTRUCTION,
    Verdict.REASON_INSTRUCTION_CHANGED,
    Verdict.REASON_TOO_FEW_KEYFRAMES,
    Verdict.REASON_SUPERSEDED,
}
MONITOR = {
    Verdict.REASON_QUEUE_FULL,
    Verdict.REASON_DETECTOR_ERROR,
    Verdict.REASON_DETECTOR_OUT_OF_MEMORY,
    Verdict.REASON_DETECTOR_TIMEOUT,
    Verdict.REASON_DEACTIVATED,
    Verdict.REASON_SHUT_DOWN,
}
UNDECIDED = {
    Verdict.REASON_VLM_ABSTAINED,
    Verdict.REASON_LOW_CONFIDENCE,
    Verdict.REASON_OUT_OF_DISTRIBUTION,
}

VOLATILE = QoSProfile(
    depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE
)


class Replanner(Node):
    """Listens to one monitor and says what it would do.

    Parameters:
        monitor: full name of the monitor node; its private topics live under it.
        max_retries: failures of one instruction in a row before a person is asked.
    """

    def __init__(self) -> None:
        super().__init__("replanner")
        monitor = self.declare_parameter("monitor", "/monitor").value.rstrip("/")
        self._max_retries = self.declare_parameter("max_retries", 2).value
        self._failures: dict[str, int] = {}
        self.create_subscription(Verdict, f"{monitor}/failure", self.on_failure, VOLATILE)
        self.create_subscription(Verdict, f"{monitor}/verdict", self.on_verdict, VOLATILE)

    def on_failure(self, msg: Verdict) -> None:
        """A failure: plan again, or ask for help when that did not work before."""
        count = self._failures[msg.instruction] = self._failures.get(msg.instruction, 0) + 1
        if count > self._max_retries:
            self.do(msg, f"failed {count} times: stop and ask a person for help")
            return
        # The scene is not what the plan assumed, so look before acting: find the objects that the
        # instruction names again, then plan from here instead of repeating the old motion.
        self.do(msg, f"re-ground {msg.instruction!r} in the scene, replan, retry ({count})")

    def on_verdict(self, msg: Verdict) -> None:
        """Everything else; failures have come on their own topic."""
        if msg.verdict == Verdict.FAILURE:
            return
        if msg.verdict == Verdict.SUCCESS:
            self._failures.pop(msg.instruction, None)
            self.do(msg, "done, go on with the next step")
        elif msg.reason_code == Verdict.REASON_ABORTED:
            self.do(msg, "aborted by us, nothing to do")
        elif msg.reason_code in SENSORS:
            self.do(msg, f"hold still and have the cameras checked: {msg.reason}")
        elif msg.reason_code in CALLER:
            self.do(
                msg, f"run the check again with proper START, END and instruction: {msg.reason}"
            )
        elif msg.reason_code in MONITOR:
            self.do(msg, f"go on without the monitor only if that is safe: {msg.reason}")
        elif msg.reason_code in UNDECIDED:
            self.do(msg, f"look from another side or ask a person: {msg.reason}")
        else:  # a reason of a newer monitor: the safe thing to do
            self.do(msg, f"ask a person for help: {msg.reason}")

    def do(self, msg: Verdict, action: str) -> None:
        """Here a real planner would send a goal, tick its tree, or call a person."""
        episode = uuid.UUID(bytes=bytes(bytearray(msg.episode_id.uuid)))
        print(f"[{str(episode)[:8]}] {action}", flush=True)


def main() -> int:
    """Run until interrupted."""
    rclpy.init(args=sys.argv)
    try:
        rclpy.spin(Replanner())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
