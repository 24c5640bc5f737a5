#!/usr/bin/env python3
"""A py_trees decorator that goes on only if the monitor saw the robot succeed. An example to copy.

    python examples/behaviour_tree.py --ros-args -p instruction:="lift the red block"

`Checked(name, child, instruction)` makes one episode of its child, any behaviour of yours: START
before the child's first tick, END when it succeeds, ABORT when it fails or is interrupted. Then it
waits for the verdict of this very episode, and succeeds on SUCCESS only. FAILURE fails it, and so
does UNKNOWN: that is "not known to have succeeded". The verdict is on the blackboard under
`verdict`, for a recovery that branches on its reason_code.

Set-up is that of py_trees_ros: the node comes by `setup(node=...)`, so this works in a
`py_trees_ros.trees.BehaviourTree` as it is.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator

import py_trees
import rclpy
from py_trees.common import Access, Status
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from unique_identifier_msgs.msg import UUID

from ifailsense_ros.msg import EpisodeEvent
from ifailsense_ros.msg import FailureVerdict as Verdict


class Checked(py_trees.decorators.Decorator):
    """The child, as an episode that the monitor must have seen succeed.

    Args:
        child: moves the robot.
        instruction: what it is to do, in words.
        monitor: full name of the monitor node.
        events: topic on which the monitor listens for START, END and ABORT.
        timeout: seconds to wait for a verdict; silence is no success either.
    """

    def __init__(
        self,
        name: str,
        child: py_trees.behaviour.Behaviour,
        instruction: str,
        monitor: str = "/monitor",
        events: str = "episode",
        timeout: float = 90.0,
    ) -> None:
        super().__init__(name, child)
        self._instruction, self._events, self._timeout = instruction, events, timeout
        self._topic = f"{monitor}/verdict"
        self._phase, self._id, self._verdict = "idle", UUID(), None
        self._board = self.attach_blackboard_client()
        self._board.register_key("verdict", access=Access.WRITE)

    def setup(self, *, node: Node, **kwargs: object) -> None:
        """See py_trees: before the first tick, with the node that talks to the monitor."""
        self._node = node
        volatile = QoSProfile(depth=10)  # though the topic is latched: no old verdicts
        self._publisher = node.create_publisher(EpisodeEvent, self._events, volatile)
        node.create_subscription(Verdict, self._topic, self._on_verdict, volatile)

    def initialise(self) -> None:
        """A new attempt."""
        self._phase = "waiting for the monitor"

    def tick(self) -> Iterator[py_trees.behaviour.Behaviour]:
        """As any decorator's, but a child that is done is not started again while we wait."""
        if self.status != Status.RUNNING:
            self.initialise()
        if self._phase == "waiting for the monitor" and self._monitored():
            self._id, self._verdict = UUID(uuid=list(uuid.uuid4().bytes)), None
            self._send(EpisodeEvent.START, "acting")
        if self._phase == "acting":
            yield from self.decorated.tick()
        status = self.update()
        if status != Status.RUNNING:
            self.stop(status)
        self.status = status
        yield self

    def update(self) -> Status:
        """Where the episode stands."""
        self.feedback_message = self._phase
        if self._phase == "acting" and self.decorated.status == Status.FAILURE:
            self._send(EpisodeEvent.ABORT, "given up")
            return Status.FAILURE
        if self._phase == "acting" and self.decorated.status == Status.SUCCESS:
            self._send(EpisodeEvent.END, "waiting for the verdict")
            self._deadline = time.monotonic() + self._timeout
        if self._phase != "waiting for the verdict":
            return Status.RUNNING
        self._board.verdict = verdict = self._verdict
        if verdict is None:
            return Status.FAILURE if time.monotonic() > self._deadline else Status.RUNNING
        self.feedback_message = verdict.reason or f"p_success {verdict.p_success:.2f}"
        return Status.SUCCESS if verdict.verdict == Verdict.SUCCESS else Status.FAILURE

    def terminate(self, new_status: Status) -> None:
        """Something more important interrupts us: the episode is over, too."""
        if new_status == Status.INVALID and self._phase == "acting":
            self._send(EpisodeEvent.ABORT, "interrupted")

    def _monitored(self) -> bool:
        """Whether somebody hears START and will answer."""
        heard = self._publisher.get_subscription_count() > 0
        return heard and self._node.count_publishers(self._topic) > 0

    def _send(self, event: int, phase: str) -> None:
        # Without a stamp: the monitor takes the newest picture's, whatever clock cameras go by.
        self._phase = phase
        self._publisher.publish(
            EpisodeEvent(episode_id=self._id, event=event, instruction=self._instruction)
        )

    def _on_verdict(self, message: Verdict) -> None:
        if message.episode_id == self._id:  # other people's episodes are none of our business
            self._verdict = message


def main() -> int:
    """Three seconds of nothing as the action, ticked at 10 Hz until there is an answer."""
    # Without rclpy's signal handlers: they would end the context before ABORT is out.
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    node = Node("planner")
    instruction = node.declare_parameter("instruction", "lift the red block").value
    root = Checked("checked", py_trees.timers.Timer("action", duration=3.0), instruction)
    tree = py_trees.trees.BehaviourTree(root)
    tree.setup(node=node)
    node.create_timer(0.1, tree.tick)
    try:
        while root.status in (Status.INVALID, Status.RUNNING):
            rclpy.spin_once(node)
        print(f"{root.status.name}: {root.feedback_message}", flush=True)
    except KeyboardInterrupt:
        root.stop(Status.INVALID)
    finally:
        rclpy.shutdown()
    return int(root.status != Status.SUCCESS)


if __name__ == "__main__":
    sys.exit(main())
