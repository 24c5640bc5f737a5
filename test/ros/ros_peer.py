"""Processes and nodes for the tests of the ROS part; `conftest.py` has the fixtures."""

from __future__ import annotations

import array
import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

MS = 1_000_000
S = 1000 * MS

# A test that is not about lost pictures must not lose any, however busy the machine is.
LOSSLESS = tuple(
    f"qos_overrides./{camera}/image.subscription.{policy}"
    for camera in ("exo", "gripper")
    for policy in ("reliability:=reliable", "depth:=200")
)


def child_environment(**extra: str) -> dict[str, str]:
    """For processes that import from the tree and this folder."""
    path = [str(ROOT), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **extra}


class MonitorProcess:
    """The monitor (or another node of ours) as its own OS process."""

    def __init__(
        self, log: Path, *parameters: str, module: str = "ifailsense_ros.ros.monitor"
    ) -> None:
        words = [w for p in parameters for w in ("-r" if p.startswith("__") else "-p", p)]
        command = [sys.executable, "-m", module, "--ros-args", *words]
        self._log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(
                command, env=child_environment(), cwd=ROOT, stdout=out, stderr=out
            )

    @property
    def output(self) -> str:
        """What it and its worker have printed so far."""
        return self._log.read_text()

    def worker_pids(self) -> list[int]:
        """Its children: the worker, if there is one."""
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(word) for word in text.split()]

    def wait(self, timeout_s: float = 15.0) -> int:
        """Exit status."""
        return self.process.wait(timeout_s)

    def close(self) -> None:
        """End it: politely first, for a killed participant leaves its shared memory behind, and
        has been seen to take a peer down with it.
        """
        with contextlib.suppress(ProcessLookupError):
            workers = self.worker_pids() if self.process.poll() is None else []
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
                return
            for pid in workers:
                os.kill(pid, 9)
        self.process.kill()
        self.process.wait(10)


class Peer:
    """A node of the test: cameras, planner and listener at once."""

    def __init__(self, context, *, compressed: bool = False, prefix: str = "") -> None:
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import CompressedImage, Image
        from std_msgs.msg import String

        from ifailsense_ros.msg import EpisodeEvent, FailureVerdict

        self.node = Node("peer", context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self.verdicts: list[FailureVerdict] = []
        self.failures: list[FailureVerdict] = []
        self.warnings: list[FailureVerdict] = []
        self.events: list[EpisodeEvent] = []
        self.montages: list[Image] = []
        # Empty until the first is heard.
        self.status: defaultdict[str, DiagnosticStatus] = defaultdict(DiagnosticStatus)
        self.beats: list[float] = []
        """Times at which diagnostics came, by the clock of the test."""
        self._monitor = f"{prefix}/monitor"
        self.stamp_ns = 1_700_000_000 * S
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node, picture = self.node, CompressedImage if compressed else Image
        suffix = "/compressed" if compressed else ""
        self._cameras = {
            camera: node.create_publisher(picture, f"{prefix}/{camera}/image{suffix}", 50)
            for camera in ("exo", "gripper")
        }
        self._instruction = node.create_publisher(String, f"{prefix}/instruction", latched)
        self._episode = node.create_publisher(EpisodeEvent, f"{prefix}/episode", 100)
        for kind, topic, qos, sink in (
            (FailureVerdict, "verdict", latched, self.verdicts),
            (FailureVerdict, "failure", 100, self.failures),
            (FailureVerdict, "verdict/provisional", 100, self.warnings),
            (EpisodeEvent, "episode_events", 100, self.events),
            (Image, "montage", 10, self.montages),
        ):
            node.create_subscription(kind, f"{self._monitor}/{topic}", sink.append, qos)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_status, 10)

    def _on_status(self, message) -> None:
        self.beats.append(time.monotonic())
        for status in message.status:
            self.status[status.name] = status

    def values(self, name: str) -> dict[str, str]:
        """The newest diagnostics of one part of the monitor."""
        status = self.status.get(f"{self._monitor[1:]}: {name}")
        return {v.key: v.value for v in status.values} if status else {}

    def spin(self, seconds: float) -> None:
        """Let messages flow."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, 0.02))

    def until(self, done, timeout_s: float = 20.0, monitor: MonitorProcess | None = None):
        """Spin until `done()` is true; returns its value."""
        end = time.monotonic() + timeout_s
        while not (value := done()):
            shown = monitor.output if monitor else ""
            assert time.monotonic() < end, f"waited {timeout_s} s in vain\n{shown}"
            self.spin(0.02)
        return value

    def connect(self, monitor: MonitorProcess, cameras: int = 2) -> None:
        """Wait until the monitor has subscribed and is heard."""

        def connected():
            assert monitor.process.poll() is None, monitor.output
            publishers = [*list(self._cameras.values())[:cameras], self._instruction, self._episode]
            return (
                all(p.get_subscription_count() for p in publishers)
                and self.values("detector").get("detector state") == "ready"
                and self.node.count_publishers(f"{self._monitor}/verdict")
            )

        self.until(connected, 30.0, monitor)
        self.spin(0.2)

    def call(self, kind, name: str, request, timeout_s: float = 30.0):
        """Call a service of the monitor; returns its response."""
        client = self.node.create_client(kind, f"{self._monitor}/{name}")
        try:
            self.until(client.service_is_ready, timeout_s)
            future = client.call_async(request)
            self.until(future.done, timeout_s)
            return future.result()
        finally:
            self.node.destroy_client(client)

    def life(self) -> str:
        """The state that the monitor's get_state service tells."""
        from lifecycle_msgs.srv import GetState

        return self.call(GetState, "get_state", GetState.Request()).current_state.label

    def transition(self, label: str, timeout_s: float = 30.0) -> bool:
        """Ask the monitor for a transition, as a lifecycle manager does; whether it succeeded."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        # By number: a label that is not allowed now is answered by rclpy itself.
        number = getattr(Transition, f"TRANSITION_{label.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        return self.call(ChangeState, "change_state", request, timeout_s).success

    def set_parameter(self, name: str, value) -> str:
        """Set a parameter of the monitor; returns why it was refused, or nothing."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        (result,) = self.call(SetParameters, "set_parameters", request).results
        return "" if result.successful else result.reason

    def say(self, text: str) -> None:
        """Publish an instruction."""
        from std_msgs.msg import String

        self._instruction.publish(String(data=text))
        self.spin(0.1)

    def event(self, kind: int, episode_id: uuid.UUID | None = None, instruction: str = "") -> None:
        """Publish START (1), END (2) or ABORT (3), stamped now."""
        from ifailsense_ros.msg import EpisodeEvent
        from ifailsense_ros.ros import conversions

        message = EpisodeEvent(event=kind, instruction=instruction)
        message.header.stamp = conversions.to_time(self.stamp_ns)
        if episode_id is not None:
            message.episode_id = conversions.to_uuid_message(episode_id)
        self._episode.publish(message)
        self.spin(0.05)

    def film(
        self,
        count: int = 12,
        *,
        cameras=("exo", "gripper"),
        brighter: bool = True,
        make=None,
        step_ms: int = 100,
        pause_s: float = 0.03,
    ) -> None:
        """Publish pictures whose brightness rises (or falls)."""
        for i in range(count):
            level = 10 + 200 * i // count
            for camera in cameras:
                message = (make or make_image)(level if brighter else 250 - level)
                message.header.frame_id = f"{camera}_optical"
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(self.stamp_ns, S)
                self._cameras[camera].publish(message)
            self.stamp_ns += step_ms * MS
            self.spin(pause_s)

    def episode(self, instruction: str = "brighten it", *, start=None, **film) -> None:
        """A whole episode."""
        self.event(1, start, instruction)
        self.film(**film)
        self.event(2, start)

    def next_verdict(self, monitor: MonitorProcess, timeout_s: float = 20.0):
        """Wait for one more verdict than was taken so far."""
        self._taken = getattr(self, "_taken", 0) + 1
        self.until(lambda: len(self.verdicts) >= self._taken, timeout_s, monitor)
        return self.verdicts[self._taken - 1]

    def close(self) -> None:
        """Leave the domain."""
        self._executor.shutdown()
        self.node.destroy_node()


def make_image(level: int, **fields):
    """A raw picture of one grey level; `fields` overrides what is wrong with it."""
    from sensor_msgs.msg import Image

    settings = {"height": 24, "width": 32, "encoding": "rgb8", "step": 96, **fields}
    message = Image(**settings)
    message.data = array.array("B", bytes([level]) * (settings["step"] * settings["height"]))
    return message
