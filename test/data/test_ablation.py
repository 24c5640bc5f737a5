import uuid

import numpy as np
import pytest

from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.data.ablation import ABLATIONS, Ablation

FULL = MontageGeometry(2, 4, 28, 28)


def episode(seed, instruction="lift the red block"):
    rng = np.random.default_rng(seed)
    frames = tuple(
        Keyframe(t, tuple(rng.integers(0, 255, (28, 28, 3), dtype=np.uint8) for _ in range(2)))
        for t in range(4)
    )
    return Episode(uuid.UUID(int=seed), instruction, frames, 0, 3)


def shown(name, seed, instruction="lift the red block"):
    ablation = Ablation(name)
    seen = ablation.apply(episode(seed, instruction))
    return compose(seen, ablation.geometry(FULL)), seen.instruction


def same(a, b):
    return a[1] == b[1] and np.array_equal(a[0], b[0])


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_ablated_episode_fits_the_ablated_montage(name):
    montage, _ = shown(name, 0)
    geometry = Ablation(name).geometry(FULL)
    assert montage.shape == (geometry.height, geometry.width, 3)


def test_blind_models_cannot_tell_what_they_are_blind_to():
    assert same(shown("image_blind", 1), shown("image_blind", 2))
    assert same(shown("instruction_blind", 1), shown("instruction_blind", 1, "lift the blue block"))
    assert not same(shown("none", 1), shown("none", 2))
    assert not same(shown("image_blind", 1), shown("image_blind", 1, "lift the blue block"))


def test_first_and_last_frame_are_the_montages_own_columns():
    whole, _ = shown("none", 3)
    assert np.array_equal(shown("first_frame_only", 3)[0], whole[:, :28])
    assert np.array_equal(shown("last_frame_only", 3)[0], whole[:, -28:])


def test_unknown_ablation_is_refused_by_name():
    with pytest.raises(ValueError, match="'blind': choose one of none, image_blind"):
        Ablation("blind")


def test_shuffled_labels_are_fixed_fair_coins_of_the_pair():
    coin, texts = Ablation("shuffled_labels"), ("lift the red block", "lift the blue block")
    tossed = np.array([[coin.label(i, t, True) for t in texts] for i in range(2000)])
    assert np.array_equal(tossed, [[coin.label(i, t, False) for t in texts] for i in range(2000)])
    assert abs(tossed.mean() - 0.5) < 0.04
    assert abs((tossed[:, 0] == tossed[:, 1]).mean() - 0.5) < 0.05  # nor does one tell the other
    for name in ABLATIONS[:-1]:
        assert [Ablation(name).label(3, "open it", y) for y in (True, False)] == [True, False]
