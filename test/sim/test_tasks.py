"""Task table, oracle with its dead bands, feasibility, the draw of the pair. Needs no mujoco."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.sim.scene import (
    BLOCK_HALF,
    COLOURS,
    DOOR_REACH,
    DRAWER_STROKE,
    draw_look,
    draw_scene,
)
from ifailsense_ros.sim.tasks import (
    CATEGORIES,
    PUSH_LIMIT,
    TASKS,
    BlockState,
    Outcome,
    WorldState,
    contrast,
    draw_pair,
    feasible_tasks,
    is_feasible,
    judge,
    judge_all,
    state_of_scene,
)

Z = BLOCK_HALF[2]
SIDES = ("left", "right")


def world(drawer: float = 0.07, door: float = 0.0, **blocks: BlockState) -> WorldState:
    """Three blocks far apart along x, changed as asked."""
    base = {c: BlockState(0.43 + 0.14 * i, 0.0, Z, 0.0) for i, c in enumerate(COLOURS)}
    return WorldState({**base, **blocks}, drawer, door)


def moved(start: WorldState, colour: str, **fields: float) -> WorldState:
    blocks = dict(start.blocks)
    blocks[colour] = replace(blocks[colour], **fields)
    return replace(start, blocks=blocks)


def test_table_is_the_nineteen_tasks_of_the_issue() -> None:
    wanted = {f"lift_{c}_block" for c in COLOURS}
    wanted |= {f"{v}_{c}_block_{s}" for v in ("rotate", "push") for c in COLOURS for s in SIDES}
    wanted |= {"open_drawer", "close_drawer", "move_slider_left", "move_slider_right"}
    assert set(TASKS) == wanted
    assert Counter(t.category for t in TASKS.values()) == {
        "lifting": 3,
        "rotating": 6,
        "pushing": 6,
        "opening_closing": 4,
    }


def test_nothing_happened_is_false_for_every_task() -> None:
    start = world()
    assert set(judge_all(start, start).values()) == {Outcome.FALSE}


@pytest.mark.parametrize(
    ("rise", "outcome"), [(0.0, -1), (0.02, -1), (0.021, 0), (0.079, 0), (0.08, 1), (0.2, 1)]
)
def test_lift(rise: float, outcome: int) -> None:
    start = world()
    end = moved(start, "blue", z=Z + rise)
    assert judge(TASKS["lift_blue_block"], start, end) == outcome
    assert judge(TASKS["lift_red_block"], start, end) == Outcome.FALSE


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


@pytest.mark.parametrize(
    ("travel", "left", "right"),
    [(0.12, -1, 1), (-0.12, 1, -1), (0.05, -1, 0), (-0.05, 0, -1), (0.02, -1, -1)],
)
def test_push_left_is_towards_minus_y(travel: float, left: int, right: int) -> None:
    start = world()
    end = moved(start, "red", y=travel)
    assert judge(TASKS["push_red_block_left"], start, end) == left
    assert judge(TASKS["push_red_block_right"], start, end) == right


def test_a_block_in_the_air_is_lifted_and_neither_turned_nor_pushed() -> None:
    start = world()
    end = moved(start, "red", z=Z + 0.15, yaw=1.3, y=0.12)
    outcomes = judge_all(start, end)
    assert [name for name, o in outcomes.items() if o == Outcome.TRUE] == ["lift_red_block"]
    assert Outcome.DISPUTED not in outcomes.values()


@pytest.mark.parametrize("change", [{"upright": 0.0}, {"x": 0.53}, {"z": Z + 0.03}])
def test_a_turn_that_ends_badly_is_disputed(change: dict[str, float]) -> None:
    start = world()
    end = moved(start, "red", yaw=1.3, **change)
    assert judge(TASKS["rotate_red_block_left"], start, end) == Outcome.DISPUTED


@pytest.mark.parametrize(
    ("end", "opened", "closed"),
    [
        (DRAWER_STROKE, 1, -1),
        (DRAWER_STROKE - 0.03, 0, -1),
        (0.08, -1, -1),
        (0.04, -1, 0),
        (0.0, -1, 1),
    ],
)
def test_drawer(end: float, opened: int, closed: int) -> None:
    start = world(drawer=0.07)
    after = replace(start, drawer=end)
    assert judge(TASKS["open_drawer"], start, after) == opened
    assert judge(TASKS["close_drawer"], start, after) == closed


@pytest.mark.parametrize(
    ("end", "left", "right"),
    [(-DOOR_REACH, 1, -1), (DOOR_REACH, -1, 1), (-0.05, 0, -1), (0.05, -1, 0), (0.01, -1, -1)],
)
def test_door(end: float, left: int, right: int) -> None:
    start = world(door=0.0)
    after = replace(start, door=end)
    assert judge(TASKS["move_slider_left"], start, after) == left
    assert judge(TASKS["move_slider_right"], start, after) == right


def test_a_drawer_that_was_open_all_along_was_not_opened() -> None:
    start = world(drawer=DRAWER_STROKE)
    assert judge(TASKS["open_drawer"], start, start) == Outcome.FALSE


positions = st.floats(-0.3, 0.3, allow_nan=False)


@given(y=positions, yaw=st.floats(-6.0, 6.0), rise=st.floats(-0.01, 0.3), drawer=st.floats(0, 0.14))
def test_opposites_never_both_come_true(y: float, yaw: float, rise: float, drawer: float) -> None:
    start = world()
    end = moved(replace(start, drawer=drawer), "red", y=y, yaw=yaw, z=Z + rise)
    outcomes = judge_all(start, end)
    for a, b in (
        ("push_red_block_left", "push_red_block_right"),
        ("rotate_red_block_left", "rotate_red_block_right"),
        ("open_drawer", "close_drawer"),
    ):
        assert Outcome.FALSE in (outcomes[a], outcomes[b])


def test_a_neighbour_in_the_path_makes_one_direction_infeasible() -> None:
    start = world(
        red=BlockState(0.5, 0.0, Z, math.pi / 2),
        blue=BlockState(0.5, 0.17, Z, math.pi / 2),
        pink=BlockState(0.43, -0.2, Z, math.pi / 2),
    )
    assert is_feasible(TASKS["push_red_block_left"], start)
    assert not is_feasible(TASKS["push_red_block_right"], start)
    assert is_feasible(TASKS["lift_red_block"], start)


def test_a_neighbour_beside_it_leaves_no_room_for_the_fingers() -> None:
    start = world(red=BlockState(0.5, 0.0, Z, 0.0), blue=BlockState(0.5, 0.05, Z, 0.0))
    assert not is_feasible(TASKS["lift_red_block"], start)
    assert not is_feasible(TASKS["rotate_red_block_left"], start)


def test_nothing_is_pushed_out_of_the_picture() -> None:
    start = moved(world(), "red", y=PUSH_LIMIT - 0.05)
    assert not is_feasible(TASKS["push_red_block_right"], start)


def test_an_open_drawer_cannot_be_opened_and_a_shut_one_not_closed() -> None:
    assert not is_feasible(TASKS["open_drawer"], world(drawer=DRAWER_STROKE))
    assert not is_feasible(TASKS["close_drawer"], world(drawer=0.0))
    assert not is_feasible(TASKS["move_slider_right"], world(door=DOOR_REACH))


@given(st.integers(0, 2**32 - 1))
def test_every_scene_starts_undecided(seed: int) -> None:
    """Drawer and door can go both ways from every scene, so frame 1 does not tell which."""
    scene = draw_scene(np.random.default_rng(seed))
    feasible = feasible_tasks(state_of_scene(scene))
    assert {"open_drawer", "close_drawer", "move_slider_left", "move_slider_right"} <= {*feasible}


@given(st.integers(0, 2**32 - 1))
def test_scenes_come_from_their_seed_alone(seed: int) -> None:
    a, b = (draw_scene(np.random.default_rng(seed)) for _ in range(2))
    assert a == b


def test_level_0_is_one_look() -> None:
    looks = [draw_look(np.random.default_rng(seed), 0) for seed in range(5)]
    assert all(look == looks[0] for look in looks)
    assert draw_look(np.random.default_rng(0), 1) != draw_look(np.random.default_rng(1), 1)
    with pytest.raises(ValueError, match="level"):
        draw_look(np.random.default_rng(0), 2)


@pytest.mark.parametrize(
    ("a", "b", "differing"),
    [
        ("lift_red_block", "lift_blue_block", ("colour",)),
        ("push_red_block_left", "push_red_block_right", ("direction",)),
        ("push_red_block_left", "push_blue_block_right", ("colour", "direction")),
        ("open_drawer", "close_drawer", ("verb",)),
        ("open_drawer", "move_slider_left", ("verb", "object", "direction")),
    ],
)
def test_contrast(a: str, b: str, differing: tuple[str, ...]) -> None:
    assert contrast(TASKS[a], TASKS[b]) == differing


def test_pairs_are_hard_often_enough_and_the_coin_is_fair() -> None:
    rng = np.random.default_rng(0)
    names = tuple(TASKS)
    for category in CATEGORIES:
        pairs = [draw_pair(rng, category, names) for _ in range(1000)]
        assert all(p is not None and p[0] != p[1] for p in pairs)
        assert all(t.category == category for p in pairs for t in p)
        assert sum(len(contrast(*p)) == 1 for p in pairs) >= 650
        # 1000 fair coins: 4.4 standard deviations
        assert abs(sum(p[0].name < p[1].name for p in pairs) - 500) < 70


def test_there_is_no_pair_of_fewer_than_two_tasks() -> None:
    rng = np.random.default_rng(0)
    assert draw_pair(rng, "lifting", ("lift_red_block", "open_drawer")) is None
