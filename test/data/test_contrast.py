"""In what two tasks differ, by their names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.data.contrast import ATTRIBUTES, contrast_of, is_hard
from ifailsense_ros.data.task_categories import CALVIN_CATEGORIES
from ifailsense_ros.sim.tasks import TASKS, contrast

names = st.sampled_from(sorted(CALVIN_CATEGORIES))


@pytest.mark.parametrize(
    ("a", "b", "differing"),
    [
        ("lift_red_block_table", "lift_blue_block_table", "colour"),
        ("lift_red_block_table", "lift_red_block_drawer", "place"),
        ("lift_red_block_slider", "lift_pink_block_drawer", "colour place"),
        ("rotate_red_block_left", "rotate_red_block_right", "direction"),
        ("push_red_block_left", "push_blue_block_right", "colour direction"),
        ("open_drawer", "close_drawer", "verb"),
        ("open_drawer", "move_slider_left", "verb object direction"),
        ("move_slider_left", "move_slider_right", "direction"),
        ("place_in_slider", "place_in_drawer", "place"),
        ("stack_block", "unstack_block", "verb"),
        ("turn_on_led", "turn_off_led", "verb"),
        ("turn_on_led", "turn_on_lightbulb", "object"),
        ("push_into_drawer", "push_red_block_left", "colour direction place"),
        ("place_in_drawer", "unstack_block", "verb place"),
    ],
)
def test_what_differs(a: str, b: str, differing: str) -> None:
    assert contrast_of(a, b) == tuple(differing.split())
    assert is_hard(contrast_of(a, b)) == (" " not in differing)


@given(names, names)
def test_symmetric_and_empty_only_for_the_same_task(a: str, b: str) -> None:
    contrast = contrast_of(a, b)
    assert contrast == contrast_of(b, a)
    assert (not contrast) == (a == b)
    assert list(contrast) == [name for name in ATTRIBUTES if name in contrast]


def test_names_say_the_same_as_the_simulators_own_table() -> None:
    for a in TASKS.values():
        for b in TASKS.values():
            if a.category == b.category:
                assert contrast_of(a.name, b.name) == contrast(a, b), (a.name, b.name)


def test_of_sentences_it_is_not_known() -> None:
    contrast = contrast_of("put the cup down", "put the mug down")
    assert contrast == ()
    assert not is_hard(contrast)


def test_names_in_another_order_differ_in_the_object() -> None:
    assert contrast_of("pick_cup_up", "pick_up_cup") == ("object",)
