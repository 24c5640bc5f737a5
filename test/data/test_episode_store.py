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
from ifailsense_ros.data import episode_store
from ifailsense_ros.data.episode_store import (
    EpisodeRow,
    list_shards,
    read_episodes,
    read_notes,
    read_num_pov,
    read_pictures,
    read_shard,
    shard_path,
    write_shard,
)
from ifailsense_ros.data.experts import ExpertSet
from ifailsense_ros.data.failure_classes import (
    FAILURE_CLASSES,
    INCOMPLETE_GRASP,
    WRONG_TARGET_OBJECT,
)
from ifailsense_ros.data.readers.store import StoreReader
from ifailsense_ros.data.records import EXPERT


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


def failed(expert: EpisodeRow, kind: str = INCOMPLETE_GRASP) -> EpisodeRow:
    outcomes = {**expert.outcomes, expert.task: -1}
    if kind == WRONG_TARGET_OBJECT:
        outcomes[expert.negative_task] = 1
    return replace(expert, kind=kind, outcomes=outcomes)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two shards, the first with a failure between two experts."""
    rows = [row(0), failed(row(0)), row(1)]
    write_shard(shard_path(tmp_path, "dev", 0, 2), rows)
    write_shard(shard_path(tmp_path, "dev", 2, 3), [failed(row(2), WRONG_TARGET_OBJECT)])
    return tmp_path


def as_version_1(path: Path) -> None:
    """Rewrites a shard as the first version of the store wrote it."""
    table = pq.read_table(path)
    table = table.drop_columns(["source", "kind", "group", "num_pov"])
    key = b"ifailsense_store_version"
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, key: b"1"}), path)


def test_version_1_is_read_as_experts_of_the_desk(tmp_path: Path) -> None:
    path = shard_path(tmp_path, "dev", 0, 2)
    write_shard(path, [row(0), row(1)])
    as_version_1(path)
    back = read_shard(path)
    assert [(r.source, r.kind, r.group) for r in back] == [
        ("desk", EXPERT, "desk/dev/0/2"),
        ("desk", EXPERT, "desk/dev/1/2"),
    ]
    assert same(back[0], row(0))
    assert read_num_pov(path) == [2, 2]


def test_reading_without_pictures_does_not_touch_them(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = episode_store._columns
    monkeypatch.setattr(
        episode_store, "_columns", lambda path, names: asked.append(names) or real(path, names)
    )
    shard = list_shards(mixed)[0]
    rows = read_shard(shard, pictures=False)
    assert [r.images for r in rows] == [()] * 3
    assert rows[1].states.shape == (26, 5)
    assert read_num_pov(shard) == [2, 2, 2]
    assert asked and all("images" not in names for names in asked)
    assert read_pictures(shard)[0] == row(0).images


def test_a_kind_can_be_asked_for(mixed: Path) -> None:
    assert [r.index for r in read_episodes(mixed, kind=EXPERT)] == [0, 1]
    assert [r.index for r in read_episodes(mixed, kind=INCOMPLETE_GRASP)] == [0]
    assert [r.kind for r in read_episodes(mixed)].count(EXPERT) == 2


def test_training_sees_experts_only(mixed: Path) -> None:
    experts = ExpertSet(mixed, "dev")
    assert [e.task for e in experts.experts] == ["lift_red_block"] * 2
    assert [e.index for e in experts.experts] == [0, 1]


def test_group_is_the_scene_unless_given() -> None:
    assert row(3).group == failed(row(3)).group == "desk/dev/3/2"
    assert replace(row(3), group="kitchen").group == "kitchen"


def test_records_of_a_store(mixed: Path) -> None:
    expert, failure, second, wrong = StoreReader(mixed)
    assert (expert.key, failure.key) == ("dev/0/2", f"dev/0/2/{INCOMPLETE_GRASP}")
    assert len({r.episode_id for r in (expert, failure, second, wrong)}) == 4
    assert (expert.success, failure.success) == (True, False)
    assert (expert.twin, failure.twin, wrong.twin) == (None, expert.key, "dev/2/2")
    assert expert.group == failure.group != second.group
    assert expert.task == failure.task == "lift_red_block"
    assert wrong.task == "lift_blue_block"  # what was carried out
    assert wrong.instruction == expert.instruction
    assert expert.negative is not None and expert.negative.task == "lift_blue_block"
    assert failure.negative is None
    assert failure.outcomes["lift_red_block"] == -1
    assert expert.source == "desk" and expert.num_pov == 2


def test_pictures_of_a_record(mixed: Path) -> None:
    records = list(StoreReader(mixed, "dev"))
    for record in (records[0], records[3], records[1]):  # also backwards and across shards
        episode = record.episode(4, 2)
        assert [k.stamp_ns for k in episode.keyframes] == list(record.stamps_ns)
        seen = [[int(v[8, 8, 0]) for v in k.views] for k in episode.keyframes]
        wanted = [[20 * t, 20 * (t + 4)] for t in range(4)]
        assert np.abs(np.array(seen) - wanted).max() < 6
    assert records[0].episode(2, 1).num_pov == 1
    with pytest.raises(DataError, match="0 to 3"):
        records[0].read([4])


def test_a_store_without_pictures_says_so(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, "dev", 0, 1), [replace(row(0), images=())])
    (record,) = StoreReader(tmp_path)
    assert record.num_pov == 0
    with pytest.raises(DataError, match="without pictures"):
        record.read([0])


def test_a_broken_shard_is_named_or_noted(mixed: Path) -> None:
    shard = list_shards(mixed)[0]
    shard.write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"dev-000000-000002\.parquet"):
        list(StoreReader(mixed))
    reader = StoreReader(mixed, keep_going=True)
    assert [r.kind for r in reader] == [WRONG_TARGET_OBJECT]
    assert [p.where for p in reader.problems] == [str(shard)]


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such"):
        StoreReader(tmp_path / "nothing")
    with pytest.raises(DataError, match="no shard of split 'dev'"):
        StoreReader(tmp_path, "dev")


def test_seven_classes_of_which_six_are_control_errors() -> None:
    assert len(set(FAILURE_CLASSES)) == 7
    assert FAILURE_CLASSES[-1] == WRONG_TARGET_OBJECT
    assert EXPERT not in FAILURE_CLASSES
