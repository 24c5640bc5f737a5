"""Distances of synthetic features, with everything known."""

from __future__ import annotations

import numpy as np
import pytest

from ifailsense_ros.core.guard import Guard

N, T, D, K = 2, 4, 24, 3


@pytest.fixture
def guard() -> Guard:
    """Two PoV that look different: each varies in three directions of its own."""
    rng = np.random.default_rng(0)
    basis = np.stack([np.linalg.qr(rng.normal(size=(D, D)))[0][:K] for _ in range(N)])
    mean = np.stack([np.zeros(D), np.full(D, 2.0)])
    return Guard(
        *(a.astype(np.float32) for a in (mean, basis, np.full((N, K), 4.0), np.full(N, 0.01)))
    )


def _like_training(guard: Guard, count: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wide = rng.normal(0, 2.0, (count, N, T, K))
    x = np.einsum("bntk,nkd->bntd", wide, guard.basis)
    narrow = rng.normal(0, 0.1, (count, N, T, D))
    return x + narrow + guard.mean[:, None]


def test_montages_like_those_of_training_are_about_one_away(guard):
    distances = guard.distances(_like_training(guard, 400))
    assert distances.mean() == pytest.approx(1.0, abs=0.2)
    assert distances.max() < 2


def test_distance_by_hand(guard):
    x = np.broadcast_to(guard.mean[:, None], (1, N, T, D)).astype(np.float64).copy()
    assert guard.distances(x) == pytest.approx([0.0], abs=1e-9)
    x[0, 1, 2] += 3.0 * guard.basis[1, 0]
    assert guard.distances(x) == pytest.approx([9.0 / 4.0 / D / (N * T)], rel=1e-4)


def test_what_no_training_picture_did_counts_most(guard):
    wide, narrow = _like_training(guard, 2)
    outside = np.linalg.qr(guard.basis[0].T, mode="complete")[0][:, K]
    far = np.stack([wide, wide, narrow])
    far[1, 0] += outside
    far[0, 0] += guard.basis[0, 0]
    distances = guard.distances(far)
    assert distances[1] > 3 * distances[0]


def test_pov_have_statistics_of_their_own(guard):
    x = _like_training(guard, 20)
    assert guard.distances(x[:, ::-1]).min() > 5 * guard.distances(x).max()


def test_time_has_no_order(guard):
    x = _like_training(guard, 5)
    assert guard.distances(x[:, :, ::-1]) == pytest.approx(guard.distances(x))


def test_nan_stays_nan(guard):
    x = _like_training(guard, 2)
    x[1, 0, 0, 0] = np.nan
    distances = guard.distances(x)
    assert np.isfinite(distances[0]) and np.isnan(distances[1])
