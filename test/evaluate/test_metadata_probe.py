"""The metadata probe: blind where nothing tells, and sharp where something does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: the `sim` extra")
pytest.importorskip("scipy", reason="needs scipy: the `train` extra")

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.episode_store import EpisodeRow, shard_path, write_shard
from ifailsense_ros.data.failure_classes import INCOMPLETE_GRASP, WRONG_TARGET_OBJECT
from ifailsense_ros.evaluate.metadata_probe import (
    ALL_CONTROL,
    AT_CHANCE,
    features_of,
    main,
    probe,
    probe_failures,
)


def expert(index: int) -> EpisodeRow:
    rng = np.random.default_rng(index)
    level = int(rng.integers(60, 200))  # looks differ more between scenes than within a pair
    pictures = rng.integers(level - 20, level + 20, (8, 16, 16, 3), dtype=np.uint8)
    states = int(rng.integers(20, 60))
    stamps = tuple(int(s) * 10**8 for s in np.linspace(0, states - 1, 4))
    return EpisodeRow(
        split="dev",
        index=index,
        attempt=0,
        task="lift",
        negative_task="push",
        category="lifting",
        contrast=(),
        phrasing=0,
        instruction="lift it",
        negative_instruction="push it",
        outcomes={"lift": 1},
        feasible=("lift",),
        duration_s=stamps[-1] / 1e9,
        stamps_ns=stamps,
        images=tuple(cv2.imencode(".jpg", p)[1].tobytes() for p in pictures),
        states=np.zeros((states, 3), np.float32),
        generator_version="test",
    )


def fair(row: EpisodeRow, kind: str = INCOMPLETE_GRASP) -> EpisodeRow:
    """A failure with its twin's length and start; its later pictures have other noise."""
    other = expert(10_000 + row.index).images
    same_light = expert(row.index).images
    images = tuple(
        same_light[i] if i % 4 == 0 else (other[i] if row.index % 2 else same_light[i])
        for i in range(8)
    )
    return replace(row, kind=kind, outcomes={"lift": -1}, images=images)


def test_a_fair_set_stays_at_chance() -> None:
    rows = [r for i in range(60) for r in (expert(i), fair(expert(i)))]
    results = probe_failures(rows)
    assert set(results) == {INCOMPLETE_GRASP, ALL_CONTROL}
    for name in AT_CHANCE:
        low, high = results[INCOMPLETE_GRASP][name].interval
        assert low <= 0.5 <= high
    # Same numbers in both of a pair: right on exactly one of them.
    assert results[INCOMPLETE_GRASP]["timing"].accuracy == 0.5
    assert results[INCOMPLETE_GRASP]["start"].accuracy == 0.5


@pytest.mark.parametrize(
    ("leak", "where"),
    [
        (lambda r: replace(r, duration_s=r.duration_s + 9.0), "timing"),
        (lambda r: replace(r, images=tuple(d + b"\0" * 900 for d in r.images)), "exo"),
        (lambda r: replace(r, images=(r.images[0] + b"\0" * 900, *r.images[1:])), "start"),
    ],
)
def test_a_leak_is_found(leak, where: str, tmp_path: Path, capsys) -> None:
    rows = [r for i in range(40) for r in (expert(i), leak(fair(expert(i))))]
    assert probe_failures(rows)[INCOMPLETE_GRASP][where].interval[0] > 0.7
    write_shard(shard_path(tmp_path, "dev", 0, 40), rows)
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "probe.json")]) == 1
    assert f"{ALL_CONTROL} by {where}" in capsys.readouterr().err
    assert (tmp_path / "probe.json").exists()


def test_the_semantic_class_is_no_control_failure() -> None:
    rows = [r for i in range(8) for r in (expert(i), fair(expert(i), WRONG_TARGET_OBJECT))]
    assert set(probe_failures(rows)) == {WRONG_TARGET_OBJECT}


def test_pairs_stay_together() -> None:
    """With a pair split between fitting and judging, its own number would give it away."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(200, 5)), 2, axis=0)
    failed = np.tile([False, True], 200)
    assert probe(x, failed, np.repeat(np.arange(200), 2)).accuracy == 0.5


def test_numbers_of_an_episode() -> None:
    numbers = features_of(expert(3))
    assert {name: len(values) for name, values in numbers.items()} == {
        "timing": 6,
        "start": 4,
        "exo": 3,
        "both": 3,
        "per_picture": 16,
    }


def test_what_cannot_be_probed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(DataError, match="no failures"):
        probe_failures([expert(0)])
    with pytest.raises(DataError, match="no successful twin"):
        probe_failures([expert(0), fair(expert(1))])
    with pytest.raises(DataError, match="too few"):
        probe_failures([expert(0), fair(expert(0))])
    assert main(["--data", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
