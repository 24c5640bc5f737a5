"""Phrasings: test sentences are new, but not their words; every sentence asks for one task."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.sim.instructions import (
    DEV_PHRASINGS,
    PHRASINGS,
    TEST_PHRASINGS,
    TRAIN_PHRASINGS,
    content_words,
    instruction_for,
)
from ifailsense_ros.sim.tasks import TASKS, Task

COLOURS = ("red", "blue", "pink")
SIDES = ("left", "right")
PLACES = {"table": r"\btable\b", "slider": r"\b(cabinet|slider)\b", "drawer": r"\bdrawer\b"}
LIFT = r"\b(lift|pick|raise)\b|^take .*\b(off|out)\b"
PUSH = r"\b(push|slide|shove|pushing)\b"
PUT = r"\b(place|put|store|set)\b"
OFF_A_BLOCK = r"\b(unstack|apart|remove|off)\b|\bto the table\b|\bdown on the table\b"

# How a person would read a sentence, written apart from the sentences themselves: a task is asked
# for where every pattern of the first list is found and none of the second.
READINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **{
        f"lift_{c}_block_{place}": ((LIFT, rf"\b{c} block\b", pattern), (PUSH,))
        for c in COLOURS
        for place, pattern in PLACES.items()
    },
    **{
        f"rotate_{c}_block_{s}": ((r"\b(rotate|turn|spin)\b", rf"\b{c} block\b", rf"\b{s}\b"), ())
        for c in COLOURS
        for s in SIDES
    },
    **{
        f"push_{c}_block_{s}": ((PUSH, rf"\b{c} block\b", rf"\b{s}\b"), (r"\bdrawer\b",))
        for c in COLOURS
        for s in SIDES
    },
    "push_into_drawer": ((PUSH, r"\b(block|object)\b", r"\binto the drawer\b"), ()),
    "open_drawer": ((r"\bdrawer\b", r"\b(open|out)\b"), (r"\bblock\b",)),
    "close_drawer": ((r"\bdrawer\b", r"\b(close|closed|in)\b"), (r"\bblock\b",)),
    **{
        f"move_slider_{s}": ((r"\b(slider|door)\b", rf"\b{s}\b"), (r"\b(block|drawer)\b",))
        for s in SIDES
    },
    **{
        f"place_in_{place}": ((PUT, r"\bblock\b", PLACES[place]), (PUSH, LIFT, *COLOURS))
        for place in ("slider", "drawer")
    },
    "stack_block": (
        (r"\bblocks?\b", r"\bon (top|the other|another)\b"),
        (OFF_A_BLOCK, r"\btable\b"),
    ),
    "unstack_block": ((r"\bblocks?\b", OFF_A_BLOCK), (*COLOURS,)),
    **{
        f"turn_{way}_{lamp}": ((thing, sign), ())
        for lamp, thing in (("lightbulb", r"\bbulb\b"), ("led", r"\bled\b"))
        for way, sign in (("on", r"\bon\b|\blights up\b"), ("off", r"\boff\b|\bgoes out\b"))
    },
}


tasks = st.sampled_from(sorted(TASKS.values(), key=lambda t: t.name))
sentences = st.tuples(tasks, st.integers(0, 19))


def test_there_are_34_tasks_and_each_has_its_family() -> None:
    assert len(TASKS) == 34
    assert set(TASKS) == set(READINGS)
    assert {task.family for task in TASKS.values()} == set(PHRASINGS)


@pytest.mark.parametrize("family", sorted(PHRASINGS))
def test_dev_and_test_have_phrasings_of_their_own(family: str) -> None:
    phrasings = PHRASINGS[family]
    assert len(set(phrasings)) == 20
    assert [*TRAIN_PHRASINGS, *DEV_PHRASINGS, *TEST_PHRASINGS] == list(range(20))


@pytest.mark.parametrize("family", sorted(PHRASINGS))
def test_dev_and_test_phrasings_use_only_words_of_training(family: str) -> None:
    phrasings = PHRASINGS[family]
    known = set().union(*(content_words(phrasings[i]) for i in TRAIN_PHRASINGS))
    for i in (*DEV_PHRASINGS, *TEST_PHRASINGS):
        assert content_words(phrasings[i]) <= known, phrasings[i]


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.name)
def test_a_sentence_asks_for_its_own_task_and_for_no_other(task: Task) -> None:
    for i in range(20):
        sentence = instruction_for(task, i)
        fitting = [
            name
            for name, (wanted, unwanted) in READINGS.items()
            if all(re.search(p, sentence) for p in wanted)
            and not any(re.search(p, sentence) for p in unwanted)
        ]
        assert fitting == [task.name], sentence


@given(sentences, sentences)
def test_no_two_tasks_share_a_sentence(one, other) -> None:
    same = instruction_for(*one) == instruction_for(*other)
    assert same == ((one[0].name, one[1]) == (other[0].name, other[1]))


@given(sentences)
def test_colour_and_side_are_said_and_no_slot_is_left(choice) -> None:
    task, i = choice
    words = instruction_for(task, i).split(" ")
    assert not task.colour or task.colour in words
    assert not task.direction or task.direction in words
    assert all(re.fullmatch("[a-z]+", word) for word in words)


@given(tasks, tasks, st.integers(0, 19))
def test_opposites_differ_in_nothing_but_what_is_asked(a, b, i) -> None:
    """Within a family, the same number is the same sentence but for the slots."""
    if a.family != b.family:
        return
    differing = {
        pair
        for pair in zip(instruction_for(a, i).split(), instruction_for(b, i).split(), strict=True)
        if pair[0] != pair[1]
    }
    allowed = {(a.colour, b.colour), (a.direction, b.direction)}
    assert differing <= allowed


@pytest.mark.parametrize("phrasing", [-1, 20])
def test_unknown_phrasing(phrasing: int) -> None:
    with pytest.raises(IndexError, match="phrasing must be"):
        instruction_for(TASKS["open_drawer"], phrasing)
