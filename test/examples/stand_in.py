"""The examples as modules, and a stand-in for the monitor."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def load_example(name: str) -> ModuleType:
    """An example, imported from its file."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / f"examples/{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class FakeMonitor:
    """Hears START, END and ABORT, and says what it is told to say.

    Attributes:
        events: (event, episode id) pairs heard.
        answer: called at END with the episode's id; None: it keeps silent.
    """

    def __init__(self, node) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile

        from ifailsense_ros.msg import EpisodeEvent, FailureVerdict

        self.events: list[tuple[int, bytes]] = []
        self.instructions: list[str] = []
        self.answer = None
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._verdicts = node.create_publisher(FailureVerdict, "/monitor/verdict", latched)
        node.create_subscription(EpisodeEvent, "episode", self._on_event, 100)

    def _on_event(self, message) -> None:
        self.events.append((message.event, bytes(message.episode_id.uuid)))
        self.instructions.append(message.instruction)
        if message.event == message.END and self.answer is not None:
            self.answer(message.episode_id)

    def say(self, episode_id, verdict: int, reason_code: int = 0, instruction: str = "") -> None:
        """Publish a verdict."""
        from ifailsense_ros.msg import FailureVerdict

        self._verdicts.publish(
            FailureVerdict(
                episode_id=episode_id,
                verdict=verdict,
                reason_code=reason_code,
                reason="told so" if reason_code else "",
                instruction=instruction,
            )
        )


class World:
    """Two nodes that talk over DDS, the example's and the monitor's, spun by hand."""

    def __init__(self, context) -> None:
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node

        self.context = context
        self.executor = SingleThreadedExecutor(context=context)
        self.node = Node("planner", context=context)
        self.monitor_node = Node("monitor", context=context)
        self.executor.add_node(self.node)
        self.executor.add_node(self.monitor_node)

    def until(self, done, timeout_s: float = 30.0) -> None:
        """Spin until `done()` is true."""
        end = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < end, "waited in vain"
            self.executor.spin_once(timeout_sec=0.02)
