"""The tracker by example: which pairs belong to an episode, and what becomes of them."""

import dataclasses

import numpy as np
import pytest
from tracker_bench import MS, ONE, SUCCESS, T0, TWO, Bench, S, bad_decode, film_one_episode

from ifailsense_ros.core.effects import (
    Boundary,
    BoundaryKind,
    Judge,
    TrackerConfig,
)
from ifailsense_ros.core.errors import ImageError
from ifailsense_ros.core.verdict import Reason

# --- the good path ------------------------------------------------------------------------------


def test_an_episode_becomes_four_even_keyframes_and_one_verdict():
    bench = Bench(pre_roll_ns=0)
    bench.start(episode_id=ONE)
    stamps = bench.film(3100)
    bench.end(offset_ms=-1)
    (judge,) = bench.of(Judge) or bench.wait(400)
    episode = judge.episode
    assert episode.episode_id == ONE
    assert episode.keyframe_stamps_ns == tuple(stamps[i] for i in (0, 10, 20, 30))
    assert (episode.start_ns, episode.end_ns) == (T0, T0 + 3100 * MS - MS)
    assert [v.shape for v in episode.keyframes[0].views] == [(2, 2, 3)] * 2
    assert [int(v.mean()) for v in episode.keyframes[3].views] == [0, 1]
    bench.now += 250 * MS
    (publish,) = bench.answer()
    verdict = publish.verdict
    assert verdict.judgement == SUCCESS
    assert verdict.keyframe_stamps_ns == episode.keyframe_stamps_ns
    assert verdict.model_id == "double@0"
    assert verdict.instruction == "lift the block"
    assert publish.episode is episode
    assert bench.tracker.idle


def test_the_boundaries_are_told():
    bench = Bench()
    film_one_episode(bench, episode_id=ONE)
    assert [(b.kind, b.episode_id) for b in bench.of(Boundary)] == [
        (BoundaryKind.START, ONE),
        (BoundaryKind.END, ONE),
    ]


def test_only_few_frames_are_decoded():
    bench = Bench(buffer_capacity=16)
    bench.start()
    bench.film(60_000, step_ms=33)
    bench.end()
    bench.wait(1000)
    assert len(bench.decoded) < 120  # of 1818
    assert len(bench.decoded) == len(set(bench.decoded))


# --- what belongs to an episode -----------------------------------------------------------------


def keyframes(bench):
    bench.wait(1000)
    return bench.of(Judge)[-1].episode.keyframe_stamps_ns


def test_stamps_decide_not_arrival():
    """START and END that arrive late, within the ring, change nothing."""
    in_time = Bench()
    in_time.film(1000)
    in_time.start()
    in_time.film(2000)
    in_time.end()
    in_time.film(1000)
    late = Bench()
    late.film(1000)
    late.film(300)
    late.start(offset_ms=-300)
    late.film(1700)
    late.film(400)
    late.end(offset_ms=-400)
    late.film(600)
    assert keyframes(in_time) == keyframes(late)
    assert in_time.of(Judge)[0].episode.keyframe_stamps_ns[0] == T0 + 800 * MS  # the pre-roll


def test_pairs_on_their_way_at_end_are_waited_for():
    bench = Bench(pre_roll_ns=0)
    bench.start()
    bench.film(2000)
    missing = T0 + bench.now
    bench.wait(100)
    bench.end(offset_ms=-50)
    assert not bench.of(Judge)
    bench.do(bench.tracker.pair(missing, bench.decoder(missing), bench.now))
    assert not bench.of(Judge), "a pair before END does not prove that all have come"
    bench.film(100)
    assert bench.of(Judge)[0].episode.keyframe_stamps_ns[-1] == missing


def test_after_the_grace_nothing_more_is_waited_for():
    bench = Bench()
    film = bench.film(500)
    bench.start()
    bench.film(1000)
    bench.end(offset_ms=50)
    bench.wait(299)
    assert not bench.of(Judge)
    bench.wait(1)
    assert bench.of(Judge)
    assert film[0] not in bench.of(Judge)[0].episode.keyframe_stamps_ns


def test_fewer_pairs_than_t_are_repeated_where_the_checkpoint_allows_it():
    bench = Bench(min_keyframes=2, pre_roll_ns=0)
    bench.start()
    a, b = bench.film(400, step_ms=200)
    bench.end()
    assert keyframes(bench) == (a, a, b, b)


def test_broken_pictures_are_passed_over():
    bench = Bench(pre_roll_ns=0)
    bench.start()
    good = bench.film(300)
    bench.film(100, decode=bad_decode)
    good += bench.film(2000)
    bench.end(offset_ms=-50)
    assert set(keyframes(bench)) <= set(good)
    bench.do(bench.tracker.shut_down(bench.now))
    assert bench.tracker.fates.dropped["bad_image"] == 1


def late(stamp, decoded, broken=()):
    """A pair whose pictures are decoded when they are chosen, as those of `core.pictures` are."""

    def decode():
        decoded.append(stamp)
        if stamp in broken:
            raise ImageError("camera exo: corrupt")
        return np.full((3, 4, 3), 7, np.uint8)

    return lambda: [decode, decode]


def film_late(bench, count, decoded, broken=()):
    for step in range(count):
        stamp = T0 + bench.now
        bench.film(100, decode=late(stamp, decoded, {T0 + step * 100 * MS for step in broken}))


def test_pictures_that_may_wait_are_decoded_for_keyframes_only():
    bench, decoded = Bench(pre_roll_ns=0, buffer_capacity=16), []
    bench.start()
    film_late(bench, 300, decoded)
    assert decoded == []
    bench.end(offset_ms=-50)
    chosen = keyframes(bench)
    assert sorted(decoded) == sorted(2 * chosen)
    (judge,) = bench.of(Judge)
    assert {v.shape for k in judge.episode.keyframes for v in k.views} == {(2, 2, 3)}, "shrunk"


def test_a_picture_found_broken_when_it_is_chosen_is_passed_over_and_counted():
    """First and last picture of the episode, and all of its end but for one."""
    bench, decoded = Bench(pre_roll_ns=0), []
    bench.start()
    broken = [0, *range(20, 24), 25, 26]
    film_late(bench, 27, decoded, broken)
    bench.end(offset_ms=-50)
    chosen = keyframes(bench)
    assert not set(chosen) & {T0 + step * 100 * MS for step in broken}
    assert chosen[-1] == T0 + 2400 * MS
    bench.do(bench.tracker.shut_down(bench.now))
    fates = bench.tracker.fates
    refused = {stamp for stamp in decoded if (stamp - T0) // (100 * MS) in broken}
    assert fates.dropped["bad_image"] == len(refused) >= 3
    assert fates.used + fates.decimated + fates.dropped.total() == 27


def test_only_broken_pictures_that_were_to_be_decoded_late():
    bench, decoded = Bench(pre_roll_ns=0), []
    bench.start()
    film_late(bench, 20, decoded, range(20))
    bench.end(offset_ms=-50)
    bench.film(500)
    assert bench.only_reason() is Reason.BAD_IMAGE
    assert "camera exo: corrupt" in bench.verdicts[0].judgement.detail
    bench.do(bench.tracker.shut_down(bench.now))
    assert bench.tracker.fates.dropped["bad_image"] == 20


def test_a_decoder_that_breaks_does_not_break_the_tracker():
    bench = Bench(pre_roll_ns=0)
    bench.start()
    bench.film(100, decode=lambda: 1 / 0)
    bench.film(1000)
    bench.end()
    assert len(keyframes(bench)) == 4


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"min_keyframes": 0},
        {"min_keyframes": 5},
        {"cameras": ()},
        {"buffer_capacity": 7},
        {"queue_size": 0},
        {"recent_count": 0},
        {"end_grace_ns": -1},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        TrackerConfig(**settings)


def test_the_ring_is_emptied_when_the_cameras_have_gone():
    bench = Bench()
    bench.film(500)
    assert bench.tracker.buffered_pairs == 5
    bench.wait(6000)
    assert bench.tracker.buffered_pairs == 0
    assert bench.tracker.fates.decimated == 5


# --- settings that change while it works ----------------------------------------------------------


def test_new_rules_hold_from_the_next_start():
    bench = Bench(end_grace_ns=300 * MS)
    bench.film(500)
    bench.start(episode_id=ONE)
    bench.film(1000)
    bench.tracker.reconfigure(
        dataclasses.replace(bench.config, end_grace_ns=0, episode_timeout_ns=2 * S)
    )
    bench.film(2500)
    assert bench.tracker.running_id == ONE, "the old rules know no time-out"
    bench.wait(50)
    bench.end()
    bench.wait(250)
    assert not bench.of(Judge), "the old grace is not over"
    bench.wait(50)
    assert len(bench.of(Judge)) == 1
    bench.answer()
    bench.start(episode_id=TWO)
    bench.film(2000)
    assert len(bench.of(Judge)) == 2, "timed out, and judged without grace"


def test_a_new_queue_size_holds_at_once():
    bench = Bench(ready=False, queue_size=1)
    film_one_episode(bench)
    bench.tracker.reconfigure(dataclasses.replace(bench.config, queue_size=2))
    film_one_episode(bench)
    assert not bench.verdicts
    film_one_episode(bench)
    assert bench.only_reason() is Reason.QUEUE_FULL


@pytest.mark.parametrize("change", [{"num_keyframes": 5}, {"cameras": ("exo",)}], ids=str)
def test_what_belongs_to_the_checkpoint_cannot_change(change):
    bench = Bench()
    with pytest.raises(ValueError, match=next(iter(change))):
        bench.tracker.reconfigure(dataclasses.replace(bench.config, **change))
    assert bench.tracker.config == bench.config
