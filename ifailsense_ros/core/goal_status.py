"""Episodes from the goals of an action server: what its status topic says -> START, END, ABORT.

The status topic carries every goal the server still knows, again and again, latched with depth 1:
a slow listener misses states, and a late one sees goals that ended long ago. So a goal becomes an
episode only if it was first seen before its end, and one at a time: there is one robot.
"""

from __future__ import annotations

import enum
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ifailsense_ros.core.effects import BoundaryKind


class GoalStatus(enum.IntEnum):
    """Numbers of action_msgs/GoalStatus."""

    UNKNOWN = 0
    ACCEPTED = 1
    EXECUTING = 2
    CANCELING = 3
    SUCCEEDED = 4
    CANCELED = 5
    ABORTED = 6


_BEGINS = {GoalStatus.ACCEPTED, GoalStatus.EXECUTING}
# The server's own opinion of success is not asked: it is what the monitor is there to check.
_ENDS = {
    GoalStatus.SUCCEEDED: BoundaryKind.END,
    GoalStatus.ABORTED: BoundaryKind.END,
    GoalStatus.CANCELED: BoundaryKind.ABORT,
}


@dataclass(frozen=True)
class GoalState:
    """One entry of the status topic.

    Attributes:
        goal_id: of the goal; None if it is all zero.
        status: number of `GoalStatus`; others count as UNKNOWN.
        accepted_ns: stamp of its acceptance, nanoseconds; 0 if the server gives none.
    """

    goal_id: uuid.UUID | None
    status: int
    accepted_ns: int = 0


@dataclass(frozen=True)
class GoalEvent:
    """A goal begins or ends an episode.

    Attributes:
        kind: START, END, or ABORT.
        goal_id: id of the goal, and of the episode.
        stamp_ns: of START: when the goal was accepted, nanoseconds; 0 for now. The status has no
            stamp for an end: always 0.
    """

    kind: BoundaryKind
    goal_id: uuid.UUID
    stamp_ns: int = 0


class GoalWatch:
    """Follows the goals of one action server.

    Args:
        counters: `goals_refused` (another goal was running), `goals_unseen` (already ending when
            first seen), `goals_vanished` (the server forgot a running goal), `goals_without_id`.
    """

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._known: set[uuid.UUID] = set()
        self._running: uuid.UUID | None = None

    @property
    def running(self) -> uuid.UUID | None:
        """The goal whose episode is running."""
        return self._running

    def update(self, states: Iterable[GoalState]) -> list[GoalEvent]:
        """Take a message of the status topic; returns what it means, in order."""
        goals: dict[uuid.UUID, GoalState] = {}
        for state in states:
            if state.goal_id is None:
                self._counters["goals_without_id"] += 1
            else:
                goals[state.goal_id] = state
        # An end comes before the beginning of the next, which may be in the same message.
        events = self._ended(goals)
        for goal_id, state in goals.items():
            if goal_id not in self._known:
                events += self._begun(goal_id, state)
        # What the server has forgotten need not be remembered here.
        self._known = set(goals)
        return events

    def _ended(self, goals: dict[uuid.UUID, GoalState]) -> list[GoalEvent]:
        running = self._running
        if running is None:
            return []
        if running not in goals:
            # The server was started anew, or its goal ended and expired unheard.
            self._counters["goals_vanished"] += 1
            kind: BoundaryKind | None = BoundaryKind.ABORT
        else:
            kind = _ENDS.get(goals[running].status)
        if kind is None:
            return []
        self._running = None
        return [GoalEvent(kind, running)]

    def _begun(self, goal_id: uuid.UUID, state: GoalState) -> list[GoalEvent]:
        if state.status not in _BEGINS:
            self._counters["goals_unseen"] += 1
        elif self._running is not None:
            self._counters["goals_refused"] += 1
        else:
            self._running = goal_id
            return [GoalEvent(BoundaryKind.START, goal_id, state.accepted_ns)]
        return []
