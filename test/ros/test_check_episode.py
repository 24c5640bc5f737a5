"""The action check_episode over real DDS: joined, started, ended, canceled and refused."""

from __future__ import annotations

import math
import signal
import uuid

import pytest

pytest.importorskip("rclpy")

from action_msgs.msg import GoalStatus
from action_msgs.srv import CancelGoal
from builtin_interfaces.msg import Duration
from rclpy.action import ActionClient
from ros_peer import LOSSLESS

from ifailsense_ros.action import CheckEpisode
from ifailsense_ros.msg import FailureVerdict
from ifailsense_ros.ros import conversions

pytestmark = pytest.mark.timeout(240)

R = FailureVerdict
Goal = CheckEpisode.Goal
ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2)


class Planner:
    """A client of the action."""

    def __init__(self, peer) -> None:
        self._peer = peer
        self._client = ActionClient(peer.node, CheckEpisode, "/monitor/check_episode")
        self.feedback: list[CheckEpisode.Feedback] = []

    def ask(self, end, episode_id=None, instruction="", duration_s=0):
        """Send a goal; returns its handle, or None if it was refused."""
        goal = Goal(end_condition=end, instruction=instruction)
        goal.duration = Duration(sec=duration_s)
        if episode_id is not None:
            goal.episode_id = conversions.to_uuid_message(episode_id)
        self._peer.until(self._client.server_is_ready)
        sent = self._client.send_goal_async(
            goal, feedback_callback=lambda m: self.feedback.append(m.feedback)
        )
        self._peer.until(sent.done)
        handle = sent.result()
        return handle if handle.accepted else None

    def answer(self, handle, timeout_s=20.0):
        """Wait for the goal's end; returns (status, verdict)."""
        future = handle.get_result_async()
        self._peer.until(future.done, timeout_s)
        return future.result().status, future.result().result.verdict

    def cancel(self, handle):
        future = handle.cancel_goal_async()
        self._peer.until(future.done)
        assert len(future.result().goals_canceling) == 1


def test_goals_of_every_kind(peer_factory, start_monitor):
    monitor = start_monitor("end_grace:=1.0", "provisional_period:=0.3", *LOSSLESS)
    peer = peer_factory()
    peer.connect(monitor)
    planner, other = Planner(peer), Planner(peer)

    # Nothing is running: nothing to end, and no such end condition.
    assert planner.ask(Goal.END_NOW, instruction="lift") is None
    assert planner.ask(77, instruction="lift") is None
    # It starts an episode; another planner joins; END comes as an event.
    peer.film(2)  # a goal has no stamp: the cameras say what time it is
    first = planner.ask(Goal.END_AT_END, ONE, "lift the block")
    second = other.ask(Goal.END_AT_END)
    peer.film()
    assert other.ask(Goal.END_AT_END, TWO) is None, "another one is running"
    assert other.ask(Goal.END_AT_END, instruction="push") is None, "it has another instruction"
    third = other.ask(Goal.END_AT_END, ONE, " lift the  block")
    peer.until(lambda: any(not math.isnan(f.p_success) for f in planner.feedback), monitor=monitor)
    assert any(f.keyframes > 0 for f in planner.feedback)
    peer.film(3)
    peer.event(2)
    peer.until(lambda: peer.verdicts, monitor=monitor)
    for asker, handle in ((planner, first), (other, second), (other, third)):
        status, verdict = asker.answer(handle)
        assert status == GoalStatus.STATUS_SUCCEEDED
        assert verdict == peer.verdicts[0]
    assert peer.verdicts[0].verdict == R.SUCCESS
    assert conversions.to_uuid(peer.verdicts[0].episode_id) == ONE
    # Asked too late: the verdict is known.
    assert planner.answer(planner.ask(Goal.END_AT_END, ONE))[1] == peer.verdicts[0]

    # It ends what runs, now.
    peer.stamp_ns += 10**9
    peer.event(1, TWO, "push the block")
    peer.film(brighter=False)
    status, verdict = planner.answer(planner.ask(Goal.END_NOW))
    assert (status, verdict.verdict) == (GoalStatus.STATUS_SUCCEEDED, R.FAILURE)
    # It ends it after a second, on its own instruction.
    peer.stamp_ns += 10**9
    handle = planner.ask(Goal.END_AFTER_DURATION, instruction="open it", duration_s=1)
    peer.film(20)
    status, verdict = planner.answer(handle)
    assert (status, verdict.verdict) == (GoalStatus.STATUS_SUCCEEDED, R.SUCCESS), verdict.reason
    assert verdict.instruction == "open it"

    # Canceled by who started it: aborted. By who joined it: nobody cares.
    mine = planner.ask(Goal.END_AT_END, instruction="close it")
    peer.film(3)
    joined = other.ask(Goal.END_AT_END)
    other.cancel(joined)
    status, verdict = other.answer(joined)
    assert (status, verdict.reason_code) == (GoalStatus.STATUS_CANCELED, R.REASON_NONE)
    peer.until(lambda: len(peer.verdicts) == 3)
    planner.cancel(mine)
    status, verdict = planner.answer(mine)
    assert (status, verdict.reason_code) == (GoalStatus.STATUS_CANCELED, R.REASON_ABORTED)
    peer.until(lambda: len(peer.verdicts) == 4)

    # Not active: refused; what waits gets its verdict.
    waits = planner.ask(Goal.END_AT_END, instruction="turn it")
    assert peer.transition("deactivate")
    status, verdict = planner.answer(waits)
    assert (status, verdict.reason_code) == (GoalStatus.STATUS_SUCCEEDED, R.REASON_DEACTIVATED)
    assert planner.ask(Goal.END_AT_END, instruction="turn it") is None
    assert "goal refused: the monitor is not active" in monitor.output
    assert peer.transition("activate")
    # A signal: even then.
    waits = planner.ask(Goal.END_AT_END, instruction="turn it")
    result = waits.get_result_async()
    peer.spin(0.3)
    monitor.process.send_signal(signal.SIGINT)
    peer.until(result.done)
    assert result.result().result.verdict.reason_code == R.REASON_SHUT_DOWN
    assert monitor.wait() == 0
    assert "Traceback" not in monitor.output


def test_all_goals_of_an_episode_canceled_at_once(peer_factory, start_monitor):
    """Whoever started it gives it up: that settles the others' goals while they are looked at."""
    monitor = start_monitor("end_grace:=1.0", "instruction_grace:=10.0", *LOSSLESS)
    peer = peer_factory()
    peer.connect(monitor)
    planner, other = Planner(peer), Planner(peer)
    peer.film(2)
    handles = [planner.ask(Goal.END_AT_END, ONE, "lift the block")]
    handles += [other.ask(Goal.END_AT_END) for _ in range(2)]
    peer.film(3)
    cancel = peer.node.create_client(CancelGoal, "/monitor/check_episode/_action/cancel_goal")
    peer.until(cancel.service_is_ready)
    asked = cancel.call_async(CancelGoal.Request())  # no id and no time: all of them
    peer.until(asked.done)
    assert len(asked.result().goals_canceling) == 3
    for handle in handles:
        status, verdict = planner.answer(handle)
        assert (status, verdict.reason_code) == (GoalStatus.STATUS_CANCELED, R.REASON_ABORTED)
    # The monitor lives, and an instruction from the topic is the running episode's.
    peer.stamp_ns += 10**9
    peer.event(1, TWO)
    peer.say("push the block")
    peer.film(2)
    assert planner.ask(Goal.END_AT_END, instruction="lift the block") is None
    assert planner.ask(Goal.END_AT_END, instruction="push the block") is not None
    assert "Traceback" not in monitor.output


def test_who_waits_hears_of_the_transition_shutdown(peer_factory, start_monitor):
    monitor = start_monitor(*LOSSLESS)
    peer = peer_factory()
    peer.connect(monitor)
    planner = Planner(peer)
    waits = [planner.ask(Goal.END_AT_END, ONE, "turn it"), planner.ask(Goal.END_AT_END)]
    assert peer.transition("active_shutdown")
    for handle in waits:
        status, verdict = planner.answer(handle)
        assert (status, verdict.reason_code) == (GoalStatus.STATUS_SUCCEEDED, R.REASON_SHUT_DOWN)
    assert planner.ask(Goal.END_AT_END, instruction="turn it") is None
    assert "Traceback" not in monitor.output
