"""Keyframe selection and the bounded buffer, against what they promise."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.core.keyframes import KeyframeBuffer, select_keyframes

STAMPS = st.lists(st.integers(0, 10**12), min_size=1, max_size=60)
RATES = st.sampled_from([3_000_000, 33_333_333, 100_000_000, 500_000_000])


@st.composite
def streams(draw):
    """Irregular rates, pauses and bursts; ascending and distinct."""
    stamp, stamps = draw(st.integers(0, 10**15)), []
    for _ in range(draw(st.integers(1, 6))):
        period = draw(RATES)
        for _ in range(draw(st.integers(1, 60))):
            stamp += max(1, period + draw(st.integers(-period // 3, period // 3)))
            stamps.append(stamp)
        stamp += draw(st.sampled_from([0, 10**9, 60 * 10**9]))
    return stamps


def test_even_sequence_gives_first_last_and_the_thirds():
    assert select_keyframes(range(0, 1000, 10), 4) == [0, 33, 66, 99]
    assert select_keyframes([5, 6], 2) == [0, 1]


def test_one_keyframe_is_the_state_reached():
    assert select_keyframes([1, 2, 3], 1) == [2]


@pytest.mark.parametrize(("stamps", "t"), [([1, 2, 3], 4), ([], 1), ([1], 0), ([2, 1], 2)])
def test_what_cannot_be_selected_is_refused(stamps, t):
    with pytest.raises(ValueError, match=r"keyframes|at least 1|ascending"):
        select_keyframes(stamps, t)


@given(STAMPS, st.integers(2, 8))
def test_selection_is_increasing_with_both_ends(stamps, t):
    stamps = sorted(stamps)
    if t > len(stamps):
        with pytest.raises(ValueError, match="cannot be picked"):
            select_keyframes(stamps, t)
        return
    chosen = select_keyframes(stamps, t)
    assert len(chosen) == t
    assert (chosen[0], chosen[-1]) == (0, len(stamps) - 1)
    assert all(a < b for a, b in pairwise(chosen))


@given(STAMPS, st.integers(3, 8))
def test_no_frame_between_the_neighbours_is_nearer(stamps, t):
    stamps = sorted(set(stamps))
    if t > len(stamps):
        return
    chosen = select_keyframes(stamps, t)
    for step in range(1, t - 1):
        target = stamps[0] * (t - 1) + (stamps[-1] - stamps[0]) * step
        allowed = range(chosen[step - 1] + 1, len(stamps) - (t - step) + 1)
        best = min(abs(stamps[i] * (t - 1) - target) for i in allowed)
        assert abs(stamps[chosen[step]] * (t - 1) - target) == best


@given(streams(), st.integers(1, 6), st.integers(12, 40))
def test_buffer_is_bounded_and_keeps_both_ends(stamps, t, capacity):
    buffer = KeyframeBuffer(t, capacity, origin_ns=stamps[0])
    for count, stamp in enumerate(stamps, 1):
        buffer.add(stamp, stamp)
        kept = buffer.items()
        assert len(kept) <= capacity + 1
        assert kept[0][0] == stamps[0]
        assert kept[-1][0] == stamp
        if count >= t:
            assert len(buffer.select()) == t
    assert all(stamp == payload for stamp, payload in buffer.items())


@given(streams(), st.integers(12, 40))
def test_every_frame_has_a_kept_one_within_one_stride(stamps, capacity):
    buffer = KeyframeBuffer(4, capacity, origin_ns=stamps[0])
    for stamp in stamps:
        buffer.add(stamp, None)
    kept = [stamp for stamp, _ in buffer.items()]
    for stamp in stamps:
        assert any(0 <= stamp - k < buffer.stride_ns for k in kept)
    if buffer.stride_ns > 1:
        # So the spacing is even to a small part of the episode, whatever its length.
        assert buffer.stride_ns < 2 * (stamps[-1] - stamps[0]) / (capacity - 1) + 1


@given(streams(), st.integers(12, 40), st.randoms(use_true_random=False))
def test_kept_frames_do_not_depend_on_the_order_of_arrival(stamps, capacity, shuffle):
    in_order = KeyframeBuffer(4, capacity, origin_ns=stamps[0])
    for stamp in stamps:
        in_order.add(stamp, stamp)
    arrived = list(stamps) + stamps[:: random.Random(0).randint(2, 5)]  # with duplicates
    shuffle.shuffle(arrived)
    shuffled = KeyframeBuffer(4, capacity, origin_ns=stamps[0])
    for stamp in arrived:
        shuffled.add(stamp, stamp)
    # Out of order, a slot may have been merged before its earliest frame came: that frame then
    # replaces a later one, so what is kept is the same.
    assert shuffled.items() == in_order.items()


@given(streams())
def test_wants_says_what_add_does(stamps):
    buffer = KeyframeBuffer(4, 12)
    for stamp in stamps + stamps[:5]:
        assert buffer.wants(stamp) == buffer.add(stamp, None)


def test_few_frames_of_a_long_episode_are_wanted():
    buffer = KeyframeBuffer(4, 64)
    wanted = sum(buffer.add(i * 33_333_333, None) for i in range(30 * 600))
    assert wanted < 400  # of 18000: what must be decoded grows with the logarithm of the time


def test_of_two_frames_with_one_stamp_the_first_stays():
    buffer = KeyframeBuffer(1, 4)
    buffer.add(7, "first")
    buffer.add(7, "second")
    assert buffer.items() == [(7, "first")]


@pytest.mark.parametrize(("t", "capacity"), [(0, 10), (4, 7)])
def test_impossible_sizes_are_refused(t, capacity):
    with pytest.raises(ValueError, match="at least"):
        KeyframeBuffer(t, capacity)
