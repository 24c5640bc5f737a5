"""Categories of tasks by name and of sentences by verb."""

from __future__ import annotations

from collections import Counter

import pytest

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.task_categories import CALVIN_CATEGORIES, calvin_category, verb_category
from ifailsense_ros.sim.instructions import PHRASINGS
from ifailsense_ros.sim.tasks import TASKS


def test_calvin_has_34_tasks_in_the_papers_six_categories() -> None:
    counts = Counter(CALVIN_CATEGORIES.values())
    assert counts == {
        "rotating": 6,
        "pushing": 7,
        "opening_closing": 4,
        "lifting": 9,
        "placing": 4,
        "lighting": 4,
    }
    assert calvin_category("turn_off_led") == "lighting"
    with pytest.raises(DataError, match="'open_window' is not one of CALVIN's 34 tasks"):
        calvin_category("open_window")


def test_the_simulated_world_groups_the_same_tasks_alike() -> None:
    both = set(TASKS) & set(CALVIN_CATEGORIES)
    assert len(both) >= 30
    assert {t: TASKS[t].category for t in both} == {t: CALVIN_CATEGORIES[t] for t in both}


def test_verbs_of_the_simulated_worlds_sentences() -> None:
    """Sentences that this table was not made from; a few say their goal without its verb."""
    said = [
        (text.format(colour=t.colour, side=t.direction, place=t.place), t.category)
        for t in TASKS.values()
        for text in PHRASINGS[t.family]
    ]
    right = sum(verb_category(text) == category for text, category in said)
    assert right / len(said) > 0.95


@pytest.mark.parametrize(
    ("sentence", "category"),
    [
        ("Put the marker in the cup", "placing"),
        # The goal is the last thing asked for.
        ("Pick up the marker and place it in the bowl", "placing"),
        ("grasp the red block, then rotate it left", "rotating"),
        ("move to the drawer, then store the object", "placing"),
        # Verbs that prepare decide only where nothing else does.
        ("grasp the drawer handle and pull it open", "opening_closing"),
        ("Grasp the red block", "lifting"),
        ("Move the cup to the left", "pushing"),
        ("Move the cup into the sink", "placing"),
        # What is moved decides.
        ("push the drawer", "opening_closing"),
        ("push the block into the drawer", "pushing"),
        ("slide the door to the left, then let it go", "opening_closing"),
        ("turn the red block left", "rotating"),
        ("turn on the light bulb", "lighting"),
        ("move the light switch to turn off the yellow light", "lighting"),
        ("Close the top drawer.", "opening_closing"),
        ("in the slider pick up the red block", "lifting"),
        ("Use the cloth to wipe the counter", "wiping"),
        ("Unfold the green towel", "folding"),
        ("pouring the water", "pouring"),
        ("please put-down the cup", "placing"),
        ("'put' the cup in the sink", "placing"),
        ("Use the cloth", ""),
        ("do anything you like", ""),
        ("", ""),
    ],
)
def test_verbs(sentence: str, category: str) -> None:
    assert verb_category(sentence) == category
