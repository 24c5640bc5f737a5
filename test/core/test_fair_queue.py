"""Clients take turns, each in its order, and nothing is lost or done twice."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.core.fair_queue import FairQueue, Request


def put(queue: FairQueue[int], *clients: str) -> None:
    for number, client in enumerate(clients):
        assert queue.put(Request(client, number, came_at=number))


def names(batch: list[Request[int]]) -> str:
    return "".join(f"{request.client}{request.item}" for request in batch)


def test_clients_take_turns_and_keep_their_order() -> None:
    queue: FairQueue[int] = FairQueue(10)
    put(queue, "a", "a", "a", "b", "c", "b")
    assert names(queue.take(2)) == "a0b3"
    assert names(queue.take(9)) == "c4a1b5a2"
    assert len(queue) == 0


def test_a_client_has_its_bound() -> None:
    queue: FairQueue[int] = FairQueue(2)
    put(queue, "a", "a", "b")
    assert not queue.put(Request("a", 9, 0))
    assert queue.waiting("a") == 2
    assert queue.put(Request("b", 9, 0))


def test_what_is_put_back_is_done_alone_and_first() -> None:
    queue: FairQueue[int] = FairQueue(10)
    put(queue, "a", "b", "a")
    batch = queue.take(3)
    put(queue, "b", "c")
    queue.put_back(batch)
    assert [names(queue.take(5)) for _ in range(5)] == ["a0", "b1", "c1", "a2", "b0"]


def test_nobody_is_served_who_has_stopped_waiting() -> None:
    queue: FairQueue[str] = FairQueue(10)
    for item, until in (("late", 5), ("later", 9), ("for ever", None)):
        queue.put(Request("a", item, 0, until))
    assert queue.take_expired(4) == []
    assert [r.item for r in queue.take_expired(5)] == ["late"]
    assert [r.item for r in queue.take(9)] == ["later", "for ever"]


CLIENT = st.sampled_from("abcd")
STEP = st.one_of(
    st.tuples(st.just("put"), CLIENT),
    st.tuples(st.just("take"), st.integers(1, 5)),
    st.tuples(st.just("put back"), st.integers(1, 5)),
    st.tuples(st.just("expire"), st.integers(0, 60)),
)


@given(st.lists(STEP, max_size=60))
def test_whatever_happens_everything_leaves_once_and_in_order(steps: list) -> None:
    queue: FairQueue[int] = FairQueue(5)
    accepted: list[Request[int]] = []
    left: list[Request[int]] = []
    for now, (what, argument) in enumerate(steps):
        if what == "put":
            request = Request(argument, now, now, until=now + 30 if now % 3 else None)
            if queue.put(request):
                accepted.append(request)
        elif what == "take":
            waiting = {c for c in "abcd" if queue.waiting(c)}
            batch = queue.take(argument)
            assert len(batch) <= argument
            assert bool(batch) == bool(waiting)
            served = Counter(request.client for request in batch)
            if served and max(served.values()) > 1:
                assert set(served) == waiting, "a second turn only after everybody's first"
            assert len(batch) == 1 or not any(request.alone for request in batch)
            left += batch
        elif what == "put back":
            batch = queue.take(argument)
            queue.put_back(batch)
            assert all(request.alone for request in batch)
        else:
            late = queue.take_expired(argument)
            assert all(request.until <= argument for request in late)
            left += late
    left += queue.take_all()
    assert len(queue) == 0
    assert sorted(map(id, left)) == sorted(map(id, accepted))


@given(st.lists(CLIENT, min_size=1, max_size=30), st.integers(1, 4))
def test_each_clients_order_is_kept(clients: list[str], limit: int) -> None:
    queue: FairQueue[int] = FairQueue(100)
    put(queue, *clients)
    taken = []
    while batch := queue.take(limit):
        taken += batch
    for client in set(clients):
        numbers = [r.item for r in taken if r.client == client]
        assert numbers == [n for n, c in enumerate(clients) if c == client]
