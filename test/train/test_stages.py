"""Two steps of every stage on a handful of made-up episodes, from store to judged episode."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.episode_store import EpisodeRow, shard_path, write_shard
from ifailsense_ros.data.experts import ExpertSet, episode_of
from ifailsense_ros.evaluate.predictions import predict
from ifailsense_ros.model.detector import load_detector
from ifailsense_ros.train.recipes import SIM_TINY, Geometry, Sampling
from ifailsense_ros.train.run import Run

COLOURS = ("red", "blue", "pink")


def row(split, index):
    rng = np.random.default_rng((index, len(split)))
    ok, jpeg = cv2.imencode(".jpg", rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    assert ok
    task, wrong = (f"lift_{COLOURS[(index + k) % 3]}_block" for k in (0, 1))
    return EpisodeRow(
        split=split,
        index=index,
        attempt=0,
        task=task,
        negative_task=wrong,
        category="lifting",
        contrast=("colour",),
        phrasing=0,
        instruction=f"lift the {COLOURS[index % 3]} block",
        negative_instruction=f"lift the {COLOURS[(index + 1) % 3]} block",
        outcomes={f"lift_{c}_block": 1 if f"lift_{c}_block" == task else -1 for c in COLOURS},
        feasible=tuple(f"lift_{c}_block" for c in COLOURS),
        duration_s=3.0,
        stamps_ns=(0, 10**9, 2 * 10**9, 3 * 10**9),
        images=(jpeg.tobytes(),) * 8,
        states=np.zeros((31, 4), np.float32),
        generator_version="test",
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    for split, count in (("train", 12), ("validation", 4), ("test", 3)):
        write_shard(shard_path(folder, split, 0, count), [row(split, i) for i in range(count)], {})
    return folder


def short(recipe):
    two_steps = {"steps": 2, "warmup": 1, "eval_every": 1}

    def cut(stage):
        return replace(stage, schedule=replace(stage.schedule, **two_steps))

    return replace(
        recipe,
        stage0=tuple(
            replace(cut(s), sampling=replace(s.sampling, pictures=2)) for s in recipe.stage0
        ),
        stage1=replace(
            recipe.stage1,
            schedules=tuple(replace(s, **two_steps) for s in recipe.stage1.schedules),
            sampling=Sampling(pictures=2),
        ),
        stage2=replace(cut(recipe.stage2), sampling=Sampling(pictures=4), batch=4),
        geometry=Geometry(cell_height=28, cell_width=28),
        intermediate_size=64,
    )


@pytest.mark.parametrize("ablation", ["none", "image_blind", "first_frame_only"])
def test_from_store_to_judged_pairs(store, tmp_path, ablation):
    control = Ablation(ablation)
    figures = Run(short(SIM_TINY), store, store, tmp_path / "run", control).go()
    assert {"stage0", "base", "stage1", "stage2"} <= set(figures)
    detector = load_detector(tmp_path / "run" / "checkpoint")
    assert detector.config.training_data_hash == ExpertSet(store, "train").hash
    judged = list(predict(detector, store, "test", ablation=control, progress=False))
    assert [j.label for j in judged] == [True, False] * 3
    assert judged[0].sources == ("fs:1", "fs:2", "fs:3", "vlm")
    if ablation == "none":  # the exported checkpoint is the model that was measured
        again = Run(short(SIM_TINY), store, store, tmp_path / "run", control).go()
        assert again == figures


def test_wrong_tasks_leave_out_what_came_true_what_was_infeasible_and_other_categories(tmp_path):
    base = row("train", 0)
    changed = replace(
        base,
        outcomes={"lift_red_block": 1, "lift_blue_block": 0, "lift_pink_block": -1, "open": -1},
        feasible=("lift_red_block", "lift_blue_block", "open"),
    )
    # another row makes the other tasks and categories known
    other = replace(row("train", 1), index=1, task="open", negative_task="shut", category="doors")
    write_shard(shard_path(tmp_path, "train", 0, 3), [changed, other, row("train", 2)], {})
    assert ExpertSet(tmp_path, "train").experts[0].wrong_tasks == ()
    changed = replace(changed, feasible=(*changed.feasible, "lift_pink_block"))
    write_shard(shard_path(tmp_path, "train", 0, 3), [changed, other, row("train", 2)], {})
    assert ExpertSet(tmp_path, "train").experts[0].wrong_tasks == ("lift_pink_block",)


def test_stored_episode_becomes_an_episode_with_one_or_two_pov():
    for num_pov in (1, 2):
        episode = episode_of(row("test", 0), num_pov, "lift the pink block")
        assert (episode.num_pov, len(episode.keyframes)) == (num_pov, 4)
        assert episode.instruction == "lift the pink block"
