"""Stage 0 is asked about scenes: what it draws, and what it says where there is nothing to draw."""

import numpy as np
import pytest
from tiny_runs import asked_about, make_store, short

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.records import EXPERT, UNFINISHED
from ifailsense_ros.data.scene_questions import QUESTIONS
from ifailsense_ros.train.dataset import TrainingSet
from ifailsense_ros.train.recipes import SIM_TINY, SIM_TINY_SMF
from ifailsense_ros.train.run import Run
from ifailsense_ros.train.settings import Questions, Sampling


def test_every_drawn_episode_is_asked_about_its_own_scene(tmp_path):
    data = TrainingSet(make_store(tmp_path), "train", (EXPERT, UNFINISHED))
    rows = dict(data.rows())
    rng = np.random.default_rng(0)
    sampling = Sampling(pictures=40, unfinished=0.5)
    for count in (0, 1, 2, 9):  # there are two of each
        drawn = data.draw_questions(rng, sampling, Questions(scene=count))
        assert {data.experts[d.index].unfinished for d in drawn} == {True, False}
        for one in drawn:
            assert len(one.scene) == min(count, 2)
            assert set(one.scene) <= set(asked_about(rows[one.index]))
    assert all(d.scene == () for d in data.draw(rng, sampling))


def test_their_words_are_tokens_of_the_base(tmp_path):
    store = make_store(tmp_path / "store")
    run = Run(short(SIM_TINY), store, store, tmp_path / "run", Ablation())
    assert {"table", "is the light bulb on at the start?"} <= set(run.texts())
    before = run.train_set.questions_hash
    (store / QUESTIONS).unlink()
    assert TrainingSet(store, "train").questions_hash != before


def test_a_recipe_that_asks_says_where_they_come_from(tmp_path):
    store = make_store(tmp_path / "store")
    (store / QUESTIONS).unlink()
    with pytest.raises(DataError, match="ifailsense sim questions"):
        Run(short(SIM_TINY), store, store, tmp_path / "run", Ablation())
    Run(short(SIM_TINY_SMF), store, store, tmp_path / "run", Ablation())
