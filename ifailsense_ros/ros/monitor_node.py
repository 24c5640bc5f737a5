"""The monitor node: feeds the tracker from topics and performs its effects.

Callbacks convert, stamp and enqueue; `work`, called by whoever spins the node, is the only owner
of the tracker. The detector runs elsewhere (model/worker.py) and is only polled.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.effects import (
    SECOND,
    Abandon,
    Boundary,
    ClockJumped,
    Effect,
    Judge,
    Publish,
    TrackerConfig,
)
from ifailsense_ros.core.episode import POV_NAMES
from ifailsense_ros.core.errors import ImageError
from ifailsense_ros.core.montage import MontageGeometry, fit_cell
from ifailsense_ros.core.pairing import Pair
from ifailsense_ros.core.tracker import Tracker
from ifailsense_ros.model.handle import (
    Answer,
    DetectorHandle,
    Died,
    InProcessDetector,
    LoadFailed,
    Ready,
    WorkerEvent,
)
from ifailsense_ros.model.worker import DetectorWorker
from ifailsense_ros.msg import EpisodeEvent
from ifailsense_ros.ros import conversions, diagnostics, parameters
from ifailsense_ros.ros.image_source import Synchronizer, make_decoder, make_synchronizer
from ifailsense_ros.ros.outputs import Outputs

NAME = "monitor"

# Deep enough for a planner that sends many events at once.
EVENT_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)

_TICK_S = 0.05
_JUMP_BACK = Duration(seconds=-1)


class MonitorNode(Node):
    """See docs/interfaces.md for topics and parameters.

    The topics are subscribed when the detector is loaded: only then T, N and the cell size are
    known. Until then /diagnostics says `detector state: loading`.

    Args:
        kwargs: for `rclpy.node.Node`.

    Raises:
        ConfigError: a parameter is wrong.
        CheckpointError: there is no such checkpoint.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(NAME, **kwargs)
        self.load_error = ""
        """Why the detector could not be loaded; the node is of no use then."""
        self._values = values = parameters.declare(self)
        parameters.check_detector(values)
        compressed = values["image_transport"] == "compressed"
        self._decode = make_decoder(values["image_decoder"], compressed=compressed)
        self._inbox: deque[tuple[Callable[..., list[Effect]], tuple[Any, ...]]] = deque()
        self._health = diagnostics.DetectorHealth()
        self._tracker: Tracker | None = None
        self._cameras: dict[str, diagnostics.CameraCounts] = {}
        self._last_image_now = time.monotonic_ns()
        self._wake = self.create_guard_condition(lambda: None)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._detector = self._make_detector()
        # Steady timers: they go on when simulated time stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_TICK_S, lambda: None, clock=steady)
        self.create_timer(1.0, self.publish_diagnostics, clock=steady)
        self.get_logger().info(f"loading detector {values['detector']!r}")
        self._detector.start()

    def _make_detector(self) -> DetectorHandle:
        spec = parameters.detector_spec(self._values)
        if self._values["in_process"]:
            return InProcessDetector(spec, self._wake_up)
        return DetectorWorker(spec, self._values["detector_start_timeout"], self._wake_up)

    def _wake_up(self) -> None:
        """Called from the detector's threads, possibly while the node is being destroyed."""
        with contextlib.suppress(Exception):
            self._wake.trigger()

    # --- set-up, once the checkpoint is known ---------------------------------------------------

    def _set_up(self, config: CheckpointConfig) -> None:
        values, m = self._values, config.montage
        geometry = MontageGeometry(m.num_pov, m.num_keyframes, m.cell_height, m.cell_width)
        cameras = POV_NAMES[: m.num_pov]
        settings = TrackerConfig(
            num_keyframes=m.num_keyframes,
            min_keyframes=config.min_keyframes,
            cameras=cameras,
            **parameters.tracker_settings(values),
        )
        slop_ns = round(values["slop"] * SECOND)
        self._synchronizer: Synchronizer = make_synchronizer(
            values["synchronizer"], cameras, slop_ns, values["pairing_queue"]
        )
        self._cameras = {camera: diagnostics.CameraCounts() for camera in cameras}
        scale = values["montage_scale"] if values["publish_montage"] else 0
        self._outputs = Outputs(self, geometry, scale)
        self._tracker = Tracker(settings, shrink=lambda view: fit_cell(view, geometry))
        self._subscribe_to_topics()
        threshold = JumpThreshold(min_forward=None, min_backward=_JUMP_BACK, on_clock_change=False)
        self._jump_handle = self.get_clock().create_jump_callback(
            threshold, post_callback=self._on_clock_jump
        )

    def _subscribe_to_topics(self) -> None:
        compressed = self._values["image_transport"] == "compressed"
        durability = DurabilityPolicy[self._values["instruction_durability"].upper()]
        instruction_qos = QoSProfile(
            depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=durability
        )
        self.create_subscription(String, "instruction", self._on_instruction, instruction_qos)
        self.create_subscription(EpisodeEvent, "episode", self._on_episode, EVENT_QOS)
        for camera in self._cameras:
            # rclpy writes overrides into the profile it is given: one of its own for each.
            sensor_data = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
            self.create_subscription(
                CompressedImage if compressed else Image,
                f"{camera}/image" + ("/compressed" if compressed else ""),
                lambda message, camera=camera: self._on_image(camera, message),
                sensor_data,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )

    # --- callbacks: convert, stamp, enqueue -----------------------------------------------------

    def _on_instruction(self, message: String) -> None:
        self._inbox.append((self._tracker.instruction, (message.data, time.monotonic_ns())))

    def _on_episode(self, message: EpisodeEvent) -> None:
        self._inbox.append((self._take_event, (message, time.monotonic_ns())))

    def _on_image(self, camera: str, message: Any) -> None:
        now_ns = time.monotonic_ns()
        counts = self._cameras[camera]
        counts.received += 1
        counts.last_now = self._last_image_now = now_ns
        counts.frame_id = message.header.frame_id
        self._inbox.append((self._take_image, (camera, message, now_ns)))

    def _on_clock_jump(self, jump: Any) -> None:
        to_ns = self.get_clock().now().nanoseconds
        detail = f"the ROS clock went back by {-jump.delta.nanoseconds / SECOND:.3g} s"
        self._inbox.append((self._tracker.clock_jump, (time.monotonic_ns(), detail, to_ns)))

    # --- the owner of the tracker ---------------------------------------------------------------

    def work(self) -> None:
        """Handle what was enqueued, and what has fallen due. Call it after each `spin_once`."""
        for event in self._detector.poll():
            self._on_detector(event)
        if self._tracker is None:
            return
        while self._inbox:
            handle, arguments = self._inbox.popleft()
            self._perform(handle(*arguments))
        now_ns = time.monotonic_ns()
        self._perform(self._tracker.tick(now_ns))
        if now_ns > self._last_image_now + self._tracker.config.drain_after_ns:
            self._synchronizer.give_up_waiting()

    def settle(self, timeout_s: float = 1.5) -> None:
        """Shut down: whatever is open becomes UNKNOWN, SHUT_DOWN; waits until that is heard."""
        if self._tracker is not None:
            self.work()
            self._perform(self._tracker.shut_down(time.monotonic_ns()))
            self._outputs.wait_for_all_acked(timeout_s)
        self._detector.close()

    def _take_event(self, message: EpisodeEvent, now_ns: int) -> list[Effect]:
        tracker = self._tracker
        # A sender that leaves the stamp empty means now.
        stamp_ns = conversions.to_ns(message.header.stamp) or tracker.stamp_now(
            self.get_clock().now().nanoseconds
        )
        episode_id = conversions.to_uuid(message.episode_id)
        if message.event == EpisodeEvent.START:
            return tracker.start(stamp_ns, now_ns, episode_id, message.instruction)
        if message.event == EpisodeEvent.END:
            return tracker.end(stamp_ns, now_ns, episode_id)
        if message.event == EpisodeEvent.ABORT:
            return tracker.abort(stamp_ns, now_ns, episode_id)
        tracker.counters["event_unknown"] += 1
        self.get_logger().warning(f"episode event {message.event} is none of START, END, ABORT")
        return []

    def _take_image(self, camera: str, message: Any, now_ns: int) -> list[Effect]:
        tracker = self._tracker
        stamp_ns = conversions.to_ns(message.header.stamp)
        if not stamp_ns:
            self._cameras[camera].refused[diagnostics.NO_STAMP] += 1
            return tracker.bad_image(
                camera, "header.stamp is zero: the camera driver must stamp its pictures", now_ns
            )
        effects = tracker.image(camera, stamp_ns, now_ns)
        # A jump in time must reach the synchroniser before the picture does.
        self._perform(effects)
        effects = []
        for pair in self._synchronizer.add(camera, stamp_ns, message):
            effects += tracker.pair(pair.stamp_ns, lambda pair=pair: self._views(pair), now_ns)
        return effects

    def _views(self, pair: Pair) -> list[np.ndarray]:
        """Decode the pictures of a pair; they are not needed after that."""
        views = []
        for camera, message in zip(self._cameras, pair.messages, strict=True):
            try:
                views.append(self._decode(message))
            except ImageError as error:
                raise ImageError(f"camera {camera}: {error}") from error
        return views

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Judge):
                self._detector.submit(effect.request_id, effect.episode)
            elif isinstance(effect, Publish):
                self._outputs.verdict(effect, self._frame_id())
                if effect.episode is not None:
                    self._health.latency_ns = effect.verdict.latency_ns
            elif isinstance(effect, Boundary):
                self._outputs.boundary(effect, self._frame_id())
            elif isinstance(effect, ClockJumped):
                self.get_logger().warning(f"time jumped back: {effect.detail}")
                self._synchronizer.reset()
            elif isinstance(effect, Abandon):
                self._restart("a judgement took too long")

    def _frame_id(self) -> str:
        return self._cameras[POV_NAMES[0]].frame_id

    # --- the detector ---------------------------------------------------------------------------

    def _on_detector(self, event: WorkerEvent) -> None:
        now_ns = time.monotonic_ns()
        if isinstance(event, Ready):
            if self._tracker is None:
                self._set_up(event.config)
            self._health.state, self._health.detail = diagnostics.READY, ""
            self._health.model_id = event.model_id
            self.get_logger().info(f"detector {event.model_id} is ready")
            self._perform(self._tracker.detector_ready(now_ns, event.model_id))
            self.publish_diagnostics()
        elif isinstance(event, Answer):
            self._perform(self._tracker.result(event.request_id, event.judgement, now_ns))
        elif isinstance(event, Died):
            self.get_logger().error(event.detail)
            self._restart(event.detail)
            self._perform(self._tracker.detector_lost(now_ns, event.detail))
        elif isinstance(event, LoadFailed) and self._tracker is None:
            self.load_error = event.detail
        elif isinstance(event, LoadFailed):
            self._health.state, self._health.detail = diagnostics.FAILED, event.detail
            self.get_logger().error(f"the detector cannot be loaded again: {event.detail}")
            self._perform(self._tracker.detector_lost(now_ns, event.detail, for_good=True))

    def _restart(self, why: str) -> None:
        self._health.state, self._health.detail = diagnostics.LOST, why
        self._health.restarts += 1
        self.get_logger().warning(f"restarting the detector: {why}")
        self._detector.restart()

    # --- diagnostics ----------------------------------------------------------------------------

    def publish_diagnostics(self) -> None:
        """Say how things stand; once a second, and when the detector becomes ready."""
        now_ns = time.monotonic_ns()
        name, static = self.get_fully_qualified_name()[1:], {"device": self._values["device"]}
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        tracker = self._tracker
        message.status = [diagnostics.detector_status(name, self._health, tracker, static)]
        if tracker is not None:
            message.status.append(diagnostics.episodes_status(name, tracker))
            unhandled = sum(handle == self._take_image for handle, _ in self._inbox)
            for camera, counts in self._cameras.items():
                counts.measure_rate(now_ns)
                values = diagnostics.camera_values(camera, counts, tracker, self._synchronizer)
                values["buffered"] += unhandled
                message.status.append(
                    diagnostics.camera_status(name, camera, counts, values, now_ns)
                )
        self._diagnostics.publish(message)
