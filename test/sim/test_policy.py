"""The robot that errs: faults at their shares, attempts that go on from one another."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")

from ifailsense_ros.data.failure_classes import CONTROL_FAILURES, SEMANTIC_MISALIGNMENT
from ifailsense_ros.data.records import EXPERT
from ifailsense_ros.sim.fault_rates import SEMANTIC, FaultRates
from ifailsense_ros.sim.instructions import instruction_for
from ifailsense_ros.sim.policy import Robot, task_of
from ifailsense_ros.sim.robot import FINGERS_OPEN, World
from ifailsense_ros.sim.rollout import Setup, draw_setup
from ifailsense_ros.sim.tasks import TASKS

pytestmark = pytest.mark.sim

NONE = FaultRates(1.0, dict.fromkeys(CONTROL_FAILURES, 0.0), dict.fromkeys(SEMANTIC, 0.0))


def only(kind: str) -> FaultRates:
    """Nothing but one fault."""
    group = "control" if kind in CONTROL_FAILURES else "semantic"
    return replace(NONE, clean=0.0, **{group: {**getattr(NONE, group), kind: 1.0}})


def setup_for(task: str, seed: int = 90) -> Setup:
    """The first scene that is drawn for a task, whatever the oracle would say of the expert."""
    for attempt in range(500):
        setup = draw_setup("dev", 0, attempt, seed=seed, tasks=(task,))
        if setup is not None:
            return setup
    raise AssertionError(f"no scene for {task}")


def attempt(robot: Robot, asked: str, seed: int = 0):
    for _ in robot.attempt(TASKS[asked], seed):
        pass
    return robot.result()


def laid_out(world: World, rates: FaultRates, task: str, seed: int = 90) -> Robot:
    robot = Robot(world, rates)
    robot.lay_out(setup_for(task, seed), [seed])
    return robot


def test_every_sentence_is_understood() -> None:
    for task in TASKS.values():
        for phrasing in range(11):
            assert task_of(f" {instruction_for(task, phrasing).capitalize()} ") == task
    with pytest.raises(KeyError):
        task_of("make coffee")


@pytest.mark.parametrize("task", ["lift_red_block_table", "open_drawer", "rotate_blue_block_left"])
def test_without_faults_it_succeeds_and_is_home_afterwards(world: World, task: str) -> None:
    robot = laid_out(world, NONE, task)
    first = attempt(robot, task)
    assert (first.kind, first.performed, first.done) == (EXPERT, task, True)
    assert first.success and first.held and first.home_s == 0.0
    assert first.states.shape[1] == world.model.nq
    assert len(list(robot.go_home())) > 0
    assert list(robot.go_home()) == [], "it is home already"
    assert world.fingers[0] == FINGERS_OPEN
    assert world.state().blocks["red"].z < 0.2, "what was lifted has been put back"


def test_what_was_lifted_is_put_back_and_can_be_lifted_again(world: World) -> None:
    robot = laid_out(world, NONE, "lift_red_block_table")
    before = world.state().blocks["red"]
    assert attempt(robot, "lift_red_block_table").success
    list(robot.go_home())
    after = world.state().blocks["red"]
    assert np.hypot(after.x - before.x, after.y - before.y) < 0.02
    assert abs(after.z - before.z) < 0.01
    again = attempt(robot, "lift_red_block_table", seed=1)
    assert again.success
    assert again.home_s > 1.0


@pytest.mark.parametrize("kind", ["wrong_target_object", SEMANTIC_MISALIGNMENT])
def test_the_same_seed_means_the_same(world: World, kind: str) -> None:
    robot = laid_out(world, only(kind), "move_slider_left")
    first, again = (attempt(robot, "move_slider_left", seed=4) for _ in range(2))
    assert first.kind == again.kind == kind
    assert first.performed != "move_slider_left"
    assert not first.success
    assert first.done, "a robot does not know that it misunderstood"


def test_another_seed_can_mean_something_else(world: World) -> None:
    rates = replace(NONE, clean=0.5, semantic={**NONE.semantic, SEMANTIC_MISALIGNMENT: 0.5})
    kinds = set()
    for seed in range(8):
        robot = laid_out(world, rates, "move_slider_left")
        kinds.add(attempt(robot, "move_slider_left", seed).kind)
    assert kinds == {EXPERT, SEMANTIC_MISALIGNMENT}


@pytest.mark.parametrize("kind", CONTROL_FAILURES)
def test_a_control_fault_spoils_a_rotation(world: World, kind: str) -> None:
    robot = laid_out(world, only(kind), "rotate_red_block_left")
    result = attempt(robot, "rotate_red_block_left")
    assert result.kind == kind
    assert result.performed == "rotate_red_block_left"
    assert not result.success


def test_a_fault_that_makes_no_sense_passes_its_share_on(world: World) -> None:
    shares = {**NONE.control, "incomplete_grasp": 0.9, "misaligned_keyframe": 0.1}
    rates = replace(NONE, clean=0.0, control=shares)
    robot = laid_out(world, rates, "turn_on_led")
    assert attempt(robot, "turn_on_led").kind == "misaligned_keyframe"


def test_the_gripper_tells_a_missed_grasp_and_a_loss(world: World) -> None:
    for kind in ("incomplete_grasp", "inadequate_grip_retention"):
        robot = laid_out(world, only(kind), "lift_red_block_table")
        assert not attempt(robot, "lift_red_block_table").held, kind
    robot = laid_out(world, only("wrong_target_object"), "lift_red_block_table", seed=91)
    assert attempt(robot, "lift_red_block_table").held, "it holds something, whatever it is"


def test_what_is_so_already_is_left_alone(world: World) -> None:
    robot = laid_out(world, NONE, "turn_on_led")
    assert attempt(robot, "turn_on_led").success
    assert world.state().led
    again = attempt(robot, "turn_on_led", seed=1)
    assert world.state().led, "pressed again, it would be off"
    assert again.done and again.success
    assert 10 <= len(again.states) < 40, "there is something to look at"


def test_a_robot_that_knows_no_way_says_so(world: World) -> None:
    robot = laid_out(world, NONE, "close_drawer")
    assert attempt(robot, "close_drawer").success
    result = attempt(robot, "place_in_drawer")
    assert (result.kind, result.performed, result.done) == ("", "", False)
    assert not result.success


def test_stopped_half_way_it_is_not_done_and_goes_on_from_there(world: World) -> None:
    robot = laid_out(world, NONE, "lift_red_block_table")
    motion = robot.attempt(TASKS["lift_red_block_table"], 0)
    for _ in range(8):
        next(motion)
    motion.close()
    result = robot.result()
    assert not result.done and not result.success
    assert len(result.states) == 8
    assert attempt(robot, "lift_red_block_table", seed=1).success


def test_the_same_key_gives_the_same_motion(world: World) -> None:
    rates = replace(NONE, clean=0.5, control={**NONE.control, "misaligned_keyframe": 0.5})
    runs = []
    for _ in range(2):
        robot = laid_out(world, rates, "stack_block")
        runs.append([attempt(robot, "stack_block", seed) for seed in range(2)])
    for one, other in zip(*runs, strict=True):
        assert one.kind == other.kind
        np.testing.assert_array_equal(one.states, other.states)


@pytest.mark.slow
def test_faults_come_at_their_shares(world: World) -> None:
    """Of the drawing alone: nothing is carried out."""
    rates = FaultRates(
        0.5,
        {kind: 0.3 if kind == "misaligned_keyframe" else 0.0 for kind in CONTROL_FAILURES},
        {kind: 0.2 if kind == SEMANTIC_MISALIGNMENT else 0.0 for kind in SEMANTIC},
    )
    setup, kinds = setup_for("move_slider_left"), Counter()
    robot = Robot(world, rates)
    robot.lay_out(setup, [0])
    for number in range(600):
        robot._key = [number]
        motion = robot.attempt(TASKS["move_slider_left"], 0)
        next(motion)
        motion.close()
        kinds[robot.result().kind] += 1
        robot._at_home = True
    for kind, share in ((EXPERT, 0.5), ("misaligned_keyframe", 0.3), (SEMANTIC_MISALIGNMENT, 0.2)):
        assert abs(kinds[kind] / 600 - share) < 0.07, kinds
