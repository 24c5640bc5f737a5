"""Goals as episodes: whatever the status topic says or leaves out, each goal is one at most."""

import uuid
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.core.effects import BoundaryKind
from ifailsense_ros.core.goal_status import GoalEvent, GoalState, GoalStatus, GoalWatch

A, B, C = (uuid.UUID(int=i) for i in range(1, 4))
START, END, ABORT = BoundaryKind.START, BoundaryKind.END, BoundaryKind.ABORT
ACTIVE = (GoalStatus.ACCEPTED, GoalStatus.EXECUTING)
TERMINAL = (GoalStatus.SUCCEEDED, GoalStatus.CANCELED, GoalStatus.ABORTED)


class Server:
    """What the watch says to message after message; a goal is (id, status) or a GoalState."""

    def __init__(self):
        self.counters = Counter()
        self.watch = GoalWatch(self.counters)

    def says(self, *goals):
        states = [g if isinstance(g, GoalState) else GoalState(*g) for g in goals]
        return [(e.kind, e.goal_id) for e in self.watch.update(states)]


@pytest.mark.parametrize(
    ("end", "kind"),
    [(GoalStatus.SUCCEEDED, END), (GoalStatus.ABORTED, END), (GoalStatus.CANCELED, ABORT)],
)
def test_a_goal_from_its_beginning_to_its_end(end, kind):
    server = Server()
    assert server.says() == []
    assert server.says((A, GoalStatus.ACCEPTED)) == [(START, A)]
    assert server.says((A, GoalStatus.EXECUTING)) == []
    assert server.watch.running == A
    assert server.says((A, GoalStatus.CANCELING)) == []
    assert server.says((A, end)) == [(kind, A)]
    assert server.says((A, end)) == []
    assert server.watch.running is None
    assert not server.counters


def test_the_start_is_stamped_with_the_acceptance():
    watch = GoalWatch(Counter())
    (event,) = watch.update([GoalState(A, GoalStatus.EXECUTING, 123)])
    assert event == GoalEvent(START, A, 123)
    (event,) = watch.update([GoalState(A, GoalStatus.SUCCEEDED, 123)])
    assert event == GoalEvent(END, A, 0), "the time of acceptance is not the end's"


@pytest.mark.parametrize("status", [*TERMINAL, GoalStatus.CANCELING, GoalStatus.UNKNOWN, 77])
def test_a_goal_first_seen_at_its_end_is_none(status):
    server = Server()
    assert server.says((A, status)) == []
    assert server.says((A, GoalStatus.SUCCEEDED), (B, GoalStatus.EXECUTING)) == [(START, B)]
    assert server.counters == {"goals_unseen": 1}


def test_one_goal_follows_another_in_one_message():
    server = Server()
    server.says((A, GoalStatus.EXECUTING))
    said = server.says((B, GoalStatus.ACCEPTED), (A, GoalStatus.SUCCEEDED))
    assert said == [(END, A), (START, B)]


def test_an_overlapping_goal_is_refused_for_good():
    server = Server()
    assert server.says((A, GoalStatus.EXECUTING), (B, GoalStatus.ACCEPTED)) == [(START, A)]
    assert server.says((A, GoalStatus.SUCCEEDED), (B, GoalStatus.EXECUTING)) == [(END, A)]
    assert server.says((A, GoalStatus.SUCCEEDED), (B, GoalStatus.SUCCEEDED)) == []
    assert server.counters == {"goals_refused": 1}


def test_a_server_that_forgets_its_goal_gives_it_up():
    server = Server()
    server.says((A, GoalStatus.EXECUTING))
    assert server.says((B, GoalStatus.EXECUTING)) == [(ABORT, A), (START, B)]
    assert server.counters == {"goals_vanished": 1}


def test_a_goal_without_id_is_none():
    server = Server()
    assert server.says((None, GoalStatus.EXECUTING)) == []
    assert server.counters == {"goals_without_id": 1}


# Of each goal what the server does with it: its states in order. A listener misses some of them.
LIFE = st.tuples(
    st.lists(st.sampled_from([*ACTIVE, GoalStatus.CANCELING]), max_size=3).map(sorted),
    st.sampled_from(TERMINAL),
).map(lambda life: [*life[0], life[1]])


@given(lives=st.lists(LIFE, min_size=1, max_size=5), data=st.data())
def test_each_goal_that_is_seen_in_time_is_one_episode_or_refused(lives, data):
    """A real server: states only advance; messages are lost, goals expire after their end."""
    server = Server()
    at = [-1] * len(lives)  # the state each goal is in; -1: not there yet
    told: list[tuple[BoundaryKind, uuid.UUID]] = []
    first_seen = {}
    for _ in range(30):
        goal = data.draw(st.integers(0, len(lives) - 1))
        at[goal] = min(at[goal] + 1, len(lives[goal]) - 1)
        if data.draw(st.booleans()):
            continue  # lost
        states = [(uuid.UUID(int=i + 1), lives[i][s]) for i, s in enumerate(at) if s >= 0]
        for goal_id, status in states:
            first_seen.setdefault(goal_id, status)
        told += server.says(*states)
    # The last word of the server is latched: it does arrive.
    told += server.says(*((uuid.UUID(int=i + 1), life[-1]) for i, life in enumerate(lives)))
    check(told)
    assert len(told) % 2 == 0, "an episode is left open"
    started = [goal for kind, goal in told if kind is START]
    assert all(first_seen[goal] in ACTIVE for goal in started)
    seen_active = sum(status in ACTIVE for status in first_seen.values())
    assert len(started) + server.counters["goals_refused"] == seen_active
    for kind, goal in told:
        if kind is not START:
            canceled = lives[goal.int - 1][-1] is GoalStatus.CANCELED
            assert kind is (ABORT if canceled else END)


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from([None, A, B, C]), st.integers(-1, 8)), max_size=5),
        max_size=30,
    )
)
def test_nonsense_does_not_confuse_it(messages):
    """Goals that come back to life, ids twice in one message, numbers that are no status."""
    server = Server()
    told = []
    for message in messages:
        told += server.says(*message)
        open_goal = told[-1][1] if len(told) % 2 else None
        assert server.watch.running == open_goal
    check(told)


def check(told):
    """START and its end take turns, and belong to the same goal."""
    for i, (kind, goal) in enumerate(told):
        assert (kind is START) == (i % 2 == 0)
        if i % 2:
            assert goal == told[i - 1][1]
