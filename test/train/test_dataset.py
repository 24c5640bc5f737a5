"""What training draws: pairs and questions, and episodes in which nothing was done."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from tiny_runs import make_store, row

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.episode_store import shard_path, write_shard
from ifailsense_ros.data.records import EXPERT, UNFINISHED
from ifailsense_ros.train.dataset import TrainingSet
from ifailsense_ros.train.recipes import SIM_TINY
from ifailsense_ros.train.run import Run
from ifailsense_ros.train.settings import Questions, Sampling

ALL = (EXPERT, UNFINISHED)


def pictures(count, seed):
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 255, (count, 32, 32, 3), dtype=np.uint8)
    return tuple(cv2.imencode(".jpg", picture)[1].tobytes() for picture in noise)


@pytest.fixture
def store(tmp_path):
    rows = [replace(row("train", i), images=pictures(8, i)) for i in range(6)]
    rows[3] = replace(rows[3], kind=UNFINISHED, outcomes={**rows[3].outcomes, rows[3].task: -1})
    write_shard(shard_path(tmp_path, "train", 0, 4), rows[:4], {})
    write_shard(shard_path(tmp_path, "train", 4, 6), rows[4:], {})
    return tmp_path


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_pairs_are_half_right_and_half_wrong(store, share):
    data = TrainingSet(store, "train", ALL)
    sampling = Sampling(pictures=40, unfinished=share)
    drawn = data.draw(np.random.default_rng(0), sampling)
    assert sum(len(d.right) for d in drawn) == sum(len(d.wrong) for d in drawn) == 40
    nothing_done = [d for d in drawn if data.experts[d.index].unfinished]
    assert bool(nothing_done) == (share > 0)
    for d in nothing_done:
        task = data.experts[d.index].negative_task
        assert not d.right
        assert set(d.wrong) <= set(data.phrasings.by_task[task])
    for d in drawn:
        if d.right:
            assert d.right[0] in data.phrasings.by_task[data.experts[d.index].task]


def test_questions_come_in_the_numbers_asked_for(store):
    data = TrainingSet(store, "train", ALL)
    sampling = Sampling(pictures=30, unfinished=0.5)
    drawn = data.draw_questions(np.random.default_rng(0), sampling, Questions(1, 2, 3))
    assert len(drawn) == 30
    seen = set()
    for d in drawn:
        expert = data.experts[d.index]
        seen.add(expert.unfinished)
        assert (len(d.right), len(d.wrong)) == ((0, 3) if expert.unfinished else (1, 2))
        assert set(d.wrong).isdisjoint(data.phrasings.by_task.get(expert.task, ()))
    assert seen == {False, True}


def test_sources_are_drawn_as_often_as_each_other_if_asked(tmp_path):
    for source, count in (("desk", 90), ("other", 10)):
        rows = [replace(row("train", i), source=source) for i in range(count)]
        write_shard(shard_path(tmp_path, "train", 0 if source == "desk" else 90, count), rows, {})
    data = TrainingSet(tmp_path, "train")

    def share(even):
        sampling = Sampling(pictures=2000, even_sources=even, category_weights={"lifting": 2.0})
        drawn = data.draw(np.random.default_rng(0), sampling)
        return np.mean([data.experts[d.index].source == "other" for d in drawn])

    assert share(False) == pytest.approx(0.1, abs=0.03)
    assert share(True) == pytest.approx(0.5, abs=0.05)


def test_twins_are_an_expert_and_the_same_episode_left_unfinished(tmp_path):
    data = TrainingSet(make_store(tmp_path), "train", ALL)
    rows = dict(data.rows())
    sampling = Sampling(pictures=8, twins=True)
    drawn = data.draw_questions(np.random.default_rng(0), sampling, Questions(1, 2, 3))
    assert len(drawn) == 8
    for expert, twin in zip(drawn[::2], drawn[1::2], strict=True):
        assert not data.experts[expert.index].unfinished and data.experts[twin.index].unfinished
        assert rows[expert.index].index == rows[twin.index].index
        assert set(twin.wrong) <= set(data.phrasings.by_task[data.experts[expert.index].task])
        assert (len(expert.right), len(expert.wrong), len(twin.wrong)) == (1, 2, 3)


def test_an_episode_alone_has_no_twin(store, tmp_path):
    assert TrainingSet(store, "train", ALL).twins == {}
    whole = make_store(tmp_path / "whole")
    with pytest.raises(DataError, match="of an expert that is there"):
        Run(SIM_TINY, store, whole, tmp_path / "run", Ablation())


def test_without_such_episodes_their_shares_change_nothing(store):
    data = TrainingSet(store, "train")
    drawn = data.draw(np.random.default_rng(0), Sampling(pictures=8, unfinished=0.9))
    assert all(d.right and d.wrong for d in drawn)
