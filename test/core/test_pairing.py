"""Approximate-time pairing: its promises, and agreement with message_filters."""

import random
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.core.pairing import ApproximatePairing

MS = 1_000_000
NAMES = ("exo", "gripper", "third")


@st.composite
def camera_streams(draw, ambiguous=True):
    """Two or three cameras: own phase and jitter; losses, duplicates. Each in its own order."""
    period = draw(st.sampled_from([33, 50, 100])) * MS
    streams = {}
    for name in NAMES[: draw(st.integers(2, 3))]:
        phase = draw(st.integers(0, period // (1 if ambiguous else 10)))
        stamps = [
            10**9 + i * period + phase + draw(st.integers(0, period // 20))
            for i in range(draw(st.integers(0, 25)))
            if draw(st.integers(0, 9))
        ]
        streams[name] = stamps
    return period, streams


def interleave(streams, order):
    """One arrival order of the streams' messages; each stream keeps its own order."""
    left = {name: list(stamps) for name, stamps in streams.items()}
    while any(left.values()):
        name = order.choice([n for n, stamps in left.items() if stamps])
        yield name, left[name].pop(0)


def run(streams, arrivals, slop_ns, queue_size=100):
    pairing = ApproximatePairing(list(streams), slop_ns, queue_size)
    pairs = []
    for name, stamp in arrivals:
        pairs += pairing.add(name, stamp, (name, stamp))
    return pairing, pairs


@given(camera_streams(), st.randoms(use_true_random=False), st.integers(0, 120))
def test_pairs_are_ordered_within_the_slop_and_use_each_message_once(case, order, slop_ms):
    _, streams = case
    pairing, pairs = run(streams, interleave(streams, order), slop_ms * MS)
    seen = set()
    for pair in pairs:
        assert max(pair.stamps_ns) - min(pair.stamps_ns) <= slop_ms * MS
        assert pair.stamp_ns == pair.stamps_ns[0]
        assert pair.messages == tuple(zip(streams, pair.stamps_ns, strict=True))
        assert not seen & set(pair.messages)
        seen |= set(pair.messages)
    assert all(a.stamp_ns < b.stamp_ns for a, b in pairwise(pairs))
    for name, stamps in streams.items():
        lost = sum(pairing.dropped(name).values())
        assert len(stamps) == len(pairs) + lost + pairing.waiting(name)


@given(camera_streams(), st.randoms(use_true_random=False), st.randoms(use_true_random=False))
def test_pairs_do_not_depend_on_how_streams_interleave(case, one, other):
    period, streams = case
    _, first = run(streams, interleave(streams, one), period // 2)
    _, second = run(streams, interleave(streams, other), period // 2)
    assert first == second


def test_one_stream_passes_through():
    pairing = ApproximatePairing(["exo"], 0)
    assert [pairing.add("exo", s, s)[0].messages for s in (1, 5, 9)] == [(1,), (5,), (9,)]
    assert pairing.add("exo", 9, 9) == []
    assert pairing.add("exo", 4, 4) == []
    assert pairing.dropped("exo") == {"duplicate": 1, "out_of_order": 1}


def test_each_loss_is_counted_with_its_reason():
    pairing = ApproximatePairing(["exo", "gripper"], 10 * MS, queue_size=3)
    for i in range(5):
        pairing.add("exo", i * 100 * MS, None)
    assert pairing.dropped("exo") == {"queue_full": 2}
    pairing.add("exo", 200 * MS, None)
    assert pairing.dropped("exo") == {"queue_full": 2, "duplicate": 1}
    pairs = pairing.add("gripper", 305 * MS, None)
    assert [p.stamps_ns for p in pairs] == [(300 * MS, 305 * MS)]
    assert pairing.dropped("exo") == {"queue_full": 2, "duplicate": 1, "unmatched": 1}
    pairing.add("gripper", 100 * MS, None)
    assert pairing.dropped("gripper") == {"out_of_order": 1}
    assert pairing.waiting("exo") == 1
    pairing.give_up_waiting()
    assert pairing.dropped("exo")["unmatched"] == 2


def test_a_late_message_finds_its_place_while_it_waits():
    pairing = ApproximatePairing(["exo", "gripper"], 10 * MS)
    for stamp in (200, 100, 300):
        pairing.add("exo", stamp * MS, stamp)
    pairs = [p for s in (100, 200, 300) for p in pairing.add("gripper", s * MS, s)]
    assert [p.messages for p in pairs] == [(100, 100), (200, 200), (300, 300)]


def test_after_a_reset_time_may_start_anew():
    pairing = ApproximatePairing(["exo", "gripper"], 10 * MS)
    pairing.add("exo", 1000 * MS, None)
    pairing.add("gripper", 1000 * MS, None)
    pairing.add("exo", 1100 * MS, None)
    assert pairing.add("gripper", 0, None) == []
    pairing.reset()
    assert pairing.dropped("exo") == {"clock_jump": 1}
    pairing.add("exo", 0, None)
    assert len(pairing.add("gripper", 0, None)) == 1


@pytest.mark.parametrize(
    "arguments", [([], 0), (["a", "a"], 0), (["a"], -1), (["a"], 0, 0)], ids=str
)
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError, match=r"streams|slop_ns|queue_size"):
        ApproximatePairing(*arguments)


def test_message_filters_makes_the_same_pairs():
    """On streams with one possible partner each, both synchronisers agree to the last pair."""
    message_filters = pytest.importorskip("message_filters")
    time = pytest.importorskip("rclpy.time")
    for seed in range(20):
        rng = random.Random(seed)
        period = rng.choice([33, 100]) * MS
        phases = {name: rng.randint(0, period // 5) for name in NAMES[: rng.choice([2, 3])]}
        streams = {
            name: [
                10**9 + i * period + phase + rng.randint(0, period // 10)
                for i in range(60)
                if rng.random() > 0.1
            ]
            for name, phase in phases.items()
        }
        arrivals = sorted(
            ((name, stamp) for name, stamps in streams.items() for stamp in stamps),
            key=lambda arrival: arrival[1],
        )
        slop_ns = period * 2 // 5
        theirs = []
        filters = {name: message_filters.SimpleFilter() for name in streams}
        sync = message_filters.ApproximateTimeSynchronizer(
            list(filters.values()), 10, slop_ns / 1e9
        )
        sync.registerCallback(lambda *m, out=theirs: out.append(tuple(x.name for x in m)))
        for name, stamp in arrivals:
            header = SimpleNamespace(stamp=time.Time(nanoseconds=stamp))
            filters[name].signalMessage(SimpleNamespace(header=header, name=(name, stamp)))
        _, ours = run(streams, arrivals, slop_ns)
        assert [pair.messages for pair in ours] == theirs
        assert len(ours) > 20
