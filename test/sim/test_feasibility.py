"""Where tasks can be performed, and scenes that keep the first picture silent. Needs no mujoco."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifailsense_ros.sim import feasibility as feas
from ifailsense_ros.sim.layout import (
    BLOCK_HALF,
    CABINET_FLOOR,
    CABINET_X,
    COLOURS,
    DOOR_REACH,
    DRAWER_FLOOR,
    DRAWER_SLOT_Y,
    DRAWER_STROKE,
    EDGE_X,
)
from ifailsense_ros.sim.look import LEVELS, draw_look, level_name
from ifailsense_ros.sim.oracle import BlockState, WorldState, state_of_scene, support
from ifailsense_ros.sim.scene import draw_scene
from ifailsense_ros.sim.tasks import TASKS

Z = BLOCK_HALF[2]
ACROSS = math.pi / 2
IN_DRAWER = BlockState(EDGE_X + 0.07, DRAWER_SLOT_Y, DRAWER_FLOOR + Z, 0.0)
IN_SLIDER = BlockState(CABINET_X, -0.15, CABINET_FLOOR + Z, 0.0)


def world(**blocks: BlockState) -> WorldState:
    """Red, blue and pink on the table, far apart, changed as asked."""
    base = {
        "red": BlockState(0.48, 0.0, Z, ACROSS),
        "blue": BlockState(0.48, 0.125, Z, ACROSS),
        "pink": BlockState(0.48, -0.125, Z, ACROSS),
    }
    return WorldState({**base, **blocks}, drawer=0.14, door=0.0, switch=-0.03, led=False)


def moved_onto(state: WorldState, upper: str, lower: str) -> WorldState:
    """The state with one block lying on another."""
    blocks = dict(state.blocks)
    blocks[upper] = replace(blocks[lower], z=blocks[lower].z + 2 * Z)
    return replace(state, blocks=blocks)


def feasible(name: str, state: WorldState) -> bool:
    return feas.is_feasible(TASKS[name], state)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_every_scene_starts_undecided(seed: int) -> None:
    """Drawer and door can go both ways, each lamp its one way: frame 1 does not tell which."""
    found = set(feas.feasible_tasks(state_of_scene(draw_scene(np.random.default_rng(seed)))))
    assert {"open_drawer", "close_drawer", "move_slider_left", "move_slider_right"} <= found
    assert sum(name.endswith("lightbulb") for name in found) == 1
    assert sum(name.endswith("led") for name in found) == 1


@given(st.integers(0, 2**32 - 1), st.sampled_from(LEVELS))
def test_scenes_come_from_their_seed_alone(seed: int, level: str) -> None:
    a, b = (draw_scene(np.random.default_rng(seed), level) for _ in range(2))
    assert a == b


def test_every_task_is_feasible_in_some_scene() -> None:
    found: set[str] = set()
    for seed in range(300):
        found |= set(feas.feasible_tasks(state_of_scene(draw_scene(np.random.default_rng(seed)))))
    assert found == set(TASKS)


def test_a_block_is_lifted_from_where_it_lies() -> None:
    state = world(red=IN_DRAWER, blue=IN_SLIDER)
    for name, place in (("red", "drawer"), ("blue", "slider"), ("pink", "table")):
        for other in ("drawer", "slider", "table"):
            assert feasible(f"lift_{name}_block_{other}", state) == (other == place)


def test_a_block_under_the_door_or_under_the_table_is_out_of_reach() -> None:
    state = world(red=IN_DRAWER, blue=IN_SLIDER)
    assert not feasible("lift_blue_block_slider", replace(state, door=-DOOR_REACH))
    under = replace(state.blocks["red"], x=EDGE_X + 0.01)
    assert not feasible("lift_red_block_drawer", world(red=under))


def test_a_neighbour_beside_it_leaves_no_room_for_the_fingers() -> None:
    state = world(red=BlockState(0.48, 0.0, Z, 0.0), blue=BlockState(0.48, 0.05, Z, 0.0))
    assert not feasible("lift_red_block_table", state)
    assert not feasible("rotate_red_block_left", state)


def test_a_neighbour_in_the_way_of_a_push() -> None:
    state = world(
        red=BlockState(0.50, 0.0, Z, 0.0),
        blue=BlockState(0.50, 0.13, Z, 0.0),
        pink=IN_DRAWER,
    )
    assert feasible("push_red_block_left", state)
    assert not feasible("push_red_block_right", state)
    assert feasible("lift_red_block_table", state)


def test_nothing_is_pushed_out_of_the_picture() -> None:
    state = world(red=BlockState(0.5, feas.PUSH_LIMIT - 0.05, Z, 0.0), blue=IN_SLIDER)
    assert not feasible("push_red_block_right", state)


def test_stacked_blocks_are_neither_turned_nor_pushed_nor_lifted() -> None:
    state = world(red=BlockState(0.48, 0.125, 3 * Z, ACROSS))
    for colour in ("red", "blue"):
        for name in (f"lift_{colour}_block_table", f"rotate_{colour}_block_left"):
            assert not feasible(name, state)
        assert not feasible(f"push_{colour}_block_left", state)
    assert feasible("lift_pink_block_table", state)


def test_a_hand_beside_a_stack_would_knock_it_over() -> None:
    """The fingers fit, but the hand above them is broader."""
    flat = world(
        red=BlockState(0.48, 0.0, Z, 0.0),
        blue=BlockState(0.48, 0.115, Z, 0.0),
        pink=IN_SLIDER,
    )
    stack = moved_onto(flat, "pink", "blue")
    for name in ("lift_red_block_table", "rotate_red_block_left", "push_red_block_left"):
        assert feasible(name, flat), name
        assert not feasible(name, stack), name
    assert feasible("lift_red_block_table", moved_onto(world(), "pink", "blue"))


def test_pushes_end_before_the_next_block() -> None:
    task = TASKS["push_red_block_right"]
    alone = world(red=BlockState(0.48, -0.1, Z, 0.0), blue=IN_SLIDER, pink=IN_DRAWER)
    assert feas.push_reach(task, alone) == pytest.approx(feas.PUSH_RANGE[1])
    ahead = BlockState(0.48, 0.10, Z, 0.0)
    reach = feas.push_reach(task, world(red=alone.blocks["red"], blue=ahead, pink=IN_DRAWER))
    assert feas.PUSH_RANGE[0] <= reach < feas.PUSH_RANGE[1]


def test_stacking_goes_on_top() -> None:
    assert set(feas.stacking_ways(world())) == {(a, b) for a in COLOURS for b in COLOURS if a != b}
    tower = world(red=BlockState(0.48, 0.125, 3 * Z, ACROSS))
    assert feas.stacking_ways(tower) == [("pink", "red")]
    assert feas.unstacking_ways(tower) == ["red"]
    assert feas.unstacking_ways(world()) == []


def test_unstacked_blocks_go_to_free_places_apart() -> None:
    tower = world(red=BlockState(0.48, 0.125, 3 * Z, ACROSS))
    places = feas.table_places("red", ACROSS, tower)
    assert places
    for x, y in places:
        for colour in ("blue", "pink"):
            other = tower.blocks[colour]
            assert max(abs(x - other.x) / 0.044, abs(y - other.y) / 0.100) >= 1


def test_containers_take_what_they_have_room_for() -> None:
    assert feas.drawer_places(world()) == [-DRAWER_SLOT_Y, DRAWER_SLOT_Y]
    assert feas.drawer_places(world(red=IN_DRAWER)) == [-DRAWER_SLOT_Y]
    assert feas.drawer_places(replace(world(), drawer=0.05)) == []
    left, right = feas.slider_places(world())
    assert left[0] <= left[1] < right[0] <= right[1]
    assert feas.slider_places(world(red=IN_SLIDER)) == [right]
    assert len(feas.slider_places(replace(world(), door=DOOR_REACH))) == 1


def test_placing_takes_blocks_from_elsewhere() -> None:
    state = world(red=IN_DRAWER, blue=IN_SLIDER)
    assert set(feas.placing_ways(TASKS["place_in_drawer"], state)) == {"blue", "pink"}
    assert set(feas.placing_ways(TASKS["place_in_slider"], state)) == {"red", "pink"}


def test_pushing_into_the_drawer_needs_a_clear_way_and_an_empty_drawer() -> None:
    assert feas.push_off_ways(world()) == ["red"]  # the others would miss the drawer
    assert feas.push_off_ways(world(blue=IN_DRAWER)) == []
    assert feas.push_off_ways(replace(world(), drawer=0.05)) == []
    ahead = BlockState(0.555, 0.02, Z, ACROSS)
    assert feas.push_off_ways(world(red=BlockState(0.44, 0.0, Z, ACROSS), blue=ahead)) == ["blue"]


def test_an_open_drawer_cannot_be_opened_and_a_shut_one_not_closed() -> None:
    assert not feasible("open_drawer", replace(world(), drawer=DRAWER_STROKE))
    assert not feasible("close_drawer", replace(world(), drawer=0.0))
    assert not feasible("move_slider_right", replace(world(), door=DOOR_REACH))


def test_a_lamp_that_is_on_can_only_be_turned_off() -> None:
    dark, lit = world(), replace(world(), switch=0.03, led=True)
    for lamp in ("lightbulb", "led"):
        assert feasible(f"turn_on_{lamp}", dark)
        assert not feasible(f"turn_off_{lamp}", dark)
        assert feasible(f"turn_off_{lamp}", lit)
        assert not feasible(f"turn_on_{lamp}", lit)


def test_containers_hold_blocks_the_hand_can_reach() -> None:
    """Every block that a scene puts into drawer or cabinet can be lifted from there."""
    for seed in range(200):
        state = state_of_scene(draw_scene(np.random.default_rng(seed)))
        for colour in COLOURS:
            if support(colour, state) in ("drawer", "slider"):
                assert feas.can_grasp(colour, state), seed


# --- looks


def test_the_fixed_look_is_one_and_the_others_are_many() -> None:
    looks = [draw_look(np.random.default_rng(seed), "fixed") for seed in range(5)]
    assert all(look == looks[0] for look in looks)
    for level in ("mild", "strong"):
        assert draw_look(np.random.default_rng(0), level) != draw_look(
            np.random.default_rng(1), level
        )


def test_levels_grow() -> None:
    """The colour of the table spreads more from level to level."""
    spreads = []
    for level in LEVELS:
        looks = [draw_look(np.random.default_rng(seed), level) for seed in range(100)]
        spreads.append(float(np.ptp([look.colours["table"] for look in looks], axis=0).mean()))
    assert spreads[0] == 0.0
    assert 0.0 < 2 * spreads[1] < spreads[2]


@pytest.mark.parametrize(("given", "name"), [(0, "fixed"), ("1", "mild"), ("strong", "strong")])
def test_levels_have_names_and_numbers(given: str | int, name: str) -> None:
    assert level_name(given) == name


@pytest.mark.parametrize("level", [3, -1, "wild", ""])
def test_unknown_level(level: str | int) -> None:
    with pytest.raises(ValueError, match="look level must be one of fixed, mild, strong"):
        draw_look(np.random.default_rng(0), level)
