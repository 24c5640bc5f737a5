"""Phrasings: test sentences are new, but not their words."""

from __future__ import annotations

import pytest

from ifailsense_ros.sim.instructions import (
    PHRASINGS,
    TEST_PHRASINGS,
    TRAIN_PHRASINGS,
    content_words,
    instruction_for,
)
from ifailsense_ros.sim.tasks import TASKS


def test_every_family_has_its_phrasings() -> None:
    assert {task.family for task in TASKS.values()} == set(PHRASINGS)
    assert not set(TRAIN_PHRASINGS) & set(TEST_PHRASINGS)
    for phrasings in PHRASINGS.values():
        assert len(phrasings) == len(TRAIN_PHRASINGS) + len(TEST_PHRASINGS)


@pytest.mark.parametrize("family", sorted(PHRASINGS))
def test_test_phrasings_use_only_words_of_training(family: str) -> None:
    phrasings = PHRASINGS[family]
    known = set().union(*(content_words(phrasings[i]) for i in TRAIN_PHRASINGS))
    for i in TEST_PHRASINGS:
        assert content_words(phrasings[i]) <= known, phrasings[i]


def test_no_sentence_means_two_tasks() -> None:
    sentences = [instruction_for(task, i) for task in TASKS.values() for i in range(11)]
    assert len(set(sentences)) == len(sentences)
    assert not any("{" in sentence or "  " in sentence for sentence in sentences)


def test_colour_and_side_are_always_said() -> None:
    for task in TASKS.values():
        for i in range(11):
            words = instruction_for(task, i).split()
            assert not task.colour or task.colour in words
            assert not task.direction or task.direction in words


@pytest.mark.parametrize("phrasing", [-1, 11])
def test_unknown_phrasing(phrasing: int) -> None:
    with pytest.raises(IndexError, match="phrasing must be"):
        instruction_for(TASKS["open_drawer"], phrasing)
