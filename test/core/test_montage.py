"""The montage: rows are PoV, columns are time; and the picture with the verdict drawn in."""

from __future__ import annotations

import math
import uuid

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.montage import MontageGeometry, annotate, compose, fit_cell
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason, Verdict, Vote, VoteValue

GEOMETRY = MontageGeometry(num_pov=2, num_keyframes=4, cell_height=10, cell_width=12)


def _flat(value: int, height: int = 30, width: int = 40) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def _episode(t: int = 4, n: int = 2, size: tuple[int, int] = (30, 40)) -> Episode:
    keyframes = tuple(
        Keyframe(k * 10**9, tuple(_flat(10 * k + pov, *size) for pov in range(n))) for k in range(t)
    )
    return Episode(uuid.uuid4(), "lift the red block", keyframes, 0, 4 * 10**9)


def test_rows_are_pov_and_columns_are_time() -> None:
    montage = compose(_episode(), GEOMETRY)
    assert montage.shape == (GEOMETRY.height, GEOMETRY.width, 3) == (20, 48, 3)
    for column in range(4):
        for row in range(2):
            cell = montage[10 * row : 10 * row + 10, 12 * column : 12 * column + 12]
            assert (cell == 10 * column + row).all()


def test_cells_of_the_right_size_are_taken_as_they_are() -> None:
    rng = np.random.default_rng(0)
    views = [[rng.integers(0, 256, (10, 12, 3), np.uint8) for _ in range(2)] for _ in range(4)]
    keyframes = tuple(Keyframe(k, tuple(v)) for k, v in enumerate(views))
    montage = compose(Episode(uuid.uuid4(), "x", keyframes, 0, 9), GEOMETRY)
    expected = np.vstack([np.hstack([views[k][row] for k in range(4)]) for row in range(2)])
    np.testing.assert_array_equal(montage, expected)
    assert fit_cell(views[0][0], GEOMETRY) is views[0][0]


def test_shrinking_before_is_the_same_as_shrinking_in_compose() -> None:
    """The tracker shrinks on arrival, the data sets hand over whole pictures."""
    rng = np.random.default_rng(0)
    views = [[rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(2)] for _ in range(4)]
    whole = tuple(Keyframe(k, tuple(v)) for k, v in enumerate(views))
    small = tuple(Keyframe(k, tuple(fit_cell(i, GEOMETRY) for i in v)) for k, v in enumerate(views))
    np.testing.assert_array_equal(
        compose(Episode(uuid.uuid4(), "x", whole, 0, 9), GEOMETRY),
        compose(Episode(uuid.uuid4(), "x", small, 0, 9), GEOMETRY),
    )


def test_shrinking_averages() -> None:
    board = np.zeros((20, 24, 3), np.uint8)
    board[::2] = 200
    np.testing.assert_array_equal(fit_cell(board, GEOMETRY), _flat(100, 10, 12))


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_any_size_fits_and_a_flat_colour_stays(height: int, width: int, value: int) -> None:
    out = fit_cell(_flat(value, height, width), GEOMETRY)
    assert out.shape == (10, 12, 3)
    assert out.dtype == np.uint8
    assert (out == value).all()


@pytest.mark.parametrize("t", [0, 3, 5])
def test_wrong_number_of_keyframes(t: int) -> None:
    with pytest.raises(ValueError, match=f"{t} keyframes"):
        compose(_episode(t=t), GEOMETRY)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_wrong_number_of_views(n: int) -> None:
    with pytest.raises(ValueError, match=f"{n} views"):
        compose(_episode(n=n), GEOMETRY)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_view(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="RGB"):
        fit_cell(image, GEOMETRY)


@pytest.mark.parametrize("name", ["num_pov", "num_keyframes", "cell_height", "cell_width"])
def test_geometry_must_be_positive(name: str) -> None:
    sizes = {"num_pov": 1, "num_keyframes": 1, "cell_height": 1, "cell_width": 1, name: 0}
    with pytest.raises(ValueError, match=name):
        MontageGeometry(**sizes)


def _verdict(judgement: Judgement, stamps: tuple[int, ...] = (0, 10**9, 2 * 10**9, 3 * 10**9)):
    return Verdict(uuid.uuid4(), "lift the red block", 4 * 10**9, judgement, stamps, 10**8, "m@1")


VOTES = (
    Vote("fs:1", VoteValue.SUCCESS, 0.9, 1.0),
    Vote("vlm", VoteValue.ABSTAIN, math.nan, 2.0),
)


@pytest.mark.parametrize(
    ("judgement", "strongest"),
    [
        (Judgement(Outcome.SUCCESS, p_success=0.9, votes=VOTES), 1),
        (Judgement(Outcome.FAILURE, p_success=0.1, votes=VOTES), 0),
        (Judgement.unknown(Reason.CAMERA_STALE, "why " * 60), None),
    ],
)
def test_the_colour_tells_the_verdict(judgement: Judgement, strongest: int | None) -> None:
    picture = annotate(compose(_episode(), GEOMETRY), _verdict(judgement), GEOMETRY)
    corner = picture[1, 1].astype(int)
    if strongest is None:
        assert corner.max() - corner.min() == 0
    else:
        assert corner.argmax() == strongest
        assert corner[strongest] > 1.5 * np.delete(corner, strongest).max()


def test_the_cells_are_in_the_picture_enlarged() -> None:
    geometry = MontageGeometry(2, 4, 60, 60)
    montage = compose(_episode(), geometry)
    montage[60:, 180:] = (10, 200, 60)  # gripper, last keyframe
    judgement = Judgement(Outcome.SUCCESS, p_success=0.9, votes=VOTES)
    picture = annotate(montage, _verdict(judgement), geometry, scale=3)
    found = np.argwhere((picture == (10, 200, 60)).all(2))
    height, width = found.max(0) - found.min(0) + 1
    assert abs(height - 180) <= 8
    assert abs(width - 180) <= 8


def test_every_part_of_the_text_changes_the_picture() -> None:
    montage = compose(_episode(), GEOMETRY)
    judgement = Judgement(Outcome.SUCCESS, p_success=0.9, votes=VOTES)
    plain = annotate(montage, _verdict(judgement), GEOMETRY)
    with_truth = annotate(montage, _verdict(judgement), GEOMETRY, truth="failure (drop)")
    assert with_truth.shape[0] > plain.shape[0]
    long_text = Judgement.unknown(Reason.CAMERA_STALE, "the camera is late " * 30)
    assert annotate(montage, _verdict(long_text), GEOMETRY).shape[0] > plain.shape[0]


def test_an_episode_without_pictures_has_a_picture() -> None:
    judgement = Judgement.unknown(Reason.CAMERA_ABSENT, "no camera")
    picture = annotate(np.zeros((0, 0, 3), np.uint8), _verdict(judgement, ()), GEOMETRY)
    assert picture.shape[0] > 60
    assert picture.dtype == np.uint8


def test_scale_must_be_positive() -> None:
    judgement = Judgement(Outcome.SUCCESS, p_success=0.9)
    with pytest.raises(ValueError, match="scale"):
        annotate(compose(_episode(), GEOMETRY), _verdict(judgement), GEOMETRY, scale=0)


def test_annotate_leaves_the_montage_alone() -> None:
    montage = compose(_episode(), GEOMETRY)
    before = montage.copy()
    picture = annotate(
        montage, _verdict(Judgement(Outcome.SUCCESS, p_success=1.0)), GEOMETRY, scale=1
    )
    assert cv2.countNonZero(cv2.absdiff(montage, before).reshape(-1, 1)) == 0
    assert not np.shares_memory(picture, montage)
