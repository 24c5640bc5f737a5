import numpy as np
import pytest
from tiny_runs import make_store, short

from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.train.dataset import TrainingSet
from ifailsense_ros.train.recipes import RECIPES
from ifailsense_ros.train.run import Run
from ifailsense_ros.train.settings import Questions, Sampling
from ifailsense_ros.train.shuffled import ShuffledSet


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store"))


def told(drawn):
    return {
        (d.index, t, y) for d in drawn for y, texts in ((1, d.right), (0, d.wrong)) for t in texts
    }


def test_the_same_sentences_are_drawn_with_coins_for_labels(store):
    sampling = Sampling(pictures=64)
    sets = TrainingSet(store, "train"), ShuffledSet(store, "train")
    truth, coins = (told(s.draw(np.random.default_rng(1), sampling)) for s in sets)
    assert {x[:2] for x in truth} == {x[:2] for x in coins}
    changed = len(truth - coins) / len(truth)
    assert 0.2 < changed < 0.8
    again = told(sets[1].draw(np.random.default_rng(2), Sampling(pictures=200)))
    asked = told(sets[1].draw_questions(np.random.default_rng(3), sampling, Questions()))
    labels = {}
    for index, text, label in coins | again | asked:
        assert labels.setdefault((index, text), label) == label  # one coin a pair, everywhere


def test_scenes_are_asked_about_as_they_are(store):
    sets = TrainingSet(store, "train"), ShuffledSet(store, "train")
    true, tossed = (
        s.draw_questions(np.random.default_rng(1), Sampling(pictures=20), Questions(scene=1))
        for s in sets
    )
    assert [d.scene for d in true] == [d.scene for d in tossed]
    assert all(d.scene for d in true)


def test_a_run_shuffles_training_and_not_validation(store, tmp_path):
    recipe = short(RECIPES["sim-tiny"])
    run = Run(recipe, store, store, tmp_path / "run", Ablation("shuffled_labels"))
    assert type(run.train_set) is ShuffledSet and type(run.validation_set) is TrainingSet
    run = Run(recipe, store, store, tmp_path / "other", Ablation())
    assert type(run.train_set) is TrainingSet
