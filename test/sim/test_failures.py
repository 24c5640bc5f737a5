"""Failures: every class on every family of tasks, as edits of plans and in runs (no pictures)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")

from ifailsense_ros.data.failure_classes import (
    CONTROL_FAILURES,
    FAILURE_CLASSES,
    INADEQUATE_GRIP_RETENTION,
    INCOMPLETE_GRASP,
    INCORRECT_ROTATION,
    MISALIGNED_KEYFRAME,
    MISSING_ROTATION,
    WRONG_ACTION_SEQUENCE,
    WRONG_TARGET_OBJECT,
)
from ifailsense_ros.sim.edits import EDITS, NoPlaceError, Plan
from ifailsense_ros.sim.experts import plan_for
from ifailsense_ros.sim.failures import (
    WHY_NOT,
    fails_so,
    perform_failure,
    tasks_failing,
    wrong_targets,
)
from ifailsense_ros.sim.feasibility import is_feasible
from ifailsense_ros.sim.layout import BLOCK_HALF
from ifailsense_ros.sim.oracle import Outcome, state_of_scene
from ifailsense_ros.sim.pacing import fit_ticks, plan_ticks
from ifailsense_ros.sim.robot import FINGERS_OPEN, SAMPLE_TICKS, Waypoint, World
from ifailsense_ros.sim.rollout import Rollout, simulate
from ifailsense_ros.sim.scene import HomePose, Scene, draw_scene
from ifailsense_ros.sim.tasks import CATEGORIES, TASKS, contrast

pytestmark = pytest.mark.sim

FAMILIES = {task.family: task for task in TASKS.values()}
HOME = HomePose((0.33, 0.0, 0.33), 0.0)

Planned = Callable[[str], tuple[Scene, Plan]]


@pytest.fixture(scope="module")
def planned(world: World) -> Planned:
    """The expert's plan of a family's last task, in the first scene where it is feasible."""

    @lru_cache
    def plan_of(family: str) -> tuple[Scene, Plan]:
        for seed in range(300):
            scene = draw_scene(np.random.default_rng([5, seed]))
            if is_feasible(FAMILIES[family], state_of_scene(scene)):
                world.reset(scene)
                return scene, plan_for(FAMILIES[family], world, np.random.default_rng(seed))
        raise AssertionError(f"{family} was feasible in none of 300 scenes")

    return plan_of


def step(plan: Plan, tag: str) -> Waypoint:
    return next(s for s in plan if s.tag == tag)


def tags(plan: Plan) -> list[str]:
    return [s.tag for s in plan if s.tag != "pause"]


def has_place(kind: str, plan: Plan, home: HomePose) -> bool:
    try:
        EDITS[kind](plan, home, np.random.default_rng(0))
    except NoPlaceError:
        return False
    return True


# --- the table


def test_every_family_fails_in_every_class_or_there_is_a_reason() -> None:
    assert set(WHY_NOT) == set(FAILURE_CLASSES)
    for kind, reasons in WHY_NOT.items():
        assert set(reasons) < set(FAMILIES), kind
        assert all(len(reason) > 20 for reason in reasons.values())
    assert set(EDITS) == set(CONTROL_FAILURES)


def test_every_class_reaches_several_categories() -> None:
    for kind in FAILURE_CLASSES:
        categories = {TASKS[name].category for name in tasks_failing(kind)}
        assert len(categories) >= 3, kind
    assert {TASKS[n].category for n in tasks_failing(MISALIGNED_KEYFRAME)} == set(CATEGORIES)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("kind", CONTROL_FAILURES)
def test_an_edit_changes_the_plan_and_fits_its_length(
    planned: Planned, kind: str, family: str
) -> None:
    scene, plan = planned(family)
    if not has_place(kind, plan, scene.home):
        # A hand that happens to be aligned need not turn; else there is a reason in the table.
        assert kind == MISSING_ROTATION or not fails_so(kind, FAMILIES[family])
        return
    before = list(plan)
    edited = EDITS[kind](plan, scene.home, np.random.default_rng(1))
    assert plan == before  # the expert's plan is left alone
    assert edited != plan
    ticks = plan_ticks(plan, scene.home)
    assert plan_ticks(fit_ticks(edited, ticks, scene.home), scene.home) == ticks


# --- each class, by what is wrong with the plan


def test_incomplete_grasp_leaves_room_at_the_block(planned: Planned) -> None:
    scene, plan = planned("lift_table")
    openings = set()
    for seed in range(20):
        grasp = step(
            EDITS[INCOMPLETE_GRASP](plan, scene.home, np.random.default_rng(seed)), "grasp"
        )
        assert BLOCK_HALF[1] + 0.004 < grasp.fingers <= FINGERS_OPEN
        openings.add(grasp.fingers == FINGERS_OPEN)
    assert openings == {True, False}  # not at all, and not far enough


def test_grip_is_lost_on_the_way(planned: Planned) -> None:
    scene, plan = planned("place_in_drawer")
    lost = set()
    for seed in range(20):
        edited = EDITS[INADEQUATE_GRIP_RETENTION](plan, scene.home, np.random.default_rng(seed))
        (at,) = (s for s in edited if s.release_at is not None)
        assert 0.2 < at.release_at < 0.8
        lost.add(at.tag)
    assert lost == {"lift", "carry"}


def test_fingers_slip_off_a_handle_before_it_has_moved_far(planned: Planned) -> None:
    scene, plan = planned("open_drawer")
    edited = EDITS[INADEQUATE_GRIP_RETENTION](plan, scene.home, np.random.default_rng(0))
    pulls = [s for s in edited if s.tag == "pull"]
    reach, meant = np.array(step(plan, "reach").position), np.array(step(plan, "pull").position)
    assert len(pulls) == 3
    assert np.linalg.norm(np.array(pulls[0].position) - reach) < 0.01
    assert pulls[1].position[2] > reach[2] + 0.05
    assert np.allclose(pulls[2].position[:2], meant[:2])


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_misaligned_waypoints_are_4_to_8_cm_off(planned: Planned, family: str) -> None:
    scene, plan = planned(family)
    for seed in range(10):
        edited = EDITS[MISALIGNED_KEYFRAME](plan, scene.home, np.random.default_rng(seed))
        off = [
            math.dist(a.position, b.position)
            for a, b in zip(plan, edited, strict=True)
            if a.position != b.position
        ]
        assert off
        assert all(0.04 - 1e-9 <= d <= 0.08 + 1e-9 for d in off)
        assert np.ptp(off) < 1e-9
        assert not {"retreat"} & {
            a.tag for a, b in zip(plan, edited, strict=True) if a.position != b.position
        }


@pytest.mark.parametrize("kind", [INCORRECT_ROTATION, MISSING_ROTATION])
def test_wrong_turns_of_a_block(planned: Planned, kind: str) -> None:
    scene, plan = planned("rotate")
    meant = step(plan, "turn").yaw - step(plan, "lift").yaw
    for seed in range(20):
        edited = EDITS[kind](plan, scene.home, np.random.default_rng(seed))
        turned = step(edited, "turn").yaw - step(edited, "lift").yaw
        assert step(edited, "place").yaw == step(edited, "turn").yaw  # nor is it turned later
        assert turned / meant < 0.31
        assert (turned == 0) == (kind == MISSING_ROTATION)


def test_the_hand_comes_crosswise(planned: Planned) -> None:
    scene, plan = planned("lift_table")
    edited = EDITS[INCORRECT_ROTATION](plan, scene.home, np.random.default_rng(0))
    off = abs(step(edited, "reach").yaw - step(plan, "reach").yaw)
    assert math.pi / 2 - 0.21 < off < math.pi / 2 + 0.21
    assert step(edited, "lift").yaw == step(edited, "reach").yaw


def test_a_hand_that_need_not_turn_cannot_miss_its_turn(planned: Planned) -> None:
    _, plan = planned("lift_table")
    yaw = step(plan, "reach").yaw
    with pytest.raises(NoPlaceError, match="aligned"):
        EDITS[MISSING_ROTATION](plan, HomePose(HOME.position, yaw + 0.5), np.random.default_rng(0))
    edited = EDITS[MISSING_ROTATION](
        plan, HomePose(HOME.position, yaw + 1.4), np.random.default_rng(0)
    )
    assert step(edited, "reach").yaw == yaw + 1.4


def test_orders_that_are_wrong(planned: Planned) -> None:
    scene, plan = planned("place_in_slider")
    orders = {
        tuple(tags(EDITS[WRONG_ACTION_SEQUENCE](plan, scene.home, np.random.default_rng(seed))))
        for seed in range(30)
    }
    head, tail = ("approach",), ("leave", "retreat")
    assert orders == {
        (*head, "grasp", "reach", "lift", "carry", "place", "release", *tail),
        (*head, "reach", "lift", "grasp", "carry", "place", "release", *tail),
        (*head, "reach", "grasp", "lift", "release", "carry", "place", *tail),
    }


@pytest.mark.parametrize("family", ["push", "open_drawer", "turn_on_led", "turn_off_lightbulb"])
def test_what_acts_too_late_acts_in_the_air(planned: Planned, family: str) -> None:
    scene, plan = planned(family)
    edited = EDITS[WRONG_ACTION_SEQUENCE](plan, scene.home, np.random.default_rng(0))
    order = tags(edited)
    act = next(t for t in order if t in ("push", "pull", "press"))
    assert order.index("leave") < order.index(act)
    assert order.count("leave") == 1
    height = step(plan, "approach").position[2]
    assert step(edited, act).position[2] == step(edited, "leave").position[2] == height


def test_the_wrong_target_is_the_most_alike() -> None:
    def names(task: str, *feasible: str) -> list[str]:
        return [t.name for t in wrong_targets(TASKS[task], (task, *feasible))]

    lift = "lift_red_block_table"
    assert names(lift, "lift_blue_block_table", "lift_pink_block_drawer") == [
        "lift_blue_block_table"
    ]
    assert names(lift, "rotate_blue_block_left") == []
    assert names("push_red_block_left", "push_red_block_right", "push_into_drawer") == []
    assert names("open_drawer", "close_drawer", "move_slider_left") == ["move_slider_left"]
    assert names("turn_on_led", "turn_off_lightbulb") == ["turn_off_lightbulb"]


# --- length


@given(
    st.lists(st.tuples(st.floats(0.1, 0.3), st.floats(0.1, 0.5)), min_size=2, max_size=6),
    st.floats(0.85, 1.5),
)
@settings(max_examples=40, deadline=None)
def test_any_plan_can_be_fitted(moves: list[tuple[float, float]], factor: float) -> None:
    x, plan = HOME.position[0], []
    for number, (way, speed) in enumerate(moves):
        x += way if number % 2 else -way
        plan.append(Waypoint("move", "reach", (x, 0.0, 0.33), speed=speed))
    plan.append(Waypoint("grip", "grasp", fingers=0.0, duration=0.3))
    ticks = round(plan_ticks(plan, HOME) * factor)
    fitted = fit_ticks(plan, ticks, HOME)
    assert plan_ticks(fitted, HOME) == ticks
    assert [(s.position, s.fingers) for s in fitted[: len(plan)]] == [
        (s.position, s.fingers) for s in plan
    ]


def test_a_plan_that_cannot_be_hurried_enough() -> None:
    plan = [Waypoint("move", "reach", (0.0, 0.0, 0.33), speed=0.3)]
    with pytest.raises(ValueError, match=r"longer than 0\.2 s even when hurried"):
        fit_ticks(plan, 10, HOME)


def test_plans_take_as_long_as_foretold(world: World, planned: Planned) -> None:
    for family in ("rotate", "open_drawer"):
        scene, plan = planned(family)
        world.reset(scene)
        states = world.run(plan)
        assert len(states) == 1 + math.ceil(plan_ticks(plan, scene.home) / SAMPLE_TICKS)


# --- runs


def check_twins(world: World, success: Rollout, failure: Rollout) -> None:
    task = success.setup.task.name
    assert success.outcomes[task] is Outcome.TRUE
    assert failure.outcomes[task] is Outcome.FALSE
    assert np.array_equal(failure.states[0], success.states[0])
    assert failure.states.shape == success.states.shape  # the same length: it must not tell
    assert not np.array_equal(failure.states[-1], success.states[-1])
    for name in ("task", "phrasing", "instruction", "scene", "split", "index", "attempt", "seed"):
        assert getattr(failure.setup, name) == getattr(success.setup, name)


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        (INCOMPLETE_GRASP, "lift_blue_block_slider"),
        (INCOMPLETE_GRASP, "stack_block"),
        (INADEQUATE_GRIP_RETENTION, "lift_red_block_drawer"),
        (INADEQUATE_GRIP_RETENTION, "move_slider_left"),
        (MISALIGNED_KEYFRAME, "turn_on_led"),
        (MISALIGNED_KEYFRAME, "push_red_block_right"),
        (INCORRECT_ROTATION, "rotate_pink_block_left"),
        (INCORRECT_ROTATION, "lift_pink_block_table"),
        (MISSING_ROTATION, "rotate_red_block_left"),
        (WRONG_ACTION_SEQUENCE, "place_in_drawer"),
        (WRONG_ACTION_SEQUENCE, "turn_off_lightbulb"),
        (WRONG_TARGET_OBJECT, "open_drawer"),
    ],
)
def test_failed_twin(world: World, kind: str, task: str) -> None:
    success = simulate(world, "dev", 500, tasks=(task,))
    failure = perform_failure(world, success, kind)
    check_twins(world, success, failure)
    again = perform_failure(world, success, kind)
    assert np.array_equal(failure.states, again.states)
    if kind == WRONG_TARGET_OBJECT:
        done = failure.setup.negative
        assert failure.outcomes[done.name] is Outcome.TRUE
        assert "object" in contrast(done, success.setup.task)


def test_incomplete_grasp_leaves_the_block_where_it_was(world: World) -> None:
    success = simulate(world, "dev", 1, tasks=("rotate_red_block_left",))
    failure = perform_failure(world, success, INCOMPLETE_GRASP)
    before, after = (world.state_at(failure.states[i]).blocks["red"] for i in (0, -1))
    assert math.hypot(after.x - before.x, after.y - before.y) < 0.015


def test_what_makes_no_sense_is_refused_with_the_reason(world: World) -> None:
    push = simulate(world, "dev", 2, tasks=("push_red_block_left",))
    with pytest.raises(ValueError, match="no grip"):
        perform_failure(world, push, INADEQUATE_GRIP_RETENTION)
    with pytest.raises(ValueError, match="unknown failure"):
        perform_failure(world, push, "explode")
