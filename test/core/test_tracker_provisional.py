"""The tracker by example: early warnings during an episode."""

import dataclasses

import pytest
from tracker_bench import MS, ONE, SUCCESS, Bench, S, bad_decode, film_one_episode

from ifailsense_ros.core.effects import (
    Abandon,
    Judge,
    JudgeProvisional,
    PublishProvisional,
)
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason


def warned(bench):
    return [e.verdict for e in bench.of(PublishProvisional)]


def answer(bench, judgement=SUCCESS):
    """The detector answers the newest early request."""
    request = bench.of(JudgeProvisional)[-1].request_id
    return bench.do(bench.tracker.result(request, judgement, bench.now))


def test_the_running_episode_is_judged_on_what_it_has():
    bench = Bench(provisional_period_ns=1 * S)
    bench.film(500)
    bench.start(episode_id=ONE)
    stamps = bench.film(1000)
    (asked,) = bench.of(JudgeProvisional)
    episode = asked.episode
    assert episode.episode_id == ONE
    assert episode.keyframe_stamps_ns[0] == stamps[0] - 200 * MS, "from the pre-roll on"
    assert episode.keyframe_stamps_ns[-1] == stamps[-1] == episode.end_ns
    bench.wait(30)
    answer(bench, Judgement(Outcome.FAILURE, p_success=0.2))
    (verdict,) = warned(bench)
    assert verdict.episode_id == ONE
    assert verdict.judgement.outcome is Outcome.FAILURE
    assert verdict.end_ns == stamps[-1]
    assert verdict.keyframe_stamps_ns == episode.keyframe_stamps_ns
    assert verdict.latency_ns == 30 * MS
    assert verdict.model_id == "double@0"
    assert bench.tracker.running_id == ONE
    assert not bench.verdicts, "the final verdict is still to come"


def test_off_unless_asked_for():
    bench = Bench()
    film_one_episode(bench, 5000)
    assert not bench.of(JudgeProvisional)


def test_one_a_period_and_what_was_missed_is_not_made_up_for():
    bench = Bench(provisional_period_ns=500 * MS)
    bench.start()
    bench.film(500)
    assert len(bench.of(JudgeProvisional)) == 1
    bench.film(1000)
    assert len(bench.of(JudgeProvisional)) == 1, "the detector is still busy with the first"
    assert bench.tracker.counters["provisional_skipped_busy"] == 2
    answer(bench)
    bench.film(400)
    assert len(bench.of(JudgeProvisional)) == 1
    bench.film(100)
    assert len(bench.of(JudgeProvisional)) == 2


def test_with_too_few_keyframes_or_without_instruction_nobody_is_asked():
    bench = Bench(provisional_period_ns=300 * MS)
    bench.start()
    bench.film(300)
    assert bench.tracker.counters["provisional_skipped_early"] == 1
    bench.film(300)
    assert len(bench.of(JudgeProvisional)) == 1
    answer(bench)
    bench.start(text="")
    bench.film(900)
    assert len(bench.of(JudgeProvisional)) == 1
    assert bench.tracker.counters["provisional_skipped_early"] == 4


def test_a_final_judgement_waits_for_one_early_request_at_most():
    bench = Bench(provisional_period_ns=500 * MS)
    bench.start()
    bench.film(500)
    bench.end()
    bench.film(400)
    assert not bench.of(Judge), "the detector is busy with the early request"
    bench.start()
    bench.film(600)
    answer(bench)
    assert not warned(bench), "its episode is over"
    assert bench.tracker.counters["late_results"] == 1
    assert len(bench.of(Judge)) == 1
    bench.film(600)
    assert len(bench.of(JudgeProvisional)) == 1, "not while a final judgement is under way"
    bench.answer()
    bench.film(500)
    assert len(bench.of(JudgeProvisional)) == 2
    assert len(bench.verdicts) == 1


@pytest.mark.parametrize("lost", [False, True])
def test_a_detector_that_fails_early_costs_the_episode_nothing(lost):
    bench = Bench(provisional_period_ns=500 * MS, detector_timeout_ns=1 * S)
    bench.start()
    bench.film(500)
    if lost:
        bench.do(bench.tracker.detector_lost(bench.now, "it died"))
        bench.film(1000)
    else:
        bench.film(1000)
        (abandoned,) = bench.of(Abandon)
        assert abandoned.request_id == bench.of(JudgeProvisional)[0].request_id
    assert not bench.verdicts
    bench.do(bench.tracker.detector_ready(bench.now))
    bench.film(500)
    assert len(bench.of(JudgeProvisional)) == 2
    answer(bench)
    bench.end()
    bench.film(400)
    bench.answer()
    assert [v.judgement for v in bench.verdicts] == [SUCCESS]


@pytest.mark.parametrize("period_ms", [100, 250, 700])
def test_early_warnings_do_not_change_the_keyframes(period_ms):
    """Nor what becomes of broken pictures: the final verdict is that of an episode without."""

    def final(period_ns):
        bench = Bench(provisional_period_ns=period_ns)
        bench.film(300)
        bench.start()
        for part in range(8):
            bench.film(700, step_ms=33, decode=bad_decode if part == 3 else None)
            if period_ns and bench.of(JudgeProvisional):
                answer(bench)
        bench.end()
        bench.film(400)
        if not bench.of(Judge):
            answer(bench)
        (judge,) = bench.of(Judge)
        bench.answer()
        return bench, judge.episode.keyframe_stamps_ns

    plain, expected = final(0)
    bench, stamps = final(period_ms * MS)
    assert stamps == expected
    assert len(bench.of(JudgeProvisional)) >= 5
    tracker = bench.tracker
    for one in (plain.tracker, tracker):
        counted = one.fates.used + one.fates.decimated + one.fates.dropped.total()
        assert one.counters["pairs"] == counted + one.buffered_pairs


def test_the_period_can_be_changed_during_an_episode():
    bench = Bench()
    bench.start()
    bench.film(1000)
    bench.tracker.reconfigure(dataclasses.replace(bench.config, provisional_period_ns=400 * MS))
    bench.film(100)
    assert len(bench.of(JudgeProvisional)) == 1
    answer(bench)
    bench.tracker.reconfigure(bench.config)
    bench.film(1000)
    assert len(bench.of(JudgeProvisional)) == 1


def test_deactivation_drops_an_early_request():
    bench = Bench(provisional_period_ns=500 * MS)
    bench.start()
    bench.film(500)
    bench.do(bench.tracker.deactivate(bench.now))
    assert bench.only_reason() is Reason.DEACTIVATED
    answer(bench)
    assert not warned(bench)
    bench.do(bench.tracker.activate(bench.now))
    film_one_episode(bench, 400)
    assert len(bench.of(Judge)) == 1
