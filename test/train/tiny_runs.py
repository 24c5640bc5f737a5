"""A handful of made-up episodes, and recipes of a few steps on them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from ifailsense_ros.core.checkpoint import FSHeadSettings
from ifailsense_ros.data.episode_store import (
    EpisodeRow,
    read_episodes,
    shard_path,
    write_shard,
)
from ifailsense_ros.data.records import UNFINISHED
from ifailsense_ros.data.scene_questions import key_of, write_questions
from ifailsense_ros.train.settings import Geometry, Recipe, Sampling

sys.path.append(str(Path(__file__).parents[1] / "model"))
from tiny_models import build_model

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


def make_store(folder: Path, unfinished_in: Path | None = None) -> Path:
    """12 training, 4 validation and 3 test episodes; some of them left unfinished as well.

    These lie in the same store, or in one of their own, of which a data set can be built.
    """
    cut_folder = unfinished_in or folder
    for split, count, unfinished in (("train", 12, 3), ("validation", 4, 1), ("test", 3, 0)):
        write_shard(shard_path(folder, split, 0, count), [row(split, i) for i in range(count)], {})
        cut_short = [left_unfinished(split, i) for i in range(unfinished)]
        if cut_short:
            write_shard(shard_path(cut_folder, split, count, count + unfinished), cut_short, {})
    for store in {folder, cut_folder}:
        write_questions(store, ((key_of(r), asked_about(r)) for r in read_episodes(store)))
    return folder


def asked_about(row):
    return (
        (f"where is the {COLOURS[row.index % 3]} block at the end?", "table"),
        ("is the light bulb on at the start?", ("yes", "no")[row.index % 2]),
    )


def left_unfinished(split, index):
    whole = row(split, index)
    return replace(whole, kind=UNFINISHED, outcomes={**whole.outcomes, whole.task: -1})


def short(recipe: Recipe, steps: int = 2, eval_every: int = 1) -> Recipe:
    """The recipe with small models, pictures and batches, and a few steps a stage."""
    few = {"steps": steps, "epochs": 0, "warmup": 1, "eval_every": eval_every}

    def cut(stage):
        return replace(stage, schedule=replace(stage.schedule, **few))

    return replace(
        recipe,
        stage0=tuple(
            replace(cut(s), sampling=replace(s.sampling, pictures=2)) for s in recipe.stage0
        ),
        stage1=replace(
            recipe.stage1,
            phases=tuple(map(cut, recipe.stage1.phases)),
            sampling=Sampling(pictures=2),
        ),
        stage2=replace(
            cut(recipe.stage2),
            sampling=Sampling(pictures=4),
            batch=4,
            head=FSHeadSettings((16, 8), 2, 0.1),
        ),
        geometry=Geometry(cell_height=28, cell_width=28) if recipe.stage0 else recipe.geometry,
        intermediate_size=64,
    )


def siglip_base(folder: Path) -> Path:
    """A tiny random PaliGemma with a SigLIP tower, on disk as Google's are."""
    model, processor = build_model("siglip", (28, 28), softcap=50.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
