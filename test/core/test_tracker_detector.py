"""The tracker by example: a detector that hangs, dies, or never gets ready."""

from tracker_bench import SUCCESS, Bench, S, film_one_episode

from ifailsense_ros.core.effects import (
    Abandon,
    Judge,
)
from ifailsense_ros.core.verdict import Reason

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
