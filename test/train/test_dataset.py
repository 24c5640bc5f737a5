"""What training draws: pairs and questions, and episodes in which nothing was done."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from tiny_runs import row

from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.episode_store import shard_path, write_shard
from ifailsense_ros.data.experts import episode_of
from ifailsense_ros.data.records import EXPERT, UNFINISHED
from ifailsense_ros.model.tiny import build_tiny
from ifailsense_ros.train.dataset import TrainingSet
from ifailsense_ros.train.recipes import TAKEN_BACK, Questions, Sampling

ALL = (EXPERT, UNFINISHED, TAKEN_BACK)


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


def test_what_was_taken_back_has_the_expert_s_instruction_as_a_wrong_one(store):
    data = TrainingSet(store, "train", ALL)
    assert [e.unfinished for e in data.experts] == [False] * 3 + [True] + [False] * 2 + [True] * 5
    assert [e.index for e in data.experts] == list(range(11))
    expert, back = data.experts[0], data.experts[6]
    assert (back.negative_task, back.negative_instruction) == (expert.task, expert.instruction)
    of_back = [s for s in data.pairs() if s.index == 6]
    assert [(s.instruction, s.success) for s in of_back] == [(expert.instruction, False)]


def test_features_of_what_was_taken_back_end_as_they_began(store, tmp_path, monkeypatch):
    monkeypatch.setattr(  # the montage itself in place of the tower's output
        "ifailsense_ros.train.dataset.cached_features",
        lambda _model, _processor, shards, _key, _folder: [m for _, make in shards for m in make()],
    )
    data = TrainingSet(store, "train", ALL)
    full = MontageGeometry(2, 4, 28, 28)
    montages = data.features(None, None, full, Ablation(), tmp_path)
    assert len(montages) == len(data)
    experts = [(i, r) for i, r in data.rows() if not data.experts[i].unfinished]
    for (index, stored), back in zip(experts, montages[6:], strict=True):
        expert = montages[index]
        assert np.array_equal(expert, compose(episode_of(stored, 2), full))
        assert np.array_equal(back[:, :84], expert[:, :84])
        assert np.array_equal(back[:, 84:], expert[:, :28])
        assert not np.array_equal(back[:, 84:], expert[:, 84:])


def test_features_are_computed_for_all(store, tmp_path):
    data = TrainingSet(store, "train", ALL)
    model, processor = build_tiny(["a"], (28, 56), intermediate_size=32)
    full = MontageGeometry(2, 4, 14, 14)
    features = data.features(model, processor, full, Ablation(), tmp_path / "features")
    assert len(features) == len(data)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_pairs_are_half_right_and_half_wrong(store, share):
    data = TrainingSet(store, "train", ALL)
    sampling = Sampling(pictures=40, unfinished=share / 2, taken_back=share)
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
    sampling = Sampling(pictures=30, unfinished=0.3, taken_back=0.5)
    drawn = data.draw_questions(np.random.default_rng(0), sampling, Questions(1, 2, 3))
    assert len(drawn) == 30
    seen = set()
    for d in drawn:
        expert = data.experts[d.index]
        seen.add("done" if not expert.unfinished else "back" if d.index >= 6 else "unfinished")
        assert (len(d.right), len(d.wrong)) == ((0, 3) if expert.unfinished else (1, 2))
        assert set(d.wrong).isdisjoint(data.phrasings.by_task.get(expert.task, ()))
    assert seen == {"done", "back", "unfinished"}


def test_without_such_episodes_their_shares_change_nothing(store):
    data = TrainingSet(store, "train")
    drawn = data.draw(np.random.default_rng(0), Sampling(pictures=8, unfinished=0.9))
    assert all(d.right and d.wrong for d in drawn)
