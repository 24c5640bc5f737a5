"""One detector for several monitors: `python -m ifailsense_ros.ros.detector_server --ros-args -p
detector:=sim-tiny`; a monitor uses it with `detector:=service:/detector`. See docs/fleet.md.

SIGINT and SIGTERM answer every open request with UNKNOWN and end the process with 0; a second
signal ends it at once. A wrong parameter or checkpoint ends it with one line on stderr and 2.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.verdict import Judgement, Reason
from ifailsense_ros.model.dispatch import Dispatcher
from ifailsense_ros.model.handle import Answer, Died, LoadFailed, Ready, one_line
from ifailsense_ros.model.worker import DetectorWorker
from ifailsense_ros.ros import diagnostics, judge_messages, parameters, process
from ifailsense_ros.ros.declared_parameters import DeclaredParameters
from ifailsense_ros.ros.deferred_service import DeferredService
from ifailsense_ros.ros.heartbeat import Heartbeat
from ifailsense_ros.ros.parameters import GUARD, PARAMETERS, RATES, SPEED, Change, Parameter
from ifailsense_ros.ros.remote_detector import GET_DETECTOR, JUDGE_EPISODE
from ifailsense_ros.srv import GetDetector, JudgeEpisode

NAME = "detector"
_DEPTH = 200
"""Requests that the middleware keeps until the main loop takes them."""
_LINGER_S = 0.3
"""The last responses are sent by the middleware's own threads."""


def _own(name: str, **changes: Any) -> Parameter:
    """The monitor's parameter, which the node reads when it starts."""
    return dataclasses.replace(PARAMETERS[name], change=Change.NEVER, **changes)


SERVER_PARAMETERS: dict[str, Parameter] = {
    "detector": _own(
        "detector",
        description="Checkpoint: the name of a packaged one or a folder; or module:callable, which "
        "is called with device= and shuffle_seed= and returns a detector of your own.",
    ),
    **{
        name: _own(name)
        for name in (
            "device",
            "detector_threads",
            *SPEED,
            "shuffle_seed",
            *RATES,
            GUARD,
            "detector_start_timeout",
        )
    },
    "batch_timeout": Parameter(
        60.0,
        "Seconds that judging one batch may take; then the detector's process is restarted, and "
        "the batch is judged one by one.",
        (0.01, 3600.0),
        change=Change.AT_ONCE,
    ),
    "batch_size": Parameter(
        8,
        "Most episodes in one pass. 1: each by itself; then a verdict is bit for bit that of a "
        "monitor with the detector in its own process.",
        (1, 16),
        change=Change.AT_ONCE,
    ),
    "client_queue": Parameter(
        4,
        "Most episodes of one monitor that may wait here; one more is UNKNOWN, QUEUE_FULL. A "
        "monitor sends one at a time, and keeps the others.",
        (1, 1000),
        change=Change.AT_ONCE,
    ),
}


class DetectorServer(Node):
    """See docs/fleet.md. Whoever spins the node calls `work` after each `spin_once`.

    Args:
        kwargs: for `rclpy.node.Node`.

    Raises:
        ConfigError, CheckpointError: a parameter or the checkpoint is wrong.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(NAME, **kwargs)
        self._instance = uuid.uuid4()
        self._health = diagnostics.DetectorHealth(state=diagnostics.LOADING)
        self._ready: Ready | None = None
        self._misfits = 0
        self._declared = DeclaredParameters(self, lambda: True, SERVER_PARAMETERS)
        self._declared.check()
        values = self._declared.values
        parameters.check_detector(values)
        self._wake = self.create_guard_condition(lambda: None)
        self._worker = DetectorWorker(
            parameters.detector_spec(values), values["detector_start_timeout"], self._wake_up
        )
        self._dispatcher = Dispatcher(
            self._worker, values["client_queue"], values["batch_size"], values["batch_timeout"]
        )
        self._heartbeat = Heartbeat(self, self._wake_up)
        self.get_logger().info(f"loading detector {values['detector']!r}")
        self._worker.start()
        self._heartbeat.start()

    def work(self) -> None:
        """Do what there is to do.

        Raises:
            ConfigError: the detector cannot be loaded (again).
        """
        if self._declared.take_changes():
            values = self._declared.values
            self._dispatcher.per_client = values["client_queue"]
            self._dispatcher.batch_size = values["batch_size"]
            self._dispatcher.timeout_s = values["batch_timeout"]
        for event in self._worker.poll():
            self._on_worker(event)
        if self._dispatcher.work(time.monotonic_ns()):
            self._lost("a judgement took too long")
        self._heartbeat.offer(self._statuses)

    def settle(self) -> None:
        """The process ends: everybody who waits is told."""
        try:
            gone = Judgement.unknown(Reason.DETECTOR_ERROR, "the shared detector was stopped")
            self._dispatcher.settle_all(gone)
        finally:
            self._worker.close()
            self._heartbeat.stop()
        time.sleep(_LINGER_S)

    # --- the worker -----------------------------------------------------------------------------

    def _on_worker(self, event: Ready | LoadFailed | Died | Answer) -> None:
        now_ns = time.monotonic_ns()
        if isinstance(event, Ready):
            self._health.state, self._health.detail = diagnostics.READY, ""
            self._health.model_id = event.model_id
            self.get_logger().info(f"detector {event.model_id} is ready")
            if self._ready is None:
                self._offer(event)
            self._dispatcher.on_ready(now_ns)
        elif isinstance(event, Answer):
            self._dispatcher.on_answer(event, now_ns)
        elif isinstance(event, Died):
            self.get_logger().error(event.detail)
            self._lost(event.detail)
            self._dispatcher.on_died(event)
        elif isinstance(event, LoadFailed):
            # Whoever supervises this process starts it anew; the monitors wait for that.
            raise ConfigError(event.detail)

    def _lost(self, why: str) -> None:
        self._health.state, self._health.detail = diagnostics.LOST, why
        self._health.restarts += 1
        self.get_logger().warning(f"restarting the detector: {why}")

    # --- the services ---------------------------------------------------------------------------

    def _offer(self, ready: Ready) -> None:
        """From now on there is something to be asked."""
        self._ready = ready
        self._geometry = judge_messages.geometry_of(ready.config.montage)
        DeferredService(self, JudgeEpisode, f"~/{JUDGE_EPISODE}", self._on_request, _DEPTH)
        self.create_service(GetDetector, f"~/{GET_DETECTOR}", self._on_get_detector)

    def _on_get_detector(
        self, request: GetDetector.Request, response: GetDetector.Response
    ) -> GetDetector.Response:
        return judge_messages.to_description(self._ready, self._instance)

    def _on_request(
        self, request: JudgeEpisode.Request, respond: Callable[[JudgeEpisode.Response], None]
    ) -> None:
        def reply(judgement: Judgement) -> None:
            try:
                response = judge_messages.to_response(judgement, self._ready.model_id)
            except Exception as error:  # a detector of one's own
                text = f"the judgement fits no message: {one_line(error)}"
                self.get_logger().error(text)
                judgement = Judgement.unknown(Reason.DETECTOR_ERROR, text)
                response = judge_messages.to_response(judgement, self._ready.model_id)
            # Whoever has gone gets no answer, and keeps nobody else from getting theirs.
            with contextlib.suppress(Exception):
                respond(response)

        try:
            episode = judge_messages.to_episode(request, self._geometry)
        except ValueError as error:
            self._misfits += 1
            reply(Judgement.unknown(Reason.DETECTOR_ERROR, str(error)))
            return
        now_ns = time.monotonic_ns()
        self._dispatcher.ask(request.client, episode, request.patience, reply, now_ns)

    # --- diagnostics ----------------------------------------------------------------------------

    def _wake_up(self) -> None:
        """Called from other threads, possibly while the node is being destroyed."""
        with contextlib.suppress(Exception):
            self._wake.trigger()

    def _statuses(self) -> list[DiagnosticStatus]:
        name, dispatcher = self.get_fully_qualified_name()[1:], self._dispatcher
        static = {
            "device": self.get_parameter("device").value,
            "requests that fit no episode": self._misfits,
            **{f"batches of {size}": n for size, n in sorted(dispatcher.batches.items())},
        }
        return [
            diagnostics.detector_status(name, self._health, len(dispatcher), static),
            *(
                diagnostics.client_status(name, client, counts, dispatcher.waiting(client))
                for client, counts in sorted(dispatcher.clients.items())
            ),
        ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until a signal comes; returns the exit status."""
    argv = sys.argv if argv is None else argv
    if "--help" in argv or "-h" in argv:
        print(__doc__)
        return 0
    return process.run("ifailsense_detector", lambda stop: DetectorServer(), argv)


if __name__ == "__main__":
    sys.exit(main())
