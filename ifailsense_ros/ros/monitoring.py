"""Everything that lives between configure and cleanup: it owns the tracker, feeds it, and performs
its effects. The detector runs elsewhere and is only polled.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from ifailsense_ros.core.effects import (
    SECOND,
    Abandon,
    Boundary,
    BoundaryKind,
    ClockJumped,
    Effect,
    Judge,
    JudgeProvisional,
    Publish,
    PublishProvisional,
    TrackerConfig,
)
from ifailsense_ros.core.episode import POV_NAMES
from ifailsense_ros.core.montage import MontageGeometry, fit_cell
from ifailsense_ros.core.tracker import Tracker
from ifailsense_ros.model.handle import Answer, DetectorHandle, Died, LoadFailed, Ready, WorkerEvent
from ifailsense_ros.ros import diagnostics, parameters
from ifailsense_ros.ros.check_episode import CheckEpisodeServer
from ifailsense_ros.ros.image_source import make_reader, make_synchronizer
from ifailsense_ros.ros.inputs import Inputs
from ifailsense_ros.ros.intake import Intake
from ifailsense_ros.ros.outputs import Outputs

_ACK_S = 1.5
_ALIVE_NS = SECOND // 2


class Monitoring:
    """A monitor that is configured; inactive until `activate`.

    Args:
        node: whose topics and clock are used.
        values: of the parameters.
        ready: what the detector said of itself.
        detector: loaded and idle.
        health: of the detector; kept up to date.

    Raises:
        ConfigError: a parameter does not fit this machine or this checkpoint.
    """

    def __init__(
        self,
        node: Node,
        values: Mapping[str, Any],
        ready: Ready,
        detector: DetectorHandle,
        health: diagnostics.DetectorHealth,
    ) -> None:
        self.active = False
        self._logger = node.get_logger()
        self._detector = detector
        self._health = health
        self._alive_at = 0
        m = ready.config.montage
        self._geometry = MontageGeometry(m.num_pov, m.num_keyframes, m.cell_height, m.cell_width)
        self._fixed = {
            "num_keyframes": m.num_keyframes,
            "min_keyframes": ready.config.min_keyframes,
            "cameras": POV_NAMES[: m.num_pov],
        }
        self._tracker = Tracker(self._settings(values), shrink=self._shrink)
        self._tracker.deactivate(time.monotonic_ns())  # until `activate`
        self._intake = Intake(
            self._tracker,
            make_synchronizer(
                values["synchronizer"],
                self._fixed["cameras"],
                round(values["slop"] * SECOND),
                values["pairing_queue"],
            ),
            make_reader(
                values["image_decoder"], compressed=values["image_transport"] == "compressed"
            ),
            lambda: node.get_clock().now().nanoseconds,
        )
        self._inputs = Inputs(node, values, self._intake)
        self._outputs = Outputs(node, self._geometry, _montage_scale(values))
        self._checks = CheckEpisodeServer(
            node, self._tracker, self._act, lambda: self.active, time.monotonic_ns
        )
        self._on_ready(ready)

    # --- its life -------------------------------------------------------------------------------

    def activate(self) -> None:
        """Accept episodes."""
        self.active = True
        self._perform(self._tracker.activate(time.monotonic_ns()))

    def deactivate(self) -> None:
        """Whatever is open becomes UNKNOWN, DEACTIVATED; accept no episode until `activate`."""
        try:
            self.work()
        finally:  # whatever it raises, nothing stays without a verdict
            self.active = False
            self._perform(self._tracker.deactivate(time.monotonic_ns()))

    def shut_down(self) -> None:
        """Whatever is open becomes UNKNOWN, SHUT_DOWN; waits until that is heard."""
        try:
            self.work()
        finally:
            self.active = False
            self._perform(self._tracker.shut_down(time.monotonic_ns()))
            self._outputs.wait_for_all_acked(_ACK_S)

    def close(self, *, withdraw_action: bool = True) -> None:
        """Take everything back that the node has offered. Settle first.

        Without `withdraw_action`, check_episode stays, to refuse: results of goals that have just
        been settled are only sent in the turns that follow.
        """
        self._inputs.close()
        if withdraw_action:
            self._checks.close()
        self._outputs.wait_for_all_acked(_ACK_S)
        self._outputs.close()

    def reconfigure(self, values: Mapping[str, Any]) -> None:
        """Parameters have changed: those that may while this lives."""
        self._tracker.reconfigure(self._settings(values))
        self._outputs.montage_scale = _montage_scale(values)

    def work(self) -> None:
        """Handle what has come and what has fallen due. Call it after each `spin_once`."""
        for event in self._detector.poll():
            self._on_detector(event)
        self._take_in()
        self._checks.work()
        now_ns = time.monotonic_ns()
        if now_ns >= self._alive_at + _ALIVE_NS:
            self._alive_at = now_ns
            self._outputs.assert_liveliness()

    def statuses(self, name: str) -> list[DiagnosticStatus]:
        """What /diagnostics says of episodes and cameras."""
        now_ns = time.monotonic_ns()
        self._intake.measure_rates(now_ns)
        return [
            diagnostics.episodes_status(name, self._tracker, self._checks.waiting),
            *(
                diagnostics.camera_status(name, camera, counts, self._intake.values(camera), now_ns)
                for camera, counts in self._intake.cameras.items()
            ),
        ]

    @property
    def episodes_waiting(self) -> int:
        """Episodes after END that are not being judged yet."""
        return self._tracker.waiting

    # --- the tracker ----------------------------------------------------------------------------

    def _settings(self, values: Mapping[str, Any]) -> TrackerConfig:
        return TrackerConfig(**self._fixed, **parameters.tracker_settings(values))

    def _shrink(self, view: Any) -> Any:
        return fit_cell(view, self._geometry)

    def _take_in(self) -> None:
        self._inputs.take()
        for effects in self._intake.work():
            self._perform(effects)

    def _act(self, kind: BoundaryKind, episode_id: uuid.UUID, instruction: str) -> None:
        self._take_in()  # now is the time of the newest picture
        stamp_ns, now_ns = self._intake.stamp_now(), time.monotonic_ns()
        self._perform(self._intake.boundary(kind, stamp_ns, now_ns, episode_id, instruction))

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Judge | JudgeProvisional):
                self._detector.submit(effect.request_id, effect.episode)
            elif isinstance(effect, Publish):
                self._checks.on_verdict(self._outputs.verdict(effect, self._frame_id()))
                if effect.episode is not None:
                    self._health.latency_ns = effect.verdict.latency_ns
            elif isinstance(effect, PublishProvisional):
                self._checks.on_provisional(self._outputs.warning(effect, self._frame_id()))
            elif isinstance(effect, Boundary):
                self._outputs.boundary(effect, self._frame_id())
                self._checks.on_boundary(effect)
            elif isinstance(effect, ClockJumped):
                self._logger.warning(f"time jumped back: {effect.detail}")
                self._intake.reset_pairing()
            elif isinstance(effect, Abandon):
                self._restart("a judgement took too long")

    def _frame_id(self) -> str:
        return self._intake.cameras[POV_NAMES[0]].frame_id

    # --- the detector ---------------------------------------------------------------------------

    def _on_detector(self, event: WorkerEvent) -> None:
        now_ns = time.monotonic_ns()
        if isinstance(event, Ready):
            self._on_ready(event)
        elif isinstance(event, Answer):
            self._perform(self._tracker.result(event.request_id, event.judgement, now_ns))
        elif isinstance(event, Died):
            self._logger.error(event.detail)
            self._restart(event.detail)
            self._perform(self._tracker.detector_lost(now_ns, event.detail))
        elif isinstance(event, LoadFailed):
            self._health.state, self._health.detail = diagnostics.FAILED, event.detail
            self._logger.error(f"the detector cannot be loaded again: {event.detail}")
            self._perform(self._tracker.detector_lost(now_ns, event.detail, for_good=True))

    def _on_ready(self, ready: Ready) -> None:
        self._health.state, self._health.detail = diagnostics.READY, ""
        self._health.model_id = ready.model_id
        self._logger.info(f"detector {ready.model_id} is ready")
        self._perform(self._tracker.detector_ready(time.monotonic_ns(), ready.model_id))

    def _restart(self, why: str) -> None:
        self._health.state, self._health.detail = diagnostics.LOST, why
        self._health.restarts += 1
        self._logger.warning(f"restarting the detector: {why}")
        self._detector.restart()


def _montage_scale(values: Mapping[str, Any]) -> int:
    return values["montage_scale"] if values["publish_montage"] else 0
