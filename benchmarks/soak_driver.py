"""A robot for the soak: cameras, planner and listener in one node, and the monitor it talks to."""

from __future__ import annotations

import array
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from action_msgs.msg import GoalStatus, GoalStatusArray
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import String

from ifailsense_ros.action import CheckEpisode
from ifailsense_ros.core.verdict import Reason
from ifailsense_ros.msg import EpisodeEvent, FailureVerdict
from ifailsense_ros.ros import conversions

ROOT = Path(__file__).resolve().parents[1]
CAMERAS = ("exo", "gripper")
STEP_NS = 100_000_000
PATIENCE_S = 240.0
GOAL_ACTION = "arm/move"
_HEIGHT, _WIDTH = 24, 32


class SoakError(Exception):
    """Something that must hold did not."""


class MonitorProcess:
    """The monitor under test, as its own process.

    Args:
        namespace: of the node.
        detector: its parameter.
        log: file for its output.
    """

    def __init__(self, namespace: str, detector: str, log: Path) -> None:
        parameters = {
            "detector": detector,
            "end_grace": 0.5,
            "instruction_grace": 0.05,
            "camera_silent": 20.0,
            "detector_timeout": 5.0,
            "queue_size": 3,
            "goal_status_action": GOAL_ACTION,
        }
        for camera in CAMERAS:
            # Every message counts here: what DDS may lose is another benchmark's subject.
            prefix = f"qos_overrides./{namespace}/{camera}/image.subscription"
            parameters |= {f"{prefix}.reliability": "reliable", f"{prefix}.depth": 500}
        words = [w for name, value in parameters.items() for w in ("-p", f"{name}:={value}")]
        ros_arguments = ["--ros-args", "-r", f"__ns:=/{namespace}", *words]
        with log.open("a") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ifailsense_ros.ros.monitor", *ros_arguments],
                cwd=ROOT,
                stdout=out,
                stderr=out,
            )
        self._log = log

    def check(self) -> None:
        """Raise if it has ended."""
        if self._process.poll() is not None:
            raise SoakError(f"the monitor ended with {self._process.returncode}; see {self._log}")

    def rss_mb(self) -> float:
        """Resident memory of the node's process, MB."""
        return psutil.Process(self._process.pid).memory_info().rss / 2**20

    def kill_worker(self) -> None:
        """SIGKILL the detector's process, if there is one at this moment."""
        for child in psutil.Process(self._process.pid).children():
            child.kill()

    def interrupt(self) -> None:
        """SIGINT."""
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Its exit status."""
        return self._process.wait(60)

    def close(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class Driver:
    """Plays episodes to a monitor and keeps the books.

    Args:
        namespace: of the monitor.
        monitor: its process.
        judged_alike: whether SUCCESS and FAILURE can be told in advance (a double judges).
    """

    def __init__(self, namespace: str, monitor: MonitorProcess, judged_alike: bool) -> None:
        self.monitor = monitor
        self.stamp_ns = 1_700_000_000 * 10**9
        self.started = 0
        self.beats: list[float] = []
        self.values: dict[str, str] = {}
        self._judged_alike = judged_alike
        self._namespace = namespace
        self._expected: dict[uuid.UUID, tuple[set[Reason], int | None]] = {}
        self._got: dict[uuid.UUID, FailureVerdict] = {}
        self._surplus: list[str] = []
        self._node = node = Node("soak", namespace=namespace)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        latched = QoSProfile(depth=500, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._cameras = {c: node.create_publisher(Image, f"{c}/image", 500) for c in CAMERAS}
        self._instruction = node.create_publisher(String, "instruction", latched)
        self._episode = node.create_publisher(EpisodeEvent, "episode", 500)
        self._goals = node.create_publisher(
            GoalStatusArray, f"{GOAL_ACTION}/_action/status", latched
        )
        node.create_subscription(FailureVerdict, "monitor/verdict", self._on_verdict, latched)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        self._change_state = node.create_client(ChangeState, "monitor/change_state")
        self._set_parameters = node.create_client(SetParameters, "monitor/set_parameters")
        self._check = ActionClient(node, CheckEpisode, "monitor/check_episode")
        self.until(self._connected, "the monitor to be ready")
        self.spin(0.3)

    def close(self) -> None:
        """Leave."""
        self._executor.shutdown()
        self._node.destroy_node()

    # --- time -----------------------------------------------------------------------------------

    def spin(self, seconds: float) -> None:
        """Let messages flow."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def until(self, done: Callable[[], Any], what: str) -> Any:
        """Spin until something has come."""
        end = time.monotonic() + PATIENCE_S
        while not (value := done()):
            self.monitor.check()
            if time.monotonic() > end:
                raise SoakError(f"waited {PATIENCE_S:g} s for {what}")
            self._executor.spin_once(timeout_sec=0.02)
        return value

    def take_silences(self) -> list[float]:
        """Seconds between each two messages of /diagnostics since the last call."""
        silences = [b - a for a, b in pairwise(self.beats)]
        del self.beats[:-1]
        return silences

    # --- episodes -------------------------------------------------------------------------------

    def start(
        self, text: str, *reasons: Reason, verdict: int | None = None, by_goal: bool = False
    ) -> uuid.UUID:
        """START of an episode that must end with one of these reasons (NONE: is judged).

        Args:
            text: instruction; also "" for that of the topic.
            reasons: allowed.
            verdict: what it must say, if a double judges.
            by_goal: whether somebody else tells the monitor.
        """
        episode_id = uuid.uuid4()
        self.stamp_ns += 10**9  # no picture of the last episode in the pre-roll
        self.expect(episode_id, *reasons, verdict=verdict)
        if not by_goal:
            self.event(EpisodeEvent.START, episode_id, text)
        return episode_id

    def expect(self, episode_id: uuid.UUID, *reasons: Reason, verdict: int | None = None) -> None:
        """One verdict, and what it may say."""
        self.started += 1
        self._expected[episode_id] = (set(reasons), verdict)

    def event(self, kind: int, episode_id: uuid.UUID | None = None, text: str = "") -> None:
        """Publish an event, stamped with the next picture's time (END: with the last one's)."""
        message = EpisodeEvent(event=kind, instruction=text)
        stamp_ns = self.stamp_ns - (0 if kind == EpisodeEvent.START else STEP_NS)
        message.header.stamp = conversions.to_time(stamp_ns)
        if episode_id is not None:
            message.episode_id = conversions.to_uuid_message(episode_id)
        self._episode.publish(message)

    def film(
        self,
        count: int = 8,
        *,
        cameras: tuple[str, ...] = CAMERAS,
        brighter: bool = True,
        encoding: str = "rgb8",
        step_ns: int = STEP_NS,
    ) -> None:
        """Publish pictures whose brightness rises or falls."""
        for i in range(count):
            level = 10 + 200 * i // count
            for camera in cameras:
                self.picture(camera, level if brighter else 250 - level, encoding)
            self.stamp_ns += step_ns
            self._executor.spin_once(timeout_sec=0.001)

    def picture(self, camera: str, level: int, encoding: str = "rgb8") -> None:
        """Publish one picture, stamped now."""
        channels = 1 if encoding == "mono8" else 3
        message = Image(height=_HEIGHT, width=_WIDTH, encoding=encoding, step=_WIDTH * channels)
        message.data = array.array("B", bytes([level]) * (_HEIGHT * _WIDTH * channels))
        message.header.stamp = conversions.to_time(self.stamp_ns)
        self._cameras[camera].publish(message)

    def say(self, text: str) -> None:
        """Publish an instruction and give it time to arrive."""
        self._instruction.publish(String(data=text))
        self.spin(0.25)

    def goal(self, goal_id: uuid.UUID, status: int) -> None:
        """What the status topic of the robot's action says."""
        goal = GoalStatus(status=status)
        goal.goal_info.goal_id = conversions.to_uuid_message(goal_id)
        if status == GoalStatus.STATUS_EXECUTING:
            goal.goal_info.stamp = conversions.to_time(self.stamp_ns)
        self._goals.publish(GoalStatusArray(status_list=[goal]))

    def settle(self) -> None:
        """Wait for all verdicts, and check them."""
        self.until(lambda: len(self._got) >= len(self._expected), "a verdict")
        self.settle_now()

    def settle_now(self) -> None:
        """Check the verdicts: all must be there."""
        if missing := len(self._expected) - len(self._got):
            raise SoakError(f"{missing} verdicts are missing")
        if self._surplus:
            raise SoakError("; ".join(self._surplus))
        for episode_id, (reasons, verdict) in self._expected.items():
            message = self._got.pop(episode_id)
            reason = Reason(message.reason_code)
            told = f"{message.instruction!r}: {message.verdict} {reason.name} {message.reason}"
            if reason not in reasons:
                raise SoakError(f"expected {sorted(r.name for r in reasons)}, got {told}")
            if reason is Reason.NONE and self._judged_alike and message.verdict != verdict:
                raise SoakError(f"expected verdict {verdict}, got {told}")
        self._expected.clear()

    # --- services -------------------------------------------------------------------------------

    def transition(self, label: str) -> bool:
        """Ask for a transition."""
        number = getattr(Transition, f"TRANSITION_{label.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        future = self._change_state.call_async(request)
        return self.until(lambda: future.done() and future.result(), label).success

    def set_parameters(self, **values: Any) -> None:
        """Set parameters; all must be accepted."""
        messages = [Parameter(name, value=v).to_parameter_msg() for name, v in values.items()]
        future = self._set_parameters.call_async(SetParameters.Request(parameters=messages))
        answer = self.until(lambda: future.done() and future.result(), "set_parameters")
        for result in answer.results:
            if not result.successful:
                raise SoakError(f"{values} refused: {result.reason}")

    def ask(self, episode_id: uuid.UUID, end_condition: int, text: str = "") -> Any:
        """Send a goal to check_episode; returns the future of its result."""
        goal = CheckEpisode.Goal(end_condition=end_condition, instruction=text)
        goal.episode_id = conversions.to_uuid_message(episode_id)
        sent = self._check.send_goal_async(goal)
        handle = self.until(lambda: sent.done() and sent.result(), "an answer to a goal")
        if not handle.accepted:
            raise SoakError("a goal of check_episode was refused")
        return handle.get_result_async()

    # --- what comes back ------------------------------------------------------------------------

    def _connected(self) -> bool:
        publishers = [*self._cameras.values(), self._instruction, self._episode, self._goals]
        ready = self.values.get("lifecycle/state") == "active"
        return ready and all(p.get_subscription_count() for p in publishers)

    def _on_verdict(self, message: FailureVerdict) -> None:
        episode_id = uuid.UUID(bytes=bytes(message.episode_id.uuid))
        if episode_id not in self._expected or episode_id in self._got:
            self._surplus.append(f"a verdict too many: {episode_id} {message.reason}")
        self._got[episode_id] = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        ours = f"{self._namespace}/monitor: "
        statuses = [status for status in message.status if status.name.startswith(ours)]
        if statuses:
            # By the sender's clock: this node does not listen all the time.
            self.beats.append(conversions.to_ns(message.header.stamp) / 1e9)
        for status in statuses:
            part = status.name.removeprefix(ours)
            self.values |= {f"{part}/{pair.key}": pair.value for pair in status.values}


def environment() -> None:
    """A DDS domain of its own, on this machine only."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(int(time.time()) % 100 + 1))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
