"""The unseen world in motion: experts, replay, failures, recording. No picture is rendered."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.episode_store import read_episodes
from ifailsense_ros.data.records import EXPERT
from ifailsense_ros.sim.oracle import Outcome
from ifailsense_ros.sim.unseen import SOURCE, arm, failures, record
from ifailsense_ros.sim.unseen.experts import replay
from ifailsense_ros.sim.unseen.rollout import Rollout, Seed, Stage, scene_of, simulate
from ifailsense_ros.sim.unseen.scenes import SCENES
from ifailsense_ros.sim.unseen.tasks import PAIRS

pytestmark = [
    pytest.mark.sim,
    pytest.mark.timeout(300),  # loading eleven scenes takes its time where other things run
    pytest.mark.skipif(
        importlib.util.find_spec("metaworld") is None, reason="needs the `unseen` extra"
    ),
]


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage()


class Episodes(dict):
    """An episode of each scene, made when a test first asks for it."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage

    def __missing__(self, scene: str) -> Rollout:
        self[scene] = simulate(self._stage, Seed("dev", list(SCENES).index(scene)), scene)
        return self[scene]


@pytest.fixture(scope="module")
def episodes(stage: Stage) -> Episodes:
    return Episodes(stage)


@pytest.mark.parametrize("scene", SCENES)
def test_an_episode_does_its_task_and_not_the_opposite(episodes, scene: str) -> None:
    episode = episodes[scene]
    assert {episode.task, episode.negative} == set(PAIRS[scene])
    assert episode.outcomes[episode.task.name] is Outcome.TRUE
    assert episode.outcomes[episode.negative.name] is Outcome.FALSE
    samples = episode.performance.samples
    assert len(samples) == len(episode.performance.motion) // arm.SAMPLE_EVERY + 1
    assert len(samples) == len(episode.stamps_ns) > 8
    assert samples.dtype == np.float32


@pytest.mark.parametrize("scene", ["drawer", "coffee", "bins"])
def test_a_replayed_motion_is_the_same_to_the_bit(stage, episodes, scene: str) -> None:
    episode = episodes[scene]
    again = replay(stage.arm(scene), episode.start, episode.performance.motion)
    assert np.array_equal(again.samples, episode.performance.samples)


def test_the_same_seed_is_the_same_episode_whatever_came_before(stage, episodes) -> None:
    number = list(SCENES).index("window")
    fresh = simulate(Stage(), Seed("dev", number), "window")
    assert fresh.instruction == episodes["window"].instruction
    assert np.array_equal(fresh.performance.samples, episodes["window"].performance.samples)


def test_splits_streams_and_users_seeds_share_no_start(stage) -> None:
    seeds = [
        Seed("test", 4),
        Seed("train", 4),
        Seed("test", 4, "failures"),
        Seed("test", 4, base=1),
    ]
    starts = [simulate(stage, seed, "faucet").start for seed in seeds]
    assert len(set(starts)) == len(starts)


def test_each_sentence_is_as_often_wrong_as_right(stage) -> None:
    said = Counter()
    for turn in range(4):
        episode = simulate(stage, Seed("test", 8 + turn * len(SCENES)))
        said[episode.instruction] += 1
        said[episode.negative_instruction] -= 1
    assert len(said) >= 2
    assert set(said.values()) == {0}


def test_what_is_seen_first_does_not_depend_on_what_is_done(stage) -> None:
    """Both experts must succeed, so turning the coin over changes nothing before the motion."""
    done = Counter()
    for index in range(8):
        episode = simulate(stage, Seed("train", index, "failures"), "goal")
        done[episode.task.name] += 1
        first = episode.performance.samples[0]
        hand = stage.arm("goal")
        hand.reset(episode.start)
        assert np.array_equal(first, hand.sample())
    assert len(done) == 2


@pytest.mark.parametrize("kind", failures.CLASSES)
def test_a_failure_has_the_start_and_length_of_its_twin(stage, kind: str) -> None:
    scene = failures.SCENES_OF[kind][0]
    failure, twin = failures.simulate_failure(stage, Seed("dev", 3, "failures"), kind, scene)
    assert failure.start == twin.start
    assert failure.instruction == twin.instruction
    assert len(failure.performance.motion) == len(twin.performance.motion)
    assert np.array_equal(failure.performance.samples[0], twin.performance.samples[0])
    assert set(failure.outcomes.values()) == {Outcome.FALSE}
    assert twin.outcomes[twin.task.name] is Outcome.TRUE
    assert not np.array_equal(failure.performance.samples, twin.performance.samples)


def test_a_class_that_makes_no_sense_somewhere_is_refused(stage, episodes) -> None:
    with pytest.raises(ValueError, match="makes no sense"):
        failures.fail(stage, episodes["drawer"], "incomplete_grasp")


def test_a_store_of_both_kinds(tmp_path) -> None:
    record.record(tmp_path / "pairs", "test", 3, pictures=False)
    rows = list(read_episodes(tmp_path / "pairs"))
    assert [row.task in {t.name for t in PAIRS[scene_of(row.index)]} for row in rows] == [True] * 3
    assert all((row.source, row.kind) == (SOURCE, EXPERT) for row in rows)
    assert all(row.outcomes[row.task] == 1 for row in rows)
    assert all(row.outcomes[row.negative_task] == -1 for row in rows)

    assert record.main(["--split", "test", "--failures", "1", "--no-pictures", "--out",
                        str(tmp_path / "failures")]) == 0  # fmt: skip
    rows = list(read_episodes(tmp_path / "failures"))
    for twin, failure in zip(rows[::2], rows[1::2], strict=True):
        assert (twin.kind, failure.kind) == (EXPERT, failures.CLASSES[failure.index])
        assert replace(failure, kind=EXPERT, outcomes=twin.outcomes, states=twin.states) == twin


def test_recording_goes_on_where_it_was_and_refuses_other_settings(tmp_path, capsys) -> None:
    first = record.record(tmp_path, "dev", 2, pictures=False)
    (shard,) = tmp_path.glob("*.parquet")
    made = shard.read_bytes()
    again = record.record(tmp_path, "dev", 2, pictures=False)
    assert (first.episodes_made, again.episodes_made) == (2, 0)
    assert first.tally == again.tally
    shard.unlink()
    record.record(tmp_path, "dev", 2, pictures=False)
    assert shard.read_bytes() == made
    with pytest.raises(ConfigError, match="seed"):
        record.record(tmp_path, "dev", 2, base=7, pictures=False)
    assert record.main(["--split", "nowhere", "--episodes", "1", "--out", str(tmp_path)]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_without_meta_world_there_is_one_clear_line(monkeypatch) -> None:
    monkeypatch.setattr(arm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"\[unseen\]"):
        arm.Arm("drawer")
