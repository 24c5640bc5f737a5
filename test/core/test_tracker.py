"""The tracker by example: who belongs to an episode, what ends it, and every UNKNOWN's reason."""

import dataclasses
import uuid

import numpy as np
import pytest

from ifailsense_ros.core.effects import (
    Abandon,
    Boundary,
    BoundaryKind,
    ClockJumped,
    InstructionChange,
    Judge,
    Publish,
    TrackerConfig,
)
from ifailsense_ros.core.errors import ImageError
from ifailsense_ros.core.tracker import Tracker
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason

MS = 1_000_000
S = 1000 * MS
T0 = 1000 * S
SUCCESS = Judgement(Outcome.SUCCESS, p_success=0.9)
ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2)


class Bench:
    """A tracker with a clock: stamps are T0 + t, steady time is t."""

    def __init__(self, ready=True, **settings):
        self.config = dataclasses.replace(TrackerConfig(), **settings)
        self.tracker = Tracker(self.config, shrink=lambda v: v[:2, :2])
        self.now = 0
        self.effects = []
        self.decoded = []
        if ready:
            self.do(self.tracker.detector_ready(0, "double@0"))

    def do(self, effects):
        self.effects += effects
        return effects

    def of(self, kind):
        return [e for e in self.effects if isinstance(e, kind)]

    @property
    def verdicts(self):
        return [e.verdict for e in self.of(Publish)]

    def only_reason(self):
        (verdict,) = self.verdicts
        assert verdict.judgement.outcome is Outcome.UNKNOWN
        return verdict.judgement.reason

    def wait(self, ms):
        self.now += ms * MS
        return self.do(self.tracker.tick(self.now))

    def start(self, offset_ms=0, episode_id=None, text="lift the block"):
        stamp = T0 + self.now + offset_ms * MS
        return self.do(self.tracker.start(stamp, self.now, episode_id, text))

    def end(self, offset_ms=0, episode_id=None):
        return self.do(self.tracker.end(T0 + self.now + offset_ms * MS, self.now, episode_id))

    def say(self, text):
        return self.do(self.tracker.instruction(text, self.now))

    def film(self, ms, step_ms=100, cameras=("exo", "gripper"), decode=None):
        """Pictures at the beginning of each step; returns the stamps."""
        stamps = []
        for _ in range(ms // step_ms):
            stamp = T0 + self.now
            for camera in cameras:
                self.do(self.tracker.image(camera, stamp, self.now))
            if len(cameras) == 2:
                self.do(self.tracker.pair(stamp, decode or self.decoder(stamp), self.now))
            stamps.append(stamp)
            self.wait(step_ms)
        return stamps

    def decoder(self, stamp):
        def decode():
            self.decoded.append(stamp)
            return [np.full((3, 4, 3), camera, np.uint8) for camera in range(2)]

        return decode

    def answer(self, judgement=SUCCESS):
        request = self.of(Judge)[-1].request_id
        return self.do(self.tracker.result(request, judgement, self.now))


def bad_decode():
    raise ImageError("encoding 'x' is unknown")


def film_one_episode(bench, ms=2000, **start):
    bench.film(500)
    bench.start(**start)
    bench.film(ms)
    bench.end()
    bench.film(500)


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


def test_a_decoder_that_breaks_does_not_break_the_tracker():
    bench = Bench(pre_roll_ns=0)
    bench.start()
    bench.film(100, decode=lambda: 1 / 0)
    bench.film(1000)
    bench.end()
    assert len(keyframes(bench)) == 4


# --- instructions -------------------------------------------------------------------------------


def test_the_latest_instruction_is_used_and_normalised():
    bench = Bench()
    bench.say(" open \n the  drawer ")
    film_one_episode(bench, text="")
    assert bench.of(Judge)[0].episode.instruction == "open the drawer"


def test_an_instruction_shortly_after_start_still_counts():
    bench = Bench()
    bench.say("the old one")
    bench.film(500)
    bench.start(text="")
    bench.film(400)
    bench.say("the new one")
    bench.film(1000)
    bench.end()
    bench.film(500)
    assert bench.of(Judge)[0].episode.instruction == "the new one"


def test_an_instruction_is_waited_for_after_an_early_end():
    bench = Bench()
    bench.film(1000)
    bench.start(text="", offset_ms=-900)
    bench.end()
    bench.film(200)
    assert not bench.of(Publish)
    bench.say("push it")
    bench.film(400)
    assert bench.of(Judge)[0].episode.instruction == "push it"


def test_one_in_start_is_not_replaced_by_a_latched_one():
    bench = Bench()
    bench.film(200)
    bench.start(text="mine")
    bench.say("an older one that arrives late")
    bench.film(1000)
    bench.end()
    bench.film(500)
    assert bench.of(Judge)[0].episode.instruction == "mine"


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_no_instruction(text):
    bench = Bench()
    bench.say(text)
    film_one_episode(bench, text="")
    assert bench.only_reason() is Reason.NO_INSTRUCTION


def test_one_that_comes_too_late_is_none():
    bench = Bench()
    bench.film(500)
    bench.start(text="")
    bench.film(600)
    bench.say("too late")
    bench.film(600)
    bench.end()
    bench.film(500)
    assert bench.only_reason() is Reason.NO_INSTRUCTION


def change_instruction(change):
    bench = Bench(instruction_change=change)
    bench.film(500)
    bench.start(text="lift it")
    bench.film(2000)
    bench.say("lift  it ")
    assert bench.tracker.running_id
    bench.say("push it")
    return bench


def test_a_changed_instruction_makes_it_unknown():
    bench = change_instruction(InstructionChange.UNKNOWN)
    assert bench.only_reason() is Reason.INSTRUCTION_CHANGED
    assert bench.verdicts[0].instruction == "lift it"
    bench.end()
    assert bench.tracker.counters["end_without_start"] == 1


def test_a_changed_instruction_ends_it():
    bench = change_instruction(InstructionChange.END)
    bench.film(500)
    assert bench.of(Judge)[0].episode.instruction == "lift it"
    assert bench.of(Judge)[0].episode.end_ns == T0 + 2400 * MS  # the newest picture then


def test_a_changed_instruction_is_ignored():
    bench = change_instruction(InstructionChange.IGNORE)
    bench.end()
    bench.film(500)
    assert bench.of(Judge)[0].episode.instruction == "lift it"


# --- every other reason that needs no detector --------------------------------------------------


def test_too_few_keyframes():
    bench = Bench(pre_roll_ns=0)
    bench.start()
    bench.film(300)
    bench.end(offset_ms=-50)
    bench.film(500)
    assert bench.only_reason() is Reason.TOO_FEW_KEYFRAMES
    assert "3 pairs" in bench.verdicts[0].judgement.detail


def test_events_of_another_clock_are_pointed_out():
    bench = Bench()
    bench.start(offset_ms=3_600_000)
    bench.film(2000)
    bench.end(offset_ms=3_600_000)
    bench.film(500)
    assert bench.only_reason() is Reason.TOO_FEW_KEYFRAMES
    assert "use_sim_time" in bench.verdicts[0].judgement.detail


def test_end_before_start_is_pointed_out():
    bench = Bench()
    bench.film(2000)
    bench.start()
    bench.end(offset_ms=-500)
    bench.film(500)
    assert bench.only_reason() is Reason.TOO_FEW_KEYFRAMES
    assert "before START" in bench.verdicts[0].judgement.detail


def test_one_camera_absent():
    bench = Bench()
    bench.start()
    bench.film(2000, cameras=("exo",))
    bench.end()
    bench.wait(500)
    assert bench.only_reason() is Reason.CAMERA_ABSENT
    assert "camera gripper" in bench.verdicts[0].judgement.detail


def test_all_cameras_absent():
    bench = Bench()
    bench.start()
    bench.wait(2000)
    bench.end()
    bench.wait(500)
    assert bench.only_reason() is Reason.CAMERA_ABSENT
    assert "exo and gripper" in bench.verdicts[0].judgement.detail


def test_pictures_that_cannot_be_paired_are_pointed_out():
    bench = Bench()
    bench.start()
    for camera in ("exo", "gripper"):
        bench.do(bench.tracker.image(camera, T0 + bench.now, bench.now))
        bench.wait(100)
    bench.end()
    bench.wait(500)
    assert bench.only_reason() is Reason.TOO_FEW_KEYFRAMES
    assert "slop" in bench.verdicts[0].judgement.detail


def test_a_camera_that_stops_is_stale():
    bench = Bench()
    bench.start()
    bench.film(1000)
    bench.film(1500, cameras=("exo",))
    bench.end()
    bench.wait(500)
    assert bench.only_reason() is Reason.CAMERA_STALE
    assert "camera gripper fell behind" in bench.verdicts[0].judgement.detail


def test_a_camera_silent_by_the_steady_clock_is_stale():
    bench = Bench(camera_stale_ns=60 * S)
    bench.start()
    bench.film(1000)
    bench.wait(2500)
    bench.end()
    bench.wait(500)
    assert bench.only_reason() is Reason.CAMERA_STALE
    assert "exo and gripper" in bench.verdicts[0].judgement.detail


def test_a_camera_that_comes_late_did_not_see_the_beginning():
    bench = Bench()
    bench.start()
    bench.wait(1500)
    bench.film(2000)
    bench.end()
    bench.film(500)
    assert bench.only_reason() is Reason.CAMERA_STALE
    assert "beginning" in bench.verdicts[0].judgement.detail


def test_bad_images():
    bench = Bench()
    bench.start()
    bench.film(2000, decode=bad_decode)
    bench.end()
    bench.film(500, decode=bad_decode)
    assert bench.only_reason() is Reason.BAD_IMAGE
    assert "encoding 'x'" in bench.verdicts[0].judgement.detail


def test_images_refused_before_pairing():
    bench = Bench()
    bench.start()
    for _ in range(20):
        bench.do(bench.tracker.image("exo", T0 + bench.now, bench.now))
        bench.do(bench.tracker.bad_image("gripper", "no stamp", bench.now))
        bench.wait(100)
    bench.end()
    bench.wait(500)
    assert bench.only_reason() is Reason.BAD_IMAGE
    assert "camera gripper: no stamp" in bench.verdicts[0].judgement.detail


def test_aborted():
    bench = Bench()
    bench.start(episode_id=ONE)
    bench.film(1000)
    bench.do(bench.tracker.abort(T0 + bench.now, bench.now, ONE))
    assert bench.only_reason() is Reason.ABORTED
    assert bench.of(Boundary)[-1].kind is BoundaryKind.ABORT


def test_superseded():
    bench = Bench()
    bench.film(500)
    bench.start(episode_id=ONE)
    bench.film(1000)
    bench.start(episode_id=TWO)
    assert bench.only_reason() is Reason.SUPERSEDED
    assert bench.verdicts[0].episode_id == ONE
    bench.film(1000)
    bench.end()
    bench.film(500)
    assert bench.of(Judge)[0].episode.episode_id == TWO


def test_a_start_does_not_disturb_what_has_ended():
    bench = Bench()
    film_one_episode(bench, episode_id=ONE)
    bench.start(episode_id=TWO)
    bench.film(1000)
    bench.answer()
    assert [v.judgement for v in bench.verdicts] == [SUCCESS]
    assert bench.tracker.running_id == TWO


def test_queue_full():
    bench = Bench(ready=False, queue_size=2)
    for _ in range(3):
        film_one_episode(bench)
    assert bench.only_reason() is Reason.QUEUE_FULL
    bench.do(bench.tracker.detector_ready(bench.now, "double@0"))
    bench.answer()
    bench.answer()
    assert [v.judgement for v in bench.verdicts[1:]] == [SUCCESS, SUCCESS]


def test_deactivated_and_shut_down():
    for event, reason in (("deactivate", Reason.DEACTIVATED), ("shut_down", Reason.SHUT_DOWN)):
        bench = Bench()
        film_one_episode(bench)  # being judged
        film_one_episode(bench)  # queued
        bench.start()
        bench.end()  # ending
        bench.start()  # running
        bench.do(getattr(bench.tracker, event)(bench.now))
        assert [v.judgement.reason for v in bench.verdicts] == [reason] * 4
        bench.start()
        bench.answer()
        assert len(bench.verdicts) == 4
        bench.do(bench.tracker.activate(bench.now))
        assert bool(bench.start()) == (event == "deactivate")


def test_after_deactivation_the_detector_is_still_busy():
    bench = Bench()
    film_one_episode(bench)
    bench.do(bench.tracker.deactivate(bench.now))
    bench.do(bench.tracker.activate(bench.now))
    film_one_episode(bench)
    assert len(bench.of(Judge)) == 1
    bench.answer()
    assert len(bench.of(Judge)) == 2


# --- jumps in time ------------------------------------------------------------------------------


def test_a_jump_back_ends_the_running_episode():
    bench = Bench()
    bench.film(500)
    bench.start()
    bench.film(3000)
    bench.do(bench.tracker.image("exo", T0, bench.now))
    assert bench.only_reason() is Reason.CLOCK_JUMPED
    assert bench.of(ClockJumped)


def test_a_jump_back_spares_what_has_ended():
    bench = Bench()
    bench.start()
    bench.film(2000)
    bench.end()
    bench.do(bench.tracker.clock_jump(bench.now, "the clock went back", T0))
    assert not bench.verdicts
    assert len(bench.of(Judge)) == 1


def test_a_small_step_back_is_no_jump():
    bench = Bench()
    bench.start()
    bench.film(2000)
    bench.do(bench.tracker.image("exo", T0 + bench.now - 900 * MS, bench.now))
    assert not bench.of(ClockJumped)


def test_a_bag_in_a_loop():
    """The same stamps and ids come round again; START may overtake the first pictures."""
    bench = Bench()
    for lap in range(3):
        start = T0 + bench.now
        shift = lap * 5 * S
        bench.do(bench.tracker.start(start - shift, bench.now, ONE, "lift it"))
        for _ in range(50):
            stamp = T0 + bench.now - shift
            for camera in ("exo", "gripper"):
                bench.do(bench.tracker.image(camera, stamp, bench.now))
            bench.do(bench.tracker.pair(stamp, bench.decoder(stamp), bench.now))
            bench.wait(100)
        bench.do(bench.tracker.end(T0 + bench.now - shift, bench.now, ONE))
    bench.wait(500)
    for _ in range(3):
        bench.answer()
    assert [v.judgement for v in bench.verdicts] == [SUCCESS] * 3
    laps = {j.episode.keyframe_stamps_ns for j in bench.of(Judge)}
    assert len(laps) == 1


# --- events that are only counted ---------------------------------------------------------------


def test_ends_without_an_episode_are_counted():
    bench = Bench()
    bench.film(500)
    bench.end()
    bench.end(episode_id=ONE)
    bench.start(episode_id=ONE)
    bench.start(episode_id=ONE)
    bench.film(1000)
    bench.end(episode_id=TWO)
    bench.end(episode_id=ONE)
    bench.end(episode_id=ONE)
    bench.do(bench.tracker.abort(T0, bench.now, ONE))
    bench.film(1000)
    bench.answer()
    assert len(bench.verdicts) == 1
    expected = {
        "end_without_start": 2,
        "start_repeated": 1,
        "end_other_id": 1,
        "ends": 1,
        "end_repeated": 1,
        "abort_repeated": 1,
    }
    assert {k: bench.tracker.counters[k] for k in expected} == expected


def test_an_episode_timeout_is_an_end():
    bench = Bench(episode_timeout_ns=2 * S)
    bench.film(500)
    bench.start()
    bench.film(3000)
    (judge,) = bench.of(Judge)
    assert judge.episode.end_ns == T0 + 2400 * MS
    assert bench.tracker.counters["episode_timeouts"] == 1


# --- the detector -------------------------------------------------------------------------------


def test_a_hung_detector_is_abandoned_and_the_next_waits_for_a_new_one():
    bench = Bench(detector_timeout_ns=1 * S)
    film_one_episode(bench)
    first = bench.of(Judge)[0].request_id
    film_one_episode(bench)  # 3 s: the first one is over its time
    assert [a.request_id for a in bench.of(Abandon)] == [first]
    assert bench.only_reason() is Reason.DETECTOR_TIMEOUT
    assert len(bench.of(Judge)) == 1
    bench.do(bench.tracker.detector_ready(bench.now, "double@0"))
    assert len(bench.of(Judge)) == 2
    bench.do(bench.tracker.result(first, SUCCESS, bench.now))
    assert len(bench.verdicts) == 1
    assert bench.tracker.counters["late_results"] == 1
    bench.answer()
    assert len(bench.verdicts) == 2


def test_a_detector_that_never_gets_ready():
    bench = Bench(ready=False, detector_start_timeout_ns=10 * S)
    film_one_episode(bench)
    bench.wait(9000)
    assert not bench.verdicts
    bench.wait(2000)
    assert bench.only_reason() is Reason.DETECTOR_TIMEOUT


def test_a_detector_that_dies():
    bench = Bench()
    film_one_episode(bench)
    bench.do(bench.tracker.detector_lost(bench.now, "it was killed"))
    assert bench.only_reason() is Reason.DETECTOR_ERROR
    film_one_episode(bench)
    assert len(bench.of(Judge)) == 1, "asked before it was ready again"
    bench.do(bench.tracker.detector_ready(bench.now))
    bench.answer()
    assert bench.verdicts[-1].judgement == SUCCESS


def test_a_detector_that_is_gone_for_good():
    bench = Bench()
    bench.do(bench.tracker.detector_lost(bench.now, "its files are gone", for_good=True))
    film_one_episode(bench)
    assert bench.only_reason() is Reason.DETECTOR_ERROR
    assert "its files are gone" in bench.verdicts[0].judgement.detail


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
