#!/usr/bin/env python3
"""A planner that listens to the monitor, as a behaviour tree. An example to copy.

    ros2 launch ifailsense_ros closed_loop.launch.py       # it, a simulated robot, and the monitor

Somebody says on `request` what is wanted. The planner has the robot do it, and because a robot that
says "done" knows only that its motion has ended, it asks the monitor whether it worked:

    serve                     (again and again)
    |-- requested             wait for a request
    |-- until it is over      (a retry of)
    |   `-- attempt
    |       |-- execute       the robot's action; early warnings may give it up
    |       |-- judged        wait for the monitor's word on this very episode
    |       `-- decided       fails to try again, succeeds when it is over
    `-- reported              "done", or "ask for help"

What to do after which verdict is `Recovery`'s, the code that docs/closed_loop.md measures.
"""

from __future__ import annotations

import sys
import time

import py_trees
import rclpy
from action_msgs.msg import GoalStatus
from py_trees.common import Status
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from ifailsense_ros.action import ExecuteInstruction
from ifailsense_ros.closed_loop.recovery import Next, Recovery, Rules
from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.msg import FailureVerdict as Verdict

VOLATILE = QoSProfile(depth=10)  # though ~/verdict is latched: no old verdicts after a restart
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Planner(Node):
    """Everything that comes from outside: requests, verdicts, the robot's action.

    Parameters:
        monitor: full name of the monitor node.
        max_tries, give_up_below, give_up_after: see `Rules`.
        verdict_timeout: seconds to wait for a verdict; silence is no success.
    """

    def __init__(self, **settings: object) -> None:
        super().__init__("planner", **settings)
        monitor = self.declare_parameter("monitor", "/monitor").value.rstrip("/")
        self.timeout = self.declare_parameter("verdict_timeout", 90.0).value
        rules = {"max_tries": 3, "give_up_below": 0.0, "give_up_after": 2}
        self.rules = Rules(**{k: self.declare_parameter(k, v).value for k, v in rules.items()})
        self.request = ""  # what is wanted and not yet reported on
        self.goal_id = None  # of the attempt under way; the monitor's episode has the same
        self.verdicts: list[Verdict] = []
        self.warnings: list[Verdict] = []
        self.robot = ActionClient(self, ExecuteInstruction, "execute_instruction")
        self.reports = self.create_publisher(String, "report", 10)
        self.create_subscription(String, "request", self.on_request, LATCHED)
        self.topic, early = f"{monitor}/verdict", f"{monitor}/verdict/provisional"
        self.create_subscription(Verdict, self.topic, self.verdicts.append, VOLATILE)
        self.create_subscription(Verdict, early, self.warnings.append, VOLATILE)

    def on_request(self, message: String) -> None:
        """Somebody wants something."""
        self.request, self.recovery = message.data, Recovery(self.rules)

    def ready(self) -> bool:
        """Whether the robot is there, and somebody to judge what it does."""
        return self.robot.server_is_ready() and self.count_publishers(self.topic) > 0

    def of_this_attempt(self, heard: list[Verdict]) -> list[Verdict]:
        """Take what was heard; other episodes are none of our business."""
        taken, heard[:] = list(heard), []
        return [v for v in taken if v.episode_id == self.goal_id]


class Behaviour(py_trees.behaviour.Behaviour):
    """A leaf of the tree that knows the planner."""

    def __init__(self, planner: Planner) -> None:
        super().__init__(type(self).__name__.lower())
        self.planner = planner


class Requested(Behaviour):
    """Wait until something is wanted, and everybody is there who is needed for it."""

    def update(self) -> Status:
        waiting = not self.planner.request or not self.planner.ready()
        return Status.RUNNING if waiting else Status.SUCCESS


class Execute(Behaviour):
    """Have the robot do it; succeeds when its action has ended, whichever way."""

    def initialise(self) -> None:
        planner = self.planner
        planner.done = planner.given_up = False
        planner.goal_id = self.handle = self.result = None
        goal = ExecuteInstruction.Goal(instruction=planner.request, seed=planner.recovery.seed)
        self.sending = planner.robot.send_goal_async(goal)

    def update(self) -> Status:
        planner = self.planner
        if self.handle is None:
            if not self.sending.done():
                return Status.RUNNING
            self.handle = self.sending.result()
            if not self.handle.accepted:  # it never began: "could not", to be decided below
                return Status.SUCCESS
            planner.goal_id = self.handle.goal_id
            self.result = self.handle.get_result_async()
        for warning in planner.of_this_attempt(planner.warnings):
            if planner.recovery.warned(warning.p_success) and not planner.given_up:
                planner.given_up = True
                self.handle.cancel_goal_async()
        if not self.result.done():
            return Status.RUNNING
        ended = self.result.result()
        planner.done = ended.status == GoalStatus.STATUS_SUCCEEDED and ended.result.done
        planner.given_up = planner.given_up and not planner.done  # it was faster than we were
        return Status.SUCCESS


class Judged(Behaviour):
    """Wait for the verdict on what the robot says it has done; there is none on what it has not."""

    def initialise(self) -> None:
        self.deadline = time.monotonic() + self.planner.timeout
        self.planner.outcome = None

    def update(self) -> Status:
        planner = self.planner
        if not planner.done:
            return Status.SUCCESS
        for verdict in planner.of_this_attempt(planner.verdicts):
            planner.outcome = Outcome(verdict.verdict)
        if planner.outcome is None and time.monotonic() > self.deadline:
            planner.outcome = Outcome.UNKNOWN
        return Status.RUNNING if planner.outcome is None else Status.SUCCESS


class Decided(Behaviour):
    """What now? Failing makes the retry above try again."""

    def update(self) -> Status:
        planner = self.planner
        choice = planner.recovery.after(planner.done, planner.outcome, given_up=planner.given_up)
        said = planner.outcome.name if planner.outcome is not None else "not done"
        planner.get_logger().info(f"{planner.request!r}: {said}: {choice.value}")
        planner.choice = choice
        return Status.SUCCESS if choice in (Next.DONE, Next.HELP) else Status.FAILURE


class Reported(Behaviour):
    """Tell whoever asked."""

    def update(self) -> Status:
        self.planner.request = ""
        self.planner.reports.publish(String(data=self.planner.choice.value))
        return Status.SUCCESS


def serve(planner: Planner) -> py_trees.behaviour.Behaviour:
    """The tree."""
    leaves = [Execute(planner), Judged(planner), Decided(planner)]
    attempt = py_trees.composites.Sequence("attempt", memory=True, children=leaves)
    until_over = py_trees.decorators.Retry("until it is over", attempt, planner.rules.max_tries)
    steps = [Requested(planner), until_over, Reported(planner)]
    return py_trees.composites.Sequence("serve", memory=True, children=steps)


def main() -> int:
    """Ticked at 20 Hz until interrupted."""
    rclpy.init(args=sys.argv)
    try:
        planner = Planner()
        tree = py_trees.trees.BehaviourTree(serve(planner))
        planner.create_timer(0.05, tree.tick)
        rclpy.spin(planner)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
