"""Episodes from seeds: determinism, the rules of the draw, confirmed failures (no pictures)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")
pytest.importorskip("pyarrow", reason="needs pyarrow: the `sim` extra")

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.episode_store import list_shards, read_episodes
from ifailsense_ros.sim import record_dataset
from ifailsense_ros.sim.failures import drop, missed_grasp, perform_failure
from ifailsense_ros.sim.instructions import TEST_PHRASINGS, TRAIN_PHRASINGS
from ifailsense_ros.sim.robot import Waypoint, World
from ifailsense_ros.sim.rollout import SPLITS, episode_seed, simulate
from ifailsense_ros.sim.scene import draw_scene
from ifailsense_ros.sim.tasks import CATEGORIES, TASKS, Outcome, judge_all, state_of_scene

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("index", range(4))
def test_an_episode_follows_the_rules(world: World, index: int) -> None:
    rollout = simulate(world, "dev", index)
    setup = rollout.setup
    assert setup.task.category == setup.negative.category == CATEGORIES[index]
    assert {setup.task.name, setup.negative.name} <= {*setup.feasible}
    assert rollout.outcomes[setup.task.name] is Outcome.TRUE
    assert rollout.outcomes[setup.negative.name] is Outcome.FALSE
    assert setup.phrasing in TRAIN_PHRASINGS
    assert setup.instruction != setup.negative_instruction
    assert rollout.states.dtype == np.float32
    assert len(rollout.states) == len(rollout.stamps_ns)
    assert np.all(np.diff(rollout.stamps_ns) == 100_000_000)
    # The record speaks for itself: judged anew from its first and last sample.
    first, last = world.state_at(rollout.states[0]), world.state_at(rollout.states[-1])
    assert judge_all(first, last)[setup.task.name] is Outcome.TRUE


def test_same_seed_same_states_whatever_the_world_did_before(world: World) -> None:
    a = simulate(world, "dev", 2)
    simulate(world, "dev", 1)
    b = simulate(world, "dev", 2)
    fresh = simulate(World(), "dev", 2)
    assert np.array_equal(a.states, b.states)
    assert np.array_equal(a.states, fresh.states)
    assert a.setup == b.setup == fresh.setup


def test_splits_and_attempts_never_share_a_seed() -> None:
    states = {
        tuple(episode_seed(split, index, attempt, edit).generate_state(4))
        for split in SPLITS
        for index in range(20)
        for attempt in range(5)
        for edit in (None, 1, 2)
    }
    assert len(states) == len(SPLITS) * 20 * 5 * 3


def test_test_episodes_use_test_phrasings(world: World) -> None:
    assert simulate(world, "test", 0).setup.phrasing in TEST_PHRASINGS


def test_the_scene_is_drawn_before_the_task(world: World) -> None:
    """Whichever task is performed, the start is the scene's own, to the settling of a block."""
    setup = simulate(world, "dev", 0).setup
    world.reset(setup.scene)
    drawn, now = state_of_scene(setup.scene), world.state()
    for colour, block in drawn.blocks.items():
        assert abs(block.x - now.blocks[colour].x) < 1e-3
        assert abs(block.y - now.blocks[colour].y) < 1e-3
    assert abs(drawn.drawer - now.drawer) < 1e-3
    assert abs(drawn.door - now.door) < 1e-3


def test_the_hand_reaches_its_start_posture(world: World) -> None:
    for seed in range(5):
        scene = draw_scene(np.random.default_rng(seed))
        world.reset(scene)
        assert np.linalg.norm(world.data.site("tcp").xpos - scene.home.position) < 0.005


@pytest.mark.parametrize(
    ("split", "index", "match"), [("exam", 0, "no episode"), ("dev", -1, "no episode")]
)
def test_unknown_episode(world: World, split: str, index: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        simulate(world, split, index)


@pytest.mark.parametrize(("kind", "index"), [("drop", 4), ("missed_grasp", 5)])
def test_failed_twin(world: World, kind: str, index: int) -> None:
    success = simulate(world, "dev", index)
    twin = perform_failure(world, success, kind)
    task = success.setup.task.name
    assert success.outcomes[task] is Outcome.TRUE
    assert twin.outcomes[task] is Outcome.FALSE
    assert twin.setup == success.setup
    assert np.array_equal(twin.states[0], success.states[0])
    assert abs(len(twin.states) - len(success.states)) <= 1  # length must not tell
    assert not np.array_equal(twin.states[-1], success.states[-1])


def test_missed_grasp_leaves_the_block_where_it_was(world: World) -> None:
    success = simulate(world, "dev", 5)
    twin = perform_failure(world, success, "missed_grasp")
    colour = success.setup.task.colour
    before, after = (world.state_at(twin.states[i]).blocks[colour] for i in (0, -1))
    assert np.hypot(after.x - before.x, after.y - before.y) < 0.005


def test_faults_need_a_place_in_the_plan(world: World) -> None:
    push = simulate(world, "dev", 2)
    with pytest.raises(ValueError, match="nothing to drop"):
        perform_failure(world, push, "drop")
    with pytest.raises(ValueError, match="no grasp to miss"):
        perform_failure(world, push, "missed_grasp")
    with pytest.raises(ValueError, match="unknown failure"):
        perform_failure(world, push, "explode")


def test_edits_leave_the_plan_they_were_given_alone() -> None:
    plan = [
        Waypoint("move", "approach", (0.5, 0.0, 0.13)),
        Waypoint("move", "reach", (0.5, 0.0, 0.02)),
        Waypoint("grip", "grasp", fingers=0.0, duration=0.3),
        Waypoint("move", "lift", (0.5, 0.0, 0.2)),
    ]
    before = [replace(step) for step in plan]
    dropped = drop(plan, np.random.default_rng(0))
    missed = missed_grasp(plan, np.random.default_rng(0))
    assert plan == before
    assert dropped[3].release_at is not None
    assert missed[1].position[2] > 0.02 + 0.05
    # Half the way at half the speed: the time stays.
    old = 0.11 / plan[1].speed
    new = (0.13 - missed[1].position[2]) / missed[1].speed
    assert new == pytest.approx(old)


def test_data_set_is_the_same_bytes_twice_and_resumes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        record_dataset.record_shard(tmp_path / name, "dev", 0, 3, with_pictures=False)
    (a,), (b,) = (list_shards(tmp_path / name) for name in ("a", "b"))
    assert a.read_bytes() == b.read_bytes()
    rows = list(read_episodes(tmp_path / "a", "dev"))
    assert [row.index for row in rows] == [0, 1, 2]
    assert all(set(row.outcomes) == set(TASKS) for row in rows)
    assert all(len(row.stamps_ns) == record_dataset.NUM_KEYFRAMES for row in rows)
    assert all(row.stamps_ns[-1] == round(row.duration_s * 1e9) for row in rows)

    stamp = a.stat().st_mtime_ns
    record_dataset.record_dataset(tmp_path / "a", "dev", 3, with_pictures=False)
    assert a.stat().st_mtime_ns == stamp  # the shard was there and stayed


def test_a_killed_run_is_cleaned_up_after(tmp_path: Path) -> None:
    (tmp_path / "dev-000050-000051.parquet.1.part").write_bytes(b"half")
    record_dataset.record_dataset(tmp_path, "dev", 1, first=50, with_pictures=False)
    assert [p.name for p in tmp_path.iterdir()] == ["dev-000050-000051.parquet"]


@pytest.mark.parametrize(
    "arguments",
    [("exam", 10, 0, 1), ("dev", 0, 0, 1), ("dev", 10, 7, 1), ("dev", 10, 0, 0)],
)
def test_bad_range(tmp_path: Path, arguments: tuple[str, int, int, int]) -> None:
    split, episodes, first, workers = arguments
    with pytest.raises(ConfigError, match="--"):
        record_dataset.record_dataset(tmp_path / "x", split, episodes, first, workers)
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(TASKS))
def test_expert_of_every_task(world: World, task: str) -> None:
    """The expert does what is asked, by the oracle, in the first scenes where it is feasible."""
    from ifailsense_ros.sim.experts import plan_for
    from ifailsense_ros.sim.tasks import is_feasible, judge

    done = 0
    for seed in range(200):
        scene = draw_scene(np.random.default_rng(10_000 + seed))
        if not is_feasible(TASKS[task], state_of_scene(scene)):
            continue
        world.reset(scene)
        start = world.state()
        states = world.run(plan_for(TASKS[task], world, np.random.default_rng(seed)))
        assert judge(TASKS[task], start, world.state_at(states[-1])) is Outcome.TRUE, seed
        done += 1
        if done == 3:
            return
    pytest.fail(f"{task} was feasible in {done} of 200 scenes only")
