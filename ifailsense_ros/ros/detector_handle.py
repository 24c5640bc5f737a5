"""Which detector a monitor uses: of its own, in a process or a thread, or one that many share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node

from ifailsense_ros.model.handle import DetectorHandle, InProcessDetector
from ifailsense_ros.model.worker import DetectorWorker
from ifailsense_ros.ros import parameters
from ifailsense_ros.ros.remote_detector import RemoteDetector

SERVICE = "service:"
"""Before the name of a shared detector in the parameter `detector`."""


def make_handle(
    node: Node, values: Mapping[str, Any], on_event: Callable[[], None]
) -> DetectorHandle:
    """The detector that the parameters name; to be started.

    Args:
        node: of the monitor.
        values: of its parameters.
        on_event: called from a thread whenever `poll` has something; must only wake somebody.

    Raises:
        ConfigError: the name of the service is none, or something is asked for that the detector
            cannot promise.
        CheckpointError: there is no such checkpoint, or its settings are wrong.
    """
    start_timeout_s = values["detector_start_timeout"]
    if values["detector"].startswith(SERVICE):
        parameters.check_shared(values)
        name = values["detector"].removeprefix(SERVICE)
        return RemoteDetector(node, name, start_timeout_s, on_event)
    parameters.check_detector(values)
    spec = parameters.detector_spec(values)
    if values["in_process"]:
        return InProcessDetector(spec, on_event)
    return DetectorWorker(spec, start_timeout_s, on_event)
