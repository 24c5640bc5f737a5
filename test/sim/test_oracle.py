"""What every task means: a truth table each, on hand-made states. Needs no mujoco."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.sim.layout import (
    BLOCK_HALF,
    CABINET_FLOOR,
    CABINET_X,
    COLOURS,
    DOOR_REACH,
    DRAWER_FLOOR,
    DRAWER_STROKE,
    EDGE_X,
)
from ifailsense_ros.sim.oracle import (
    BlockState,
    Outcome,
    WorldState,
    carried_blocks,
    judge,
    judge_all,
    state_of_scene,
    support,
)
from ifailsense_ros.sim.scene import draw_scene
from ifailsense_ros.sim.tasks import TASKS

Z = BLOCK_HALF[2]
RED = frozenset({"red"})
PLACES = {
    "table": BlockState(0.45, -0.05, Z, 0.0),
    "drawer": BlockState(EDGE_X + 0.07, -0.05, DRAWER_FLOOR + Z, 0.0),
    "slider": BlockState(CABINET_X, -0.15, CABINET_FLOOR + Z, 0.0),
}
ON_BLUE = {"x": 0.48, "y": 0.08, "z": 3 * Z}


def world(**blocks: BlockState) -> WorldState:
    """Red, blue and pink on the table, far apart, changed as asked; drawer and door half open."""
    base = {
        "red": PLACES["table"],
        "blue": BlockState(0.48, 0.08, Z, 0.0),
        "pink": BlockState(0.52, -0.12, Z, 0.0),
    }
    return WorldState({**base, **blocks}, drawer=0.14, door=0.0, switch=-0.03, led=False)


def moved(start: WorldState, colour: str, **fields: float) -> WorldState:
    blocks = dict(start.blocks)
    blocks[colour] = replace(blocks[colour], **fields)
    return replace(start, blocks=blocks)


def true_tasks(
    start: WorldState, end: WorldState, carried: frozenset[str] = frozenset()
) -> set[str]:
    """The tasks that came true; none may be disputed."""
    outcomes = judge_all(start, end, carried)
    assert Outcome.DISPUTED not in outcomes.values()
    return {name for name, outcome in outcomes.items() if outcome is Outcome.TRUE}


def test_nothing_happened_is_false_for_every_task() -> None:
    stacked = moved(world(), "red", **ON_BLUE)
    for start in (world(), world(red=PLACES["drawer"]), world(red=PLACES["slider"]), stacked):
        assert true_tasks(start, start) == set()


@given(st.integers(0, 2**32 - 1))
def test_nothing_is_true_at_the_start_of_a_scene(seed: int) -> None:
    start = state_of_scene(draw_scene(np.random.default_rng(seed)))
    assert true_tasks(start, start) == set()
    assert all(support(colour, start) for colour in COLOURS)


@pytest.mark.parametrize("place", PLACES)
def test_support_names_where_a_block_lies(place: str) -> None:
    assert support("red", world(red=PLACES[place])) == place
    assert support("red", moved(world(red=PLACES[place]), "red", z=0.2)) == ""


def test_a_block_lies_on_another_one() -> None:
    stacked = moved(world(), "red", **ON_BLUE)
    assert support("red", stacked) == "stack"
    assert support("blue", stacked) == "table"
    tower = moved(stacked, "pink", x=0.48, y=0.08, z=5 * Z)
    assert support("pink", tower) == "stack"
    assert support("red", moved(stacked, "red", y=0.13)) == ""
    assert support("red", moved(stacked, "red", upright=0.5)) == ""


# --- lifting


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("rise", "outcome"), [(0.0, -1), (0.08, 1), (0.2, 1)])
def test_lift_from_where_the_block_lay(place: str, rise: float, outcome: int) -> None:
    start = world(red=PLACES[place])
    end = moved(start, "red", z=start.blocks["red"].z + rise)
    for other in PLACES:
        expected = outcome if other == place else -1
        assert judge(TASKS[f"lift_red_block_{other}"], start, end, RED) == expected
        assert judge(TASKS[f"lift_blue_block_{other}"], start, end, RED) == Outcome.FALSE


@pytest.mark.parametrize(("rise", "outcome"), [(0.020, -1), (0.036, 0), (0.079, 0), (0.08, 1)])
def test_lift_has_a_dead_band(rise: float, outcome: int) -> None:
    start = world()
    end = moved(start, "red", z=Z + rise)
    assert judge(TASKS["lift_red_block_table"], start, end) == outcome


def test_a_block_in_the_air_is_lifted_and_nothing_else() -> None:
    start = world()
    end = moved(start, "red", z=Z + 0.15, yaw=1.3, y=0.12)
    assert true_tasks(start, end, RED) == {"lift_red_block_table"}


# --- rotating


@pytest.mark.parametrize(
    ("degrees", "left", "right"),
    [(70, 1, -1), (-70, -1, 1), (40, 0, -1), (-40, -1, 0), (20, -1, -1), (-20, -1, -1)],
)
def test_rotate_is_counter_clockwise_to_the_left(degrees: float, left: int, right: int) -> None:
    # The start yaw puts the turn across the cut of the angle.
    start = moved(world(), "pink", yaw=math.radians(170))
    end = moved(start, "pink", yaw=math.radians(170 + degrees))
    assert judge(TASKS["rotate_pink_block_left"], start, end) == left
    assert judge(TASKS["rotate_pink_block_right"], start, end) == right


@pytest.mark.parametrize("change", [{"upright": 0.0}, {"x": 0.52}, {"z": Z + 0.03}])
def test_a_turn_that_ends_badly_is_disputed(change: dict[str, float]) -> None:
    start = world()
    end = moved(start, "red", yaw=1.3, **change)
    assert judge(TASKS["rotate_red_block_left"], start, end) == Outcome.DISPUTED


# --- pushing


@pytest.mark.parametrize(
    ("travel", "left", "right"),
    [(0.12, -1, 1), (-0.12, 1, -1), (0.05, -1, 0), (-0.05, 0, -1), (0.02, -1, -1)],
)
def test_push_left_is_towards_minus_y(travel: float, left: int, right: int) -> None:
    start = world()
    end = moved(start, "red", y=-0.05 + travel)
    assert judge(TASKS["push_red_block_left"], start, end) == left
    assert judge(TASKS["push_red_block_right"], start, end) == right
    assert judge(TASKS["push_blue_block_right"], start, end) == Outcome.FALSE


def test_a_block_that_was_carried_was_not_pushed() -> None:
    start = world()
    end = moved(start, "red", y=0.07)
    assert judge(TASKS["push_red_block_right"], start, end, RED) == Outcome.DISPUTED


def test_into_the_drawer_pushing_and_placing_differ_by_the_way() -> None:
    start, end = world(), world(red=PLACES["drawer"])
    assert true_tasks(start, end) == {"push_into_drawer"}
    assert true_tasks(start, end, RED) == {"place_in_drawer"}


def test_a_block_that_leans_on_the_edge_is_in_dispute() -> None:
    end = moved(world(), "red", x=EDGE_X + 0.04, z=-0.010, upright=0.6)
    assert judge(TASKS["push_into_drawer"], world(), end) == Outcome.DISPUTED
    short = moved(world(), "red", x=EDGE_X - 0.02)
    assert judge(TASKS["push_into_drawer"], world(), short) == Outcome.FALSE


# --- opening and closing


@pytest.mark.parametrize(
    ("end", "opened", "closed"),
    [
        (DRAWER_STROKE, 1, -1),
        (DRAWER_STROKE - 0.03, 0, -1),
        (0.15, -1, -1),
        (0.13, -1, -1),
        (0.04, -1, 0),
        (0.0, -1, 1),
    ],
)
def test_drawer(end: float, opened: int, closed: int) -> None:
    start = world()
    after = replace(start, drawer=end)
    assert judge(TASKS["open_drawer"], start, after) == opened
    assert judge(TASKS["close_drawer"], start, after) == closed


@pytest.mark.parametrize(
    ("end", "left", "right"),
    [(-DOOR_REACH, 1, -1), (DOOR_REACH, -1, 1), (-0.06, 0, -1), (0.06, -1, 0), (0.01, -1, -1)],
)
def test_slider(end: float, left: int, right: int) -> None:
    start = world()
    after = replace(start, door=end)
    assert judge(TASKS["move_slider_left"], start, after) == left
    assert judge(TASKS["move_slider_right"], start, after) == right


def test_a_drawer_that_was_open_has_not_been_opened() -> None:
    start = replace(world(), drawer=DRAWER_STROKE - 0.01)
    end = replace(start, drawer=DRAWER_STROKE)
    assert judge(TASKS["open_drawer"], start, end) == Outcome.FALSE


# --- placing


def test_place_in_slider_takes_any_block() -> None:
    for colour in COLOURS:
        start = world()
        end = world(**{colour: PLACES["slider"]})
        assert true_tasks(start, end, frozenset({colour})) == {"place_in_slider"}


def test_from_drawer_to_slider_and_back() -> None:
    a, b = world(red=PLACES["drawer"]), world(red=PLACES["slider"])
    assert true_tasks(a, b, RED) == {"place_in_slider"}
    assert true_tasks(b, a, RED) == {"place_in_drawer"}


@pytest.mark.parametrize("place", ["slider", "drawer"])
def test_a_block_still_in_the_hand_is_not_placed(place: str) -> None:
    end = world(red=replace(PLACES[place], z=0.15))
    assert judge(TASKS[f"place_in_{place}"], world(), end, RED) == Outcome.FALSE
    leaning = world(red=replace(PLACES[place], z=PLACES[place].z + 0.03, upright=0.6))
    assert judge(TASKS[f"place_in_{place}"], world(), leaning, RED) == Outcome.DISPUTED


def test_stack_and_unstack() -> None:
    apart, stacked = world(), moved(world(), "red", **ON_BLUE)
    assert true_tasks(apart, stacked, RED) == {"stack_block"}
    assert true_tasks(stacked, apart) == {"unstack_block"}


def test_a_third_block_makes_a_tower() -> None:
    start = moved(world(), "red", **ON_BLUE)
    tower = moved(start, "pink", x=0.48, y=0.08, z=5 * Z)
    assert true_tasks(start, tower, frozenset({"pink"})) == {"stack_block"}


def test_a_top_block_put_elsewhere_disputes_unstacking() -> None:
    start = moved(world(), "red", **ON_BLUE)
    end = world(red=PLACES["drawer"])
    outcomes = judge_all(start, end, RED)
    assert outcomes["place_in_drawer"] is Outcome.TRUE
    assert outcomes["unstack_block"] is Outcome.DISPUTED


def test_beside_is_not_on() -> None:
    start = world()
    end = moved(start, "red", x=0.48, y=0.03)
    assert judge(TASKS["stack_block"], start, end, RED) == Outcome.FALSE
    tilted = moved(start, "red", x=0.48, y=0.03, z=1.8 * Z, upright=0.7)
    assert judge(TASKS["stack_block"], start, tilted, RED) == Outcome.DISPUTED


# --- lighting


@pytest.mark.parametrize(
    ("before", "after", "on", "off"),
    [
        (-0.03, 0.03, 1, -1),
        (0.03, -0.03, -1, 1),
        (-0.03, 0.0, 0, -1),
        (0.03, 0.0, -1, 0),
        (0.03, 0.03, -1, -1),
        (-0.03, -0.02, -1, -1),
    ],
)
def test_lightbulb(before: float, after: float, on: int, off: int) -> None:
    start, end = replace(world(), switch=before), replace(world(), switch=after)
    assert judge(TASKS["turn_on_lightbulb"], start, end) == on
    assert judge(TASKS["turn_off_lightbulb"], start, end) == off
    assert judge(TASKS["turn_on_led"], start, end) == Outcome.FALSE


@pytest.mark.parametrize(
    ("before", "after", "on", "off"),
    [(0, 1, 1, -1), (1, 0, -1, 1), (0, 0, -1, -1), (1, 1, -1, -1)],
)
def test_led(before: int, after: int, on: int, off: int) -> None:
    start, end = replace(world(), led=bool(before)), replace(world(), led=bool(after))
    assert judge(TASKS["turn_on_led"], start, end) == on
    assert judge(TASKS["turn_off_led"], start, end) == off
    assert judge(TASKS["turn_on_lightbulb"], start, end) == Outcome.FALSE


def test_carried_blocks_were_in_the_air_on_the_way() -> None:
    start = world()
    up, down = moved(start, "red", z=0.15), moved(start, "red", y=0.1)
    assert carried_blocks([start, up, down]) == RED
    assert carried_blocks([start, moved(start, "red", z=Z + 0.03), down]) == frozenset()
