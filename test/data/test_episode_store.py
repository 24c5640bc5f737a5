"""The episode store: round trip, whole-or-nothing writing, and clear words about broken shards."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: the `sim` extra")

import pyarrow as pa
import pyarrow.parquet as pq

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.episode_store import (
    EpisodeRow,
    list_shards,
    read_episodes,
    read_notes,
    read_shard,
    shard_path,
    write_shard,
)


def jpeg(value: int, size: int = 16) -> bytes:
    picture = np.full((size, size, 3), (0, 0, value), np.uint8)  # BGR: red
    return cv2.imencode(".jpg", picture)[1].tobytes()


def row(index: int, split: str = "dev") -> EpisodeRow:
    return EpisodeRow(
        split=split,
        index=index,
        attempt=2,
        task="lift_red_block",
        negative_task="lift_blue_block",
        category="lifting",
        contrast=("colour",),
        phrasing=3,
        instruction="take the red block and raise it",
        negative_instruction="take the blue block and raise it",
        outcomes={"lift_red_block": 1, "lift_blue_block": -1, "open_drawer": 0},
        feasible=("lift_red_block", "lift_blue_block"),
        duration_s=2.5,
        stamps_ns=(0, 800_000_000, 1_700_000_000, 2_500_000_000),
        images=tuple(jpeg(20 * k) for k in range(8)),
        states=np.arange(26 * 5, dtype=np.float32).reshape(26, 5) + index,
        generator_version="1",
    )


def same(a: EpisodeRow, b: EpisodeRow) -> bool:
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name))
        if f.name == "states"
        else getattr(a, f.name) == getattr(b, f.name)
        for f in fields(EpisodeRow)
    )


def test_round_trip_in_index_order(tmp_path: Path) -> None:
    rows = [row(i) for i in range(4)]
    write_shard(shard_path(tmp_path, "dev", 2, 4), rows[2:])
    write_shard(shard_path(tmp_path, "dev", 0, 2), rows[:2], {"rejected": {"disputed": 3}})
    write_shard(shard_path(tmp_path, "test", 0, 1), [row(0, "test")])
    back = list(read_episodes(tmp_path, "dev"))
    assert len(back) == 4
    assert all(same(a, b) for a, b in zip(rows, back, strict=True))
    assert len(list(read_episodes(tmp_path))) == 5
    assert read_notes(shard_path(tmp_path, "dev", 0, 2)) == {"rejected": {"disputed": 3}}


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / name, [row(0)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_pictures_are_pov_major_rgb() -> None:
    pictures = row(0).decode_images()
    assert pictures.shape == (2, 4, 16, 16, 3)
    assert pictures.dtype == np.uint8
    assert abs(int(pictures[1, 1, 8, 8, 0]) - 100) < 6  # the sixth picture, red
    assert pictures[1, 1, 8, 8, 2] < 12


def test_broken_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a JPEG"):
        replace(row(5), images=(b"nothing",) * 8).decode_images()
    with pytest.raises(DataError, match="several sizes"):
        replace(row(5), images=(jpeg(1), *(jpeg(1, 8),) * 7)).decode_images()
    with pytest.raises(DataError, match="no pictures"):
        replace(row(5), images=()).decode_images()


@pytest.mark.parametrize("keep", [0, 3, 200, -1])
def test_cut_off_shard(tmp_path: Path, keep: int) -> None:
    path = shard_path(tmp_path, "dev", 0, 1)
    write_shard(path, [row(0)])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"dev-000000-000001\.parquet: .*make it again") as caught:
        read_shard(path)
    assert "\n" not in str(caught.value)


def test_damaged_page(tmp_path: Path) -> None:
    path = shard_path(tmp_path, "dev", 0, 1)
    write_shard(path, [row(0)])
    data = bytearray(path.read_bytes())
    data[4:40] = b"\xff" * 36  # the first page's header; the footer stays readable
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="make it again"):
        read_shard(path)


def test_another_version(tmp_path: Path) -> None:
    path = tmp_path / "dev-000000-000001.parquet"
    pq.write_table(pa.table({"task": ["x"]}), path)
    with pytest.raises(DataError, match="store version none"):
        read_shard(path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such shard"):
        read_shard(tmp_path / "dev-000000-000001.parquet")
    with pytest.raises(DataError, match="no such folder"):
        list_shards(tmp_path / "nothing")
    with pytest.raises(DataError, match="no shard of split 'test'"):
        next(read_episodes(tmp_path, "test"))


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    path = shard_path(tmp_path, "dev", 0, 2)
    with pytest.raises((TypeError, pa.ArrowException)):
        write_shard(path, [row(0), replace(row(1), images=(object(),))])
    assert list(tmp_path.iterdir()) == []


def test_other_files_in_the_folder_are_not_shards(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, "dev", 0, 1), [row(0)])
    (tmp_path / "dev-000001-000002.parquet.123.part").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("x")
    assert [p.name for p in list_shards(tmp_path)] == ["dev-000000-000001.parquet"]
