"""The monitor as a managed node: parameters, life cycle and diagnostics.

What it does when it is configured is in ros/monitoring.py. Whoever spins the node calls `work`
after each `spin_once`, ten times a second or more; all but the heartbeat happens in that thread.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import traceback
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.model.handle import DetectorHandle, LoadFailed, Ready, one_line
from ifailsense_ros.ros import diagnostics
from ifailsense_ros.ros.declared_parameters import DeclaredParameters
from ifailsense_ros.ros.detector_handle import make_handle
from ifailsense_ros.ros.heartbeat import Heartbeat
from ifailsense_ros.ros.monitoring import Monitoring

NAME = "monitor"
SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)

_POLL_S = 0.05

Transition = Callable[["MonitorNode", LifecycleState], TransitionCallbackReturn]


def _guarded(transition: Transition) -> Transition:
    """rclpy swallows what a transition raises: say it, and go to error processing."""

    @functools.wraps(transition)
    def guarded(node: MonitorNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:
            node.refusal = one_line(error)
            node.get_logger().error(
                f"{transition.__name__[3:]} failed: {node.refusal}\n{traceback.format_exc()}"
            )
            return ERROR

    return guarded


class MonitorNode(LifecycleNode):
    """See docs/interfaces.md for topics and parameters.

    `configure` loads the detector and ends when it is ready; then the topics are subscribed (only
    the checkpoint says how many cameras and keyframes there are). `activate` accepts episodes.

    Args:
        stop_requested: whether to give up a `configure` that waits for the detector.
        kwargs: for `rclpy.lifecycle.LifecycleNode`.
    """

    def __init__(self, stop_requested: Callable[[], bool] = lambda: False, **kwargs: Any) -> None:
        super().__init__(NAME, **kwargs)
        self.refusal = ""
        """Why the node was not configured when it last was to be."""
        self._stop_requested = stop_requested
        self._detector: DetectorHandle | None = None
        self._ready: Ready | None = None
        self._health = diagnostics.DetectorHealth()
        self._told = self._health.state
        self._monitoring: Monitoring | None = None
        self._finalized = False
        self._declared = DeclaredParameters(self, lambda: self._detector is not None)
        self._autostart = self._declared.values["autostart"]
        self._arrived = threading.Event()
        self._wake = self.create_guard_condition(lambda: None)
        self._answer_invalid_transitions()
        self._heartbeat = Heartbeat(self, self._wake_up)
        self._heartbeat.start()

    @property
    def life(self) -> str:
        """The node's state in words."""
        if self._finalized:
            return "finalized"
        if self._monitoring is None:
            return "unconfigured"
        return "active" if self._monitoring.active else "inactive"

    def load(self) -> None:
        """Begin to load the detector; `configure` waits for it, `work` with `autostart` does not.

        Raises:
            ConfigError: a parameter is wrong.
            CheckpointError: there is no such checkpoint.
        """
        self._declared.check()
        values = self._declared.values
        self._detector = make_handle(self, values, self._wake_up)
        self._health.state = diagnostics.LOADING
        self.get_logger().info(f"loading detector {values['detector']!r}")
        self._detector.start()

    def work(self) -> None:
        """Do what there is to do. Call it after each `spin_once`.

        Raises:
            ConfigError: with `autostart`, the node could not be configured.
        """
        monitoring = self._monitoring
        if monitoring is not None:
            if self._declared.take_changes():
                monitoring.reconfigure(self._declared.values)
            monitoring.work()
        elif self._autostart and not self._finalized:
            self._start_by_itself()
        if self._health.state != self._told:
            self._told = self._health.state
            self._heartbeat.beat_now()
        self._heartbeat.offer(self._statuses)

    def settle(self) -> None:
        """The process ends: whatever is open becomes UNKNOWN, SHUT_DOWN, and that is heard."""
        try:
            if self._monitoring is not None:
                self._monitoring.shut_down()
        finally:
            if self._detector is not None:
                self._detector.close()
            self._heartbeat.stop()

    # --- life cycle -----------------------------------------------------------------------------

    @_guarded
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters, load the detector, subscribe and advertise."""
        self.refusal = ""
        try:
            if self._detector is None:
                self.load()
            ready = self._wait_for_detector()
            self._declared.take_changes()
            values = self._declared.values
            self._monitoring = Monitoring(self, values, ready, self._detector, self._health)
        except IFailSenseError as error:
            self._release()
            self.refusal = one_line(error)
            if not self._autostart:
                self.get_logger().error(f"not configured: {self.refusal}")
            return FAILURE
        self._heartbeat.beat_now()
        return super().on_configure(state)

    @_guarded
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Accept episodes."""
        self._monitoring.activate()
        self._heartbeat.beat_now()
        return super().on_activate(state)

    @_guarded
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Settle what is open, and accept nothing more."""
        self._monitoring.deactivate()
        return super().on_deactivate(state)

    @_guarded
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to before `configure`."""
        self._autostart = False
        self._release()
        return super().on_cleanup(state)

    @_guarded
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Settle what is open; the node is of no more use, its process goes on until a signal."""
        self._finalized = True
        if self._monitoring is not None:
            self._monitoring.shut_down()
        self._release(withdraw_action=False)
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition failed in an unforeseen way: back to before `configure`."""
        self._autostart = False  # it would fail again
        with contextlib.suppress(Exception):
            if self._monitoring is not None:
                self._monitoring.deactivate()
        with contextlib.suppress(Exception):
            self._release()
        self._monitoring = None
        return SUCCESS

    def _release(self, *, withdraw_action: bool = True) -> None:
        """Give the detector and all topics back; see `Monitoring.close`."""
        monitoring, self._monitoring = self._monitoring, None
        detector, self._detector = self._detector, None
        self._ready = None
        self._health = diagnostics.DetectorHealth()
        if detector is not None:
            detector.close()
        if monitoring is not None:
            monitoring.close(withdraw_action=withdraw_action)

    def _start_by_itself(self) -> None:
        """Configure and activate as soon as the detector is loaded, without waiting for it."""
        if self._detector is None:
            self.load()
        try:
            self._poll_detector()
        except ConfigError:
            self._release()
            raise
        if self._ready is None:
            return
        if self.trigger_configure() is not SUCCESS:
            raise ConfigError(self.refusal)
        self.trigger_activate()

    def _wait_for_detector(self) -> Ready:
        while self._ready is None:
            self._arrived.wait(_POLL_S)
            self._arrived.clear()
            if self._stop_requested():
                raise ConfigError("the process is to end")
            self._poll_detector()
        return self._ready

    def _poll_detector(self) -> None:
        for event in self._detector.poll():
            if isinstance(event, LoadFailed):
                raise ConfigError(event.detail)
            if isinstance(event, Ready):
                self._ready = event

    def _answer_invalid_transitions(self) -> None:
        """In Jazzy a transition that is not allowed now raises RCLError out of `spin_once`, and
        leaves the client without an answer.
        """
        for service in self.services:
            if service.srv_name.endswith("/change_state"):
                service.callback = functools.partial(self._change_state, service.callback)

    def _change_state(self, change_state: Callable[..., Any], request: Any, response: Any) -> Any:
        try:
            return change_state(request, response)
        except Exception as error:
            self.get_logger().warning(
                f"transition {request.transition.label or request.transition.id} is not possible "
                f"while the node is {self.life}: {one_line(error)}"
            )
            response.success = False
            return response

    # --- diagnostics ----------------------------------------------------------------------------

    def _wake_up(self) -> None:
        """Called from other threads, possibly while the node is being destroyed."""
        self._arrived.set()
        with contextlib.suppress(Exception):
            self._wake.trigger()

    def _statuses(self) -> list[DiagnosticStatus]:
        name, monitoring = self.get_fully_qualified_name()[1:], self._monitoring
        static = {"device": self.get_parameter("device").value}
        waiting = monitoring.episodes_waiting if monitoring else 0
        return [
            diagnostics.lifecycle_status(name, self.life, self.refusal),
            diagnostics.detector_status(name, self._health, waiting, static),
            *(monitoring.statuses(name) if monitoring else ()),
        ]
