"""The tracker by example: where the instruction comes from, and when it changes."""

import pytest
from tracker_bench import MS, T0, Bench, film_one_episode

from ifailsense_ros.core.effects import (
    InstructionChange,
    Judge,
    Publish,
)
from ifailsense_ros.core.verdict import Reason

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
