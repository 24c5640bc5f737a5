"""The node of the simulated robot, and of the person who asks it (see `sim_robot`)."""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from ifailsense_ros.action import ExecuteInstruction
from ifailsense_ros.closed_loop.scenes import SAMPLE_NS, Stage, key_of, setup_of
from ifailsense_ros.closed_loop.settings import load_settings
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.msg import EpisodeEvent
from ifailsense_ros.ros import conversions, process
from ifailsense_ros.sim.policy import task_of
from ifailsense_ros.sim.render import encode_jpeg
from ifailsense_ros.sim.robot import SAMPLE_S
from ifailsense_ros.sim.rollout import SPLITS

_TOPICS = {"exo": "exo/image/compressed", "wrist": "gripper/image/compressed"}
_BETWEEN_NS = 1_000_000_000
"""From the way home to an attempt, in the pictures' time: longer than a monitor's pre-roll."""
_PATIENCE_S = 2.0


class SimRobot(Node):
    """What `sim_robot` says.

    Args:
        stop: asked for when the tasks are done.
        settings: of `Node`.

    Parameters:
        split, seed, first, count: the tasks; count 0: no end.
        rate: times as fast as real, where the machine can.
        settings: of the experiment; empty: the package's.
    """

    def __init__(self, stop: process.Stop, **settings: Any) -> None:
        super().__init__("robot", **settings)
        self._stop = stop
        self._split = self.declare_parameter("split", "dev").value
        self._seed = self.declare_parameter("seed", 0).value
        self._first = self._index = self.declare_parameter("first", 0).value
        self._count = self.declare_parameter("count", 0).value
        self._rate = self.declare_parameter("rate", 1.0).value
        experiment = load_settings(self.declare_parameter("settings", "").value or None)
        if self._split not in SPLITS or min(self._seed, self._first, self._count) < 0:
            raise ConfigError(
                f"split must be one of {', '.join(SPLITS)}; seed, first and count not negative"
            )
        if not self._rate > 0:
            raise ConfigError(f"rate is {self._rate}, must be greater than 0")
        self._look = experiment.tasks.look
        self._stage = Stage(experiment, pictures=True)
        self._now_ns = self.get_clock().now().nanoseconds
        self._goal: ServerGoalHandle | None = None
        self._motion: Iterator[tuple[str, np.ndarray]] = iter(())
        self._attempts: list[Any] = []
        self._reported = ""

        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._cameras = [
            self.create_publisher(CompressedImage, topic, 50) for topic in _TOPICS.values()
        ]
        self._instruction = self.create_publisher(String, "instruction", latched)
        self._episode = self.create_publisher(EpisodeEvent, "episode", 100)
        self._request = self.create_publisher(String, "request", latched)
        self.create_subscription(String, "report", self._on_report, 10)
        self._server = ActionServer(
            self,
            ExecuteInstruction,
            "execute_instruction",
            execute_callback=lambda handle: ExecuteInstruction.Result(),
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
        )
        self.create_timer(SAMPLE_S / self._rate, self._go_on)
        self._ask()

    # --- the person -------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Lay out the next scene and say what is wanted."""
        self._setup = setup_of(self._split, self._seed, self._index, self._look)
        self._stage.robot.lay_out(self._setup, key_of(self._setup))
        self._attempts = []
        self._now_ns += _BETWEEN_NS
        self._film(self._stage.world.states[-1])
        self._request.publish(String(data=self._setup.instruction))

    def _on_report(self, message: String) -> None:
        """The planner has done what it could."""
        if self._goal is None:
            self._reported = message.data

    def _close(self) -> None:
        """Say how the task really stands, and go on to the next."""
        last = self._attempts[-1] if self._attempts else None
        wanted = self._setup.task  # whatever the goals said
        task = {
            "index": self._index,
            "instruction": self._setup.instruction,
            "tries": len(self._attempts),
            "kinds": [attempt.kind for attempt in self._attempts],
            "done": [attempt.done for attempt in self._attempts],
            "success": last is not None and self._stage.robot.succeeded(wanted, last.states),
            "report": self._reported,
        }
        print(json.dumps(task), flush=True)
        self._reported = ""
        self._index += 1
        if self._count and self._index >= self._first + self._count:
            self._stop.requested = True
            return
        self._ask()

    # --- the robot --------------------------------------------------------------------------------

    def _on_goal(self, goal: ExecuteInstruction.Goal) -> GoalResponse:
        try:
            task_of(goal.instruction)
        except KeyError:
            self.get_logger().warning(f"goal refused: cannot do {goal.instruction!r}")
            return GoalResponse.REJECT
        if self._goal is not None or self._reported:
            self.get_logger().warning("goal refused: busy with another one")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        self._goal = handle
        self._motion = self._course(handle.request)
        self._samples, self._begun = 0, False
        self._patient_until = time.monotonic() + _PATIENCE_S

    def _course(self, goal: ExecuteInstruction.Goal) -> Iterator[tuple[str, np.ndarray]]:
        """The way home, then the attempt, sample by sample."""
        robot = self._stage.robot
        for sample in robot.go_home():
            yield "home", sample
        self._begun = True
        for sample in robot.attempt(task_of(goal.instruction), goal.seed):
            yield "attempt", sample

    def work(self) -> None:
        """Between two turns of the executor: goals that are given up, the next task."""
        if self._goal is not None and self._goal.is_cancel_requested:
            self._end(EpisodeEvent.ABORT)
        elif self._goal is None and self._reported:
            self._close()

    def _go_on(self) -> None:
        """One sample more of the motion, if there is one under way."""
        if self._goal is None or self._goal.is_cancel_requested:
            return
        # A monitor that has just come up may not have found us yet, and would miss START.
        unwatched = self._episode.get_subscription_count() == 0
        if unwatched and time.monotonic() < self._patient_until:
            return
        step = next(self._motion, None)
        if step is None:
            self._end(EpisodeEvent.END)
        else:
            self._show(*step)

    def _show(self, phase: str, sample: np.ndarray) -> None:
        if phase == "attempt":
            if self._samples == 0:
                self._now_ns += _BETWEEN_NS
                self._instruction.publish(String(data=self._goal.request.instruction))
                self._mark(EpisodeEvent.START, self._now_ns + SAMPLE_NS)
            self._samples += 1
        self._film(sample)
        elapsed = conversions.to_duration(max(self._samples - 1, 0) * SAMPLE_NS)
        self._goal.publish_feedback(ExecuteInstruction.Feedback(elapsed=elapsed))

    def _film(self, sample: np.ndarray) -> None:
        """Both cameras' pictures of a state."""
        self._now_ns += SAMPLE_NS
        rows = self._stage.camera.pictures([sample])
        for publisher, name, row in zip(self._cameras, _TOPICS, rows, strict=True):
            message = CompressedImage(format="jpeg", data=array("B", encode_jpeg(row[0])))
            message.header.stamp = conversions.to_time(self._now_ns)
            message.header.frame_id = f"{name}_camera_optical_frame"
            publisher.publish(message)

    def _mark(self, event: int, stamp_ns: int) -> None:
        message = EpisodeEvent(event=event, instruction=self._goal.request.instruction)
        message.header.stamp = conversions.to_time(stamp_ns)
        message.episode_id = self._goal.goal_id
        self._episode.publish(message)

    def _end(self, event: int) -> None:
        """The motion is over, or given up: the robot says what it knows of that."""
        self._motion.close()
        if self._samples:
            self._mark(event, self._now_ns)
        result = ExecuteInstruction.Result(done=False, reason="given up on the way home")
        if self._begun:
            attempt = self._stage.robot.result()
            self._attempts.append(attempt)
            why = "given up" if self._samples else "I know no way to do that from here"
            result = ExecuteInstruction.Result(
                done=attempt.done, reason="" if attempt.done else why
            )
        handle, self._goal = self._goal, None
        _finish(handle, result)

    def settle(self) -> None:
        """Nobody is left waiting when the process ends."""
        if self._goal is not None:
            self._end(EpisodeEvent.ABORT)


def _finish(handle: ServerGoalHandle, result: ExecuteInstruction.Result) -> None:
    """The goal's result; a task of the executor sends it."""

    def send(handle: ServerGoalHandle) -> ExecuteInstruction.Result:
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.done:
            handle.succeed()
        else:
            handle.abort()
        return result

    handle.execute(send)
