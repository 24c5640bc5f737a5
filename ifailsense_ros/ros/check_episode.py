"""The action `~/check_episode`: wait for the verdict on an episode, or have one made of it.

Goals are not executed by a task that waits: rclpy would poll it without pause. They stay ACCEPTED
while they wait, with feedback, and are executed when their verdict is known.
"""

from __future__ import annotations

import math
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node

from ifailsense_ros.action import CheckEpisode
from ifailsense_ros.core.effects import SECOND, Boundary, BoundaryKind
from ifailsense_ros.core.prompt import normalise_instruction
from ifailsense_ros.core.tracker import Tracker
from ifailsense_ros.msg import FailureVerdict
from ifailsense_ros.ros import conversions

Goal = CheckEpisode.Goal
_FEEDBACK_NS = SECOND // 2
# Verdicts that a goal may still ask for by id.
_REMEMBERED = 100
# Seconds for which the server keeps a result that nobody has fetched.
_RESULT_TIMEOUT_S = 60

Act = Callable[[BoundaryKind, uuid.UUID, str], None]
"""Has the tracker take a START, END or ABORT (kind, episode id, instruction), stamped now."""


@dataclass(eq=False)
class _Waiting:
    """A goal whose verdict is not known yet.

    Attributes:
        handle: of the goal.
        episode_id: whose verdict it waits for.
        owner: the goal started the episode.
        end_at: steady time at which it ends the episode.
        fed_back_at: steady time of the last feedback.
    """

    handle: ServerGoalHandle
    episode_id: uuid.UUID
    owner: bool = False
    end_at: int | None = None
    fed_back_at: int = 0


class CheckEpisodeServer:
    """Any number of goals, of any number of clients.

    Args:
        node: which offers the action.
        tracker: what is running there.
        act: see `Act`.
        is_active: whether goals are accepted.
        steady_now: the steady clock, nanoseconds.
    """

    def __init__(
        self,
        node: Node,
        tracker: Tracker,
        act: Act,
        is_active: Callable[[], bool],
        steady_now: Callable[[], int],
    ) -> None:
        self._tracker = tracker
        self._act = act
        self._is_active = is_active
        self._steady_now = steady_now
        self._logger = node.get_logger()
        self._open: Counter[uuid.UUID] = Counter()
        self._p_success = math.nan
        self._verdicts: OrderedDict[uuid.UUID, FailureVerdict] = OrderedDict()
        self._waiting: list[_Waiting] = []
        self._server = ActionServer(
            node,
            CheckEpisode,
            "~/check_episode",
            execute_callback=lambda handle: CheckEpisode.Result(),
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
            result_timeout=_RESULT_TIMEOUT_S,
        )

    @property
    def waiting(self) -> int:
        """Goals whose verdict is not known yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Withdraw the action; every goal has its verdict by now."""
        self._server.destroy()

    # --- what happens to episodes ---------------------------------------------------------------

    def on_boundary(self, boundary: Boundary) -> None:
        """An episode began or ended."""
        if boundary.kind is BoundaryKind.START:
            self._open[boundary.episode_id] += 1
            self._p_success = math.nan

    def on_provisional(self, verdict: FailureVerdict) -> None:
        """The running episode was judged on what it has so far."""
        self._p_success = verdict.p_success
        for waiting in self._waiting:
            if waiting.episode_id == self._tracker.running_id:
                self._feed_back(waiting)

    def on_verdict(self, verdict: FailureVerdict) -> None:
        """A final verdict: those who wait for it get it."""
        episode_id = conversions.to_uuid(verdict.episode_id)
        assert episode_id is not None
        self._open[episode_id] -= 1
        if self._open[episode_id] <= 0:
            del self._open[episode_id]
        self._verdicts.pop(episode_id, None)
        self._verdicts[episode_id] = verdict
        if len(self._verdicts) > _REMEMBERED:
            self._verdicts.popitem(last=False)
        done = [waiting for waiting in self._waiting if waiting.episode_id == episode_id]
        self._waiting = [waiting for waiting in self._waiting if waiting not in done]
        for waiting in done:
            _finish(waiting.handle, verdict)

    def work(self) -> None:
        """What falls due: ends after a duration, cancelled goals, feedback."""
        now_ns = self._steady_now()
        for waiting in list(self._waiting):
            if waiting not in self._waiting:
                continue  # what came before it here has settled its episode
            if waiting.handle.is_cancel_requested:
                self._cancel(waiting)
            elif waiting.end_at is not None and now_ns >= waiting.end_at:
                waiting.end_at = None
                self._end(waiting.episode_id)
            elif now_ns >= waiting.fed_back_at + _FEEDBACK_NS:
                self._feed_back(waiting)

    # --- goals ----------------------------------------------------------------------------------

    def _on_goal(self, goal: Goal) -> GoalResponse:
        objection = self._objection(goal)
        if objection:
            self._logger.warning(f"check_episode: goal refused: {objection}")
            self._tracker.counters["check_goals_refused"] += 1
            return GoalResponse.REJECT
        self._tracker.counters["check_goals"] += 1
        return GoalResponse.ACCEPT

    def _objection(self, goal: Goal) -> str:
        """Why a goal cannot be accepted; empty if it can."""
        if not self._is_active():
            return "the monitor is not active"
        if goal.end_condition not in (Goal.END_NOW, Goal.END_AFTER_DURATION, Goal.END_AT_END):
            return f"end_condition {goal.end_condition} is not known"
        if conversions.to_ns(goal.duration) < 0:
            return "its duration is negative"
        running, wanted = self._tracker.running_id, conversions.to_uuid(goal.episode_id)
        if wanted is not None and wanted != running and self._is_over(wanted):
            return ""
        if running is None:
            ends_now = goal.end_condition == Goal.END_NOW
            return "END_NOW, but no episode is running" if ends_now else ""
        if wanted not in (None, running):
            return f"another episode is running ({running})"
        said = normalise_instruction(goal.instruction)
        if said and self._tracker.running_instruction not in ("", said):
            has = self._tracker.running_instruction
            return f"the running episode has another instruction: {has!r}"
        return ""

    def _is_over(self, episode_id: uuid.UUID) -> bool:
        """Whether it has ended; its verdict is known or still to come."""
        return episode_id in self._open or episode_id in self._verdicts

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        goal: Goal = handle.request
        running, wanted = self._tracker.running_id, conversions.to_uuid(goal.episode_id)
        if wanted is not None and wanted != running and self._is_over(wanted):
            if wanted in self._open:
                self._waiting.append(_Waiting(handle, wanted))
            else:
                _finish(handle, self._verdicts[wanted])
            return
        waiting = _Waiting(handle, running or wanted or uuid.uuid4(), owner=running is None)
        if goal.end_condition == Goal.END_AFTER_DURATION:
            waiting.end_at = self._steady_now() + conversions.to_ns(goal.duration)
        self._waiting.append(waiting)
        if waiting.owner:
            self._act(BoundaryKind.START, waiting.episode_id, goal.instruction)
        elif goal.end_condition == Goal.END_NOW:
            self._end(waiting.episode_id)

    def _end(self, episode_id: uuid.UUID) -> None:
        # It may have ended in another way: then its verdict is on its way already.
        if self._tracker.running_id == episode_id:
            self._act(BoundaryKind.END, episode_id, "")

    def _cancel(self, waiting: _Waiting) -> None:
        """Whoever started the episode gives it up; others only wait no longer."""
        if waiting.owner and self._tracker.running_id == waiting.episode_id:
            self._act(BoundaryKind.ABORT, waiting.episode_id, "")
        else:
            self._waiting.remove(waiting)
            _finish(waiting.handle, FailureVerdict())

    def _feed_back(self, waiting: _Waiting) -> None:
        waiting.fed_back_at = self._steady_now()
        feedback = CheckEpisode.Feedback(p_success=math.nan)
        if waiting.episode_id == self._tracker.running_id:
            feedback.p_success = self._p_success
            feedback.keyframes = min(self._tracker.candidates, 2**16 - 1)
        waiting.handle.publish_feedback(feedback)


def _finish(handle: ServerGoalHandle, verdict: FailureVerdict) -> None:
    """The goal's result; a task of the executor sends it."""

    def result(handle: Any) -> CheckEpisode.Result:
        if handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.succeed()
        return CheckEpisode.Result(verdict=verdict)

    handle.execute(result)
