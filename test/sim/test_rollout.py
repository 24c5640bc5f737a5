"""Episodes from seeds: determinism, the rules of the draw, experts and lamps (no pictures)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")

from ifailsense_ros.sim.experts import plan_for
from ifailsense_ros.sim.feasibility import is_feasible
from ifailsense_ros.sim.furniture import LAMP_RGBA
from ifailsense_ros.sim.instructions import DEV_PHRASINGS, TEST_PHRASINGS, TRAIN_PHRASINGS
from ifailsense_ros.sim.layout import COLOURS, EDGE_X
from ifailsense_ros.sim.look import LEVELS
from ifailsense_ros.sim.oracle import Outcome, judge, judge_all, state_of_scene
from ifailsense_ros.sim.robot import World
from ifailsense_ros.sim.rollout import (
    SPLITS,
    draw_setup,
    episode_seed,
    perform,
    scene_of,
    simulate,
    target_of,
)
from ifailsense_ros.sim.scene import Scene, draw_scene
from ifailsense_ros.sim.tasks import CATEGORIES, TASKS, tasks_of

pytestmark = pytest.mark.sim

TAGS = {
    "approach", "reach", "grasp", "lift", "carry", "turn", "place", "release", "push", "press",
    "pull", "leave", "retreat", "hold", "pause",
}  # fmt: skip


def scene_for(task: str, first_seed: int = 10_000) -> Scene:
    """The first scene in which a task is feasible."""
    for seed in range(first_seed, first_seed + 200):
        scene = draw_scene(np.random.default_rng(seed))
        if is_feasible(TASKS[task], state_of_scene(scene)):
            return scene
    raise AssertionError(f"{task} was feasible in none of 200 scenes")


@pytest.mark.parametrize("index", range(6))
def test_an_episode_follows_the_rules(world: World, index: int) -> None:
    rollout = simulate(world, "dev", index)
    setup = rollout.setup
    assert setup.task.category == setup.negative.category == CATEGORIES[index]
    assert target_of(index) in (setup.task, setup.negative)
    assert {setup.task.name, setup.negative.name} <= {*setup.feasible}
    assert rollout.outcomes[setup.task.name] is Outcome.TRUE
    assert rollout.outcomes[setup.negative.name] is Outcome.FALSE
    assert set(rollout.outcomes) == set(TASKS)
    assert setup.phrasing in DEV_PHRASINGS
    assert setup.instruction != setup.negative_instruction
    assert rollout.states.dtype == np.float32
    assert len(rollout.states) == len(rollout.stamps_ns)
    assert np.all(np.diff(rollout.stamps_ns) == 100_000_000)
    # The record speaks for itself: judged anew from its samples.
    first, last = world.state_at(rollout.states[0]), world.state_at(rollout.states[-1])
    assert judge_all(first, last, world.carried(rollout.states)) == rollout.outcomes


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_expert_does_what_is_asked(world: World, task: str) -> None:
    """By the oracle, in a scene where it is feasible, with tags that edits know."""
    world.reset(scene_for(task))
    start = world.state()
    plan = plan_for(TASKS[task], world, np.random.default_rng(0))
    assert {step.tag for step in plan} <= TAGS
    assert next(step.tag for step in plan if step.tag != "pause") == "approach"
    states = world.run(plan)
    carried = world.carried(states)
    assert judge(TASKS[task], start, world.state_at(states[-1]), carried) is Outcome.TRUE


def test_an_expert_of_any_block_refuses_where_there_is_none(world: World) -> None:
    scene = next(
        scene
        for scene in (draw_scene(np.random.default_rng(seed)) for seed in range(100))
        if not is_feasible(TASKS["unstack_block"], state_of_scene(scene))
    )
    world.reset(scene)
    with pytest.raises(ValueError, match="not feasible"):
        plan_for(TASKS["unstack_block"], world, np.random.default_rng(0))


def test_same_seed_same_states_whatever_the_world_did_before(world: World) -> None:
    a = simulate(world, "dev", 5)
    simulate(world, "dev", 1)
    b = simulate(world, "dev", 5)
    fresh = simulate(World(), "dev", 5)
    assert np.array_equal(a.states, b.states)
    assert np.array_equal(a.states, fresh.states)
    assert a.setup == b.setup == fresh.setup


def test_splits_attempts_and_base_seeds_never_share_a_seed() -> None:
    states = {
        tuple(episode_seed(split, index, attempt, edit, seed=seed).generate_state(4))
        for split in SPLITS
        for index in range(10)
        for attempt in range(4)
        for edit in (None, 1, 2)
        for seed in (0, 1, 7)
    }
    assert len(states) == len(SPLITS) * 10 * 4 * 3 * 3


def test_the_base_seed_makes_another_world() -> None:
    assert scene_of("dev", 0, 0, seed=0) != scene_of("dev", 0, 0, seed=1)
    assert scene_of("dev", 0, 0, seed=1) == scene_of("dev", 0, 0, seed=1)


@pytest.mark.parametrize(
    ("split", "own"),
    [("train", TRAIN_PHRASINGS), ("dev", DEV_PHRASINGS), ("test", TEST_PHRASINGS)],
)
def test_dev_and_test_episodes_have_phrasings_of_their_own(split: str, own: range) -> None:
    setups = [draw_setup(split, 3, attempt) for attempt in range(10)]
    assert all(s.phrasing in own for s in setups if s)
    assert any(setups)


def test_the_scene_does_not_depend_on_the_category() -> None:
    """The scene is drawn from the seed alone; what is asked of it changes nothing."""
    a = draw_setup("dev", 3, 0, tasks=("open_drawer", "close_drawer"))
    b = draw_setup("dev", 3, 0, tasks=("turn_on_led", "turn_off_led"))
    assert a is not None
    assert a.scene == scene_of("dev", 3, 0)
    assert b is None or b.scene == a.scene


def test_categories_and_their_tasks_take_turns() -> None:
    turns = [target_of(index) for index in range(6 * 9 * 28)]
    assert Counter(task.category for task in turns) == dict.fromkeys(CATEGORIES, 252)
    for category in CATEGORIES:
        counts = Counter(task.name for task in turns if task.category == category)
        assert set(counts.values()) == {252 // len(tasks_of(category))}


def test_a_subset_of_tasks(world: World) -> None:
    some = ("open_drawer", "stack_block", "place_in_slider")
    names = {simulate(world, "dev", index, tasks=some).setup.task.name for index in range(4)}
    assert names <= set(some)
    assert "open_drawer" in names


def test_the_level_changes_the_look_and_nothing_else() -> None:
    scenes = [scene_of("dev", 3, 0, level) for level in LEVELS]
    looks = [scene.look for scene in scenes]
    assert all(looks.count(look) == 1 for look in looks)
    assert all(replace(scene, look=looks[0]) == scenes[0] for scene in scenes)


def test_the_start_is_the_scene(world: World) -> None:
    """Whichever task is performed, the start is the scene's own, to the settling of a block."""
    for seed in range(5):
        scene = draw_scene(np.random.default_rng(seed))
        world.reset(scene)
        drawn, now = state_of_scene(scene), world.state()
        for colour, block in drawn.blocks.items():
            for axis in "xyz":
                assert abs(getattr(block, axis) - getattr(now.blocks[colour], axis)) < 2e-3
        assert now.led == drawn.led
        for joint in ("drawer", "door", "switch"):
            assert abs(getattr(drawn, joint) - getattr(now, joint)) < 1e-3


def test_the_hand_reaches_its_start_posture(world: World) -> None:
    for seed in range(5):
        scene = draw_scene(np.random.default_rng(seed))
        world.reset(scene)
        assert np.linalg.norm(world.data.site("tcp").xpos - scene.home.position) < 0.005


# --- states and lamps


def test_the_documented_layout_of_a_state(world: World) -> None:
    places = {
        world.model.joint(i).name: int(world.model.jnt_qposadr[i]) for i in range(world.model.njnt)
    }
    assert world.model.nq == 35
    assert [places[f"arm{i}"] for i in range(1, 8)] == list(range(7))
    assert [places[n] for n in ("finger_left", "finger_right")] == [7, 8]
    assert [places[n] for n in ("drawer", "door", "switch", "button", "led")] == [9, 10, 11, 12, 13]
    assert [places[c] for c in COLOURS] == [14, 21, 28]


@pytest.mark.parametrize("bulb", [False, True])
@pytest.mark.parametrize("led", [False, True])
def test_lamps_are_lit_as_the_state_says(world: World, bulb: bool, led: bool) -> None:
    qpos = np.zeros(world.model.nq)
    qpos[11], qpos[13] = (0.03 if bulb else -0.03), float(led)
    world.light_lamps(qpos)
    for name, lit in (("bulb", bulb), ("led", led)):
        colour = world.model.mat_rgba[world.model.material(name).id]
        assert np.allclose(colour, LAMP_RGBA[name][lit])


def test_one_press_toggles_the_led_once(world: World) -> None:
    name = "turn_on_led"
    world.reset(scene_for(name))
    states = world.run(plan_for(TASKS[name], world, np.random.default_rng(1)))
    assert np.count_nonzero(np.diff(states[:, 13])) == 1
    assert states[:, 12].max() > 0.008
    assert abs(states[-1, 12]) < 0.002  # the button has come up again


def test_a_pushed_block_falls_over_the_edge(world: World) -> None:
    name = "push_into_drawer"
    world.reset(scene_for(name))
    start = world.state()
    states = world.run(plan_for(TASKS[name], world, np.random.default_rng(1)))
    end = world.state_at(states[-1])
    moved = [c for c in COLOURS if end.blocks[c].x - start.blocks[c].x > 0.05]
    assert len(moved) == 1
    assert end.blocks[moved[0]].x > EDGE_X
    assert not world.carried(states)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"split": "exam", "index": 0}, "no episode"),
        ({"split": "dev", "index": -1}, "no episode"),
        ({"split": "dev", "index": 0, "seed": -1}, "no episode"),
        ({"split": "dev", "index": 0, "tasks": ("fly",)}, "unknown tasks fly"),
        ({"split": "dev", "index": 0, "tasks": ()}, "unknown tasks"),
        ({"split": "dev", "index": 0, "level": "wild"}, "look level"),
    ],
)
def test_unknown_episode(world: World, arguments: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        simulate(world, **arguments)


@pytest.mark.parametrize(("index", "attempt"), [(38, 81), (542, 37), (710, 15)])
def test_a_block_pushed_lengthwise_falls_into_the_drawer(
    world: World, index: int, attempt: int
) -> None:
    # Pushed just over the edge, such a block stays leaning on it, half in and half out.
    setup = draw_setup("dev", index, attempt, seed=21)
    assert setup is not None
    assert setup.task.name == "push_into_drawer"
    assert perform(world, setup).outcomes["push_into_drawer"] is Outcome.TRUE
