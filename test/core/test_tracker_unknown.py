"""The tracker by example: every UNKNOWN that needs no detector, jumps in time, stray events."""

from tracker_bench import MS, ONE, SUCCESS, T0, TWO, Bench, S, bad_decode, film_one_episode

from ifailsense_ros.core.effects import (
    Boundary,
    BoundaryKind,
    ClockJumped,
    Judge,
)
from ifailsense_ros.core.verdict import Reason

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


def test_a_camera_that_dies_early_is_named_whatever_is_left_of_its_pictures():
    for filmed_ms in (0, 200):
        bench = Bench()
        bench.film(500)
        bench.start()
        bench.film(filmed_ms)
        bench.film(5000, cameras=("exo",))
        bench.end()
        bench.wait(500)
        assert bench.only_reason() is Reason.CAMERA_STALE, filmed_ms
        assert "camera gripper had sent nothing" in bench.verdicts[0].judgement.detail


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


def test_a_camera_is_not_silent_if_end_overtook_its_pictures():
    bench = Bench(camera_silent_ns=20 * S)
    bench.film(200)
    bench.wait(30_000)
    bench.start()
    bench.end(offset_ms=1000)  # the node takes events first
    for stamp in range(T0 + bench.now, T0 + bench.now + 1001 * MS, 100 * MS):
        for camera in ("exo", "gripper"):
            bench.do(bench.tracker.image(camera, stamp, bench.now))
        bench.do(bench.tracker.pair(stamp, bench.decoder(stamp), bench.now))
    bench.answer()
    assert [verdict.judgement for verdict in bench.verdicts] == [SUCCESS]


def test_a_camera_that_wakes_after_end_was_silent():
    bench = Bench(camera_stale_ns=60 * S)
    bench.start()
    bench.film(1000)
    bench.wait(2500)
    bench.end()
    bench.wait(50)
    for camera in ("exo", "gripper"):  # without a stamp it says nothing of when
        bench.do(bench.tracker.bad_image(camera, "cut off", bench.now))
    bench.film(500)
    assert bench.only_reason() is Reason.CAMERA_STALE


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


def test_a_text_after_end_is_for_the_next_episode():
    bench = Bench(instruction_grace_ns=10 * S)
    bench.say("lift the block")
    bench.start(text="")
    bench.film(2000)
    bench.end()
    bench.say("push the block")
    bench.film(11_000)
    bench.answer()
    assert bench.verdicts[0].instruction == "lift the block"
