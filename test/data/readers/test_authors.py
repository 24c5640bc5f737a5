"""The authors' parquet rows, written with pyarrow in the types of their data set cards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.readers import open_reader, picture_rows
from ifailsense_ros.data.readers.authors import AuthorsReader

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""What `datasets.Image()` is in parquet."""


def png(picture: np.ndarray) -> dict[str, Any]:
    return {"bytes": cv2.imencode(".png", picture[..., ::-1])[1].tobytes(), "path": None}


def flat(value: int, height: int = 20, width: int = 24) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def write_rows(
    path: Path,
    types: dict[str, pa.DataType],
    rows: Sequence[dict[str, Any]],
    row_group_size: int = 4,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), pa.schema(list(types.items())))
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


KEYFRAMES = {
    "images_1": pa.list_(PICTURE),
    "images_2": pa.list_(PICTURE),
    "task": pa.string(),
    "success": pa.string(),
}
MONTAGE = {"image": PICTURE, "task": pa.string(), "success": pa.string()}


def keyframe_row(number: int, task: str = "lift the red block", said: str = "success") -> dict:
    return {
        "images_1": [png(flat(4 * number + k)) for k in range(4)],
        "images_2": [png(flat(100 + 4 * number + k, 12, 12)) for k in range(4)],
        "task": task,
        "success": said,
    }


@pytest.fixture
def calvin_rows(tmp_path: Path) -> Path:
    """AHA-Calvin: ten rows in two shards, several row groups."""
    folder = tmp_path / "AHA-Calvin" / "data"
    rows = [keyframe_row(i, said="success" if i % 2 else "fail") for i in range(10)]
    write_rows(folder / "validation-00000-of-00002.parquet", KEYFRAMES, rows[:6])
    write_rows(folder / "validation-00001-of-00002.parquet", KEYFRAMES, rows[6:])
    write_rows(folder / "train-00000-of-00001.parquet", KEYFRAMES, rows[:1])
    return tmp_path / "AHA-Calvin"


def values(record: Any, steps: Sequence[int]) -> list[list[int]]:
    return [[int(v[0, 0, 0]) for v in k.views] for k in record.read(steps)]


def test_rows_of_keyframes(calvin_rows: Path) -> None:
    records = list(open_reader(f"authors:{calvin_rows}?split=validation"))
    assert len(records) == 10
    fail, success = records[:2]
    assert (fail.success, success.success) == (False, True)
    assert {r.kind for r in records} == {""}  # labels are given: nothing is an expert to be paired
    assert success.instruction == "lift the red block"
    assert (success.category, success.task, success.negative) == ("lifting", "", None)
    assert success.key == "validation-00000-of-00002/000001"
    assert records[6].key == "validation-00001-of-00002/000000"
    assert {r.group for r in records} == {"validation"}
    assert (success.num_pov, success.stamps_ns) == (2, (0, 10**9, 2 * 10**9, 3 * 10**9))
    assert values(success, range(4)) == [[4, 104], [5, 105], [6, 106], [7, 107]]
    assert values(records[9], [3]) == [[39, 139]]
    assert len(list(AuthorsReader(calvin_rows))) == 11
    assert len(list(AuthorsReader(calvin_rows / "data" / "train-00000-of-00001.parquet"))) == 1


def test_pictures_are_read_only_when_asked_for(
    calvin_rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns_read: list[str] = []
    read = picture_rows._read

    def spy(path: Path, group: int, columns: Sequence[str], use: Any) -> Any:
        columns_read.extend(columns)
        return read(path, group, columns, use)

    monkeypatch.setattr(picture_rows, "_read", spy)
    records = list(AuthorsReader(calvin_rows, split="validation"))
    assert set(columns_read) == {
        "task",
        "success",
        "images_1.list.element.path",
        "images_2.list.element.path",
    }
    columns_read.clear()
    for record in records[:4]:  # one row group
        record.read([0])
    assert columns_read == ["images_1", "images_2"]


def test_part_of_table_one(tmp_path: Path) -> None:
    """Of 30 rows datasets 5.2's train_test_split(test_size=0.1, seed=42) tests on 7, 16 and 29."""
    rows = [
        {"image": png(flat(i, 8, 32)), "task": f"task {i}", "success": "success"} for i in range(30)
    ]
    folder = tmp_path / "AHA-Calvin-1p"
    write_rows(folder / "validation-00000-of-00002.parquet", MONTAGE, rows[:17])
    write_rows(folder / "validation-00001-of-00002.parquet", MONTAGE, rows[17:])
    records = list(open_reader(f"authors:{folder}?part=test"))
    assert [r.instruction for r in records] == ["task 7", "task 16", "task 29"]


def test_montages_are_cut(tmp_path: Path) -> None:
    cells = np.array([[10, 20, 30, 40], [50, 60, 70, 80]], np.uint8)
    montage = np.repeat(np.repeat(cells, 6, 0), 8, 1)[..., None].repeat(3, 2)
    row = {"image": png(montage), "task": "open the drawer", "success": "fail"}
    path = write_rows(tmp_path / "DROID_2p_bench" / "train-0-of-1.parquet", MONTAGE, [row])
    (record,) = AuthorsReader(path)
    assert (record.num_pov, len(record.stamps_ns), record.success) == (2, 4, False)
    assert values(record, range(4)) == [[10, 50], [20, 60], [30, 70], [40, 80]]
    assert record.episode(4, 2).keyframes[0].views[1].shape == (6, 8, 3)
    # One row of two keyframes, if that is what the picture is.
    (record,) = open_reader(f"authors:{path}?rows=1&columns=2")
    assert (record.num_pov, len(record.stamps_ns)) == (1, 2)
    assert record.read([1])[0].views[0].shape == (12, 16, 3)


@pytest.mark.parametrize(
    ("folder", "columns", "num_pov"),
    [
        ("AHA_bench_1p", {}, 1),
        ("datasets--ACIDE--AHA-Calvin-2p", {}, 2),
        ("renamed", {"camera_pos": "front"}, 1),
        ("renamed", {"camera_pos_1": "front", "camera_pos_2": "overhead"}, 2),
        ("renamed", {}, None),
    ],
)
def test_number_of_views_of_a_montage(
    tmp_path: Path, folder: str, columns: dict[str, str], num_pov: int | None
) -> None:
    types = {**MONTAGE, **{name: pa.string() for name in columns}}
    row = {"image": png(flat(1, 8, 32)), "task": "a", "success": "fail", **columns}
    path = write_rows(tmp_path / folder / "data" / "train-0-of-1.parquet", types, [row])
    if num_pov is None:
        with pytest.raises(DataError, match="add rows=1 or rows=2"):
            list(AuthorsReader(path))
    else:
        assert [r.num_pov for r in AuthorsReader(path)] == [num_pov]


def test_ahas_training_rows(tmp_path: Path) -> None:
    """AHA_Dataset_2e: cameras by name, failures only, with their reason and episode."""
    types = {
        **{f"images_{view}": pa.list_(PICTURE) for view in ("front", "wrist", "overhead")},
        **{name: pa.string() for name in ("task", "failed_reason", "episode", "wp")},
    }
    row = {
        **{
            f"images_{view}": [png(flat(10 * n + k)) for k in range(5)]
            for n, view in enumerate(("front", "wrist", "overhead"))
        },
        "task": "close_jar",
        "failed_reason": "slip",
        "episode": "episode3",
        "wp": "2",
    }
    path = write_rows(tmp_path / "train-0-of-1.parquet", types, [row])
    (record,) = AuthorsReader(path)
    assert (record.success, record.kind) == (False, "inadequate_grip_retention")
    assert (record.instruction, record.category) == ("close_jar", "opening_closing")
    assert (record.group, len(record.stamps_ns)) == ("close_jar/episode3", 5)
    assert values(record, [4]) == [[4, 14]]
    (other,) = open_reader(f"authors:{path}?exo=images_overhead&gripper=images_wrist")
    assert values(other, [4]) == [[24, 14]]


def test_droid_rows(tmp_path: Path) -> None:
    """DROID_bench_all's type of picture (path is null), and Table II's mismatched instructions."""
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.null())])
    types = {f"images_{i}": pa.list_(picture) for i in (1, 2, 3)} | {"task": pa.string()}
    rows = [
        {**{f"images_{c}": [png(flat(10 * i + c))] * 4 for c in (1, 2, 3)}, "task": f"t{i // 3}"}
        for i in range(6)
    ]
    path = write_rows(tmp_path / "train-00000-of-00001.parquet", types, rows)
    assert [r.success for r in AuthorsReader(path)] == [None] * 6  # nothing says so
    records = list(open_reader(f"authors:{path}?label=success&negatives=next"))
    assert [(r.instruction, r.success) for r in records[:2]] == [("t0", True), ("t1", False)]
    assert [(r.instruction, r.success) for r in records[-2:]] == [("t1", True), ("t0", False)]
    assert len({r.key for r in records}) == 12
    assert values(records[11], [0]) == [[51, 52]]
    write_rows(path, types, rows[:5])
    with pytest.raises(DataError, match="5 rows are no groups of three"):
        list(AuthorsReader(path, negatives="next"))


@pytest.mark.parametrize("montage", [False, True])
def test_round_trip(tmp_path: Path, simulated: Any, montage: bool) -> None:
    pick = [0, len(simulated.views) // 3, 2 * len(simulated.views) // 3, len(simulated.views) - 1]
    views = simulated.views[pick]
    label = {"task": simulated.instruction, "success": "success"}
    if montage:
        picture = np.vstack([np.hstack(list(views[:, pov])) for pov in (0, 1)])
        types, row = MONTAGE, {"image": png(picture), **label}
    else:
        types = KEYFRAMES
        row = {f"images_{p + 1}": [png(v) for v in views[:, p]] for p in (0, 1)} | label
    path = write_rows(tmp_path / "AHA-Calvin-2p" / "train-0-of-1.parquet", types, [row])
    (record,) = AuthorsReader(path)
    assert record.instruction == simulated.instruction
    assert record.category == simulated.category
    assert record.success is simulated.success
    for step, keyframe in enumerate(record.episode(4, 2).keyframes):
        for pov in (0, 1):
            np.testing.assert_array_equal(keyframe.views[pov], views[step, pov])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": None}, "task is None, not an instruction"),
        ({"task": "  "}, "task is '  '"),
        ({"success": "maybe"}, "success is 'maybe', not success or fail"),
        ({"images_2": []}, r"pictures missing: \{'images_1': 4, 'images_2': 0\}"),
        ({"images_1": None, "images_2": None}, "pictures missing"),
    ],
)
def test_corrupt_rows_are_listed(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    rows = [keyframe_row(0), {**keyframe_row(1), **change}, keyframe_row(2)]
    path = write_rows(tmp_path / "train-00000-of-00001.parquet", KEYFRAMES, rows)
    with pytest.raises(DataError, match=rf"00001\.parquet: row 1: {said}"):
        list(AuthorsReader(tmp_path))
    reader = AuthorsReader(tmp_path, keep_going=True)
    assert [values(r, [0])[0][0] for r in reader] == [0, 8]
    (problem,) = reader.problems
    assert problem.where == f"{path}: row 1"
    assert "\n" not in problem.what


def test_corrupt_pictures(tmp_path: Path) -> None:
    row = keyframe_row(0)
    row["images_1"][2] = {"bytes": row["images_1"][2]["bytes"][:30], "path": None}
    row["images_2"][3] = {"bytes": None, "path": "gone.png"}
    write_rows(tmp_path / "train-0-of-1.parquet", KEYFRAMES, [row])
    (record,) = AuthorsReader(tmp_path)
    assert values(record, [0, 1]) == [[0, 100], [1, 101]]
    with pytest.raises(DataError, match=r"parquet: row 0: images_1 2: truncated after 30 bytes"):
        record.read([2])
    with pytest.raises(DataError, match="row 0: images_2 holds no picture"):
        record.read([3])


def test_corrupt_files_are_listed(calvin_rows: Path) -> None:
    path = calvin_rows / "data" / "validation-00000-of-00002.parquet"
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[: len(whole) // 2],
        b"PAR1" + bytes(100) + whole[104:-9] + b"xxxPAR1",
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"00002\.parquet: not a readable parquet file"):
            list(AuthorsReader(calvin_rows))
        reader = AuthorsReader(calvin_rows, split="validation", keep_going=True)
        assert len(list(reader)) == 4
        assert [p.where for p in reader.problems] == [str(path)]
    # Damage in the middle: the columns are there, their pages are not.
    path.write_bytes(whole[:4] + b"\xff" * (len(whole) // 2) + whole[4 + len(whole) // 2 :])
    reader = AuthorsReader(calvin_rows, split="validation", keep_going=True)
    for record in reader:
        with reader.noting(record.key):
            record.read([0])
    assert reader.problems
    assert all("\n" not in p.what for p in reader.problems)


def test_text_that_is_none(tmp_path: Path) -> None:
    row = {**keyframe_row(0), "task": "Qz7#kP2w"}
    path = write_rows(tmp_path / "train-0-of-1.parquet", KEYFRAMES, [row, keyframe_row(1)])
    path.write_bytes(path.read_bytes().replace(b"Qz7#kP2w", b"\xff" * 8))
    with pytest.raises(DataError, match=r"row group 0 is damaged \('utf-8' codec"):
        list(AuthorsReader(path))


def test_columns_that_are_not_known(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.parquet", {"task": pa.string()}, [{"task": "a"}])
    with pytest.raises(DataError, match=r"no column of pictures .*\(there are: task\)"):
        list(AuthorsReader(path))
    with pytest.raises(DataError, match=r"name them with exo= and gripper="):
        list(AuthorsReader(path, exo="top"))


def test_options_and_places_that_are_not_there(calvin_rows: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no test-\*\.parquet"):
        AuthorsReader(calvin_rows, split="test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \*\.parquet in it"):
        AuthorsReader(tmp_path / "empty")
    for option, said in (
        ("part=half", "part is 'half': give test"),
        ("label=good", "label is 'good': give success or 1 or pass or fail"),
        ("rows=two", "rows is 'two': give a whole number from 1 on"),
        ("columns=0", "columns is '0'"),
    ):
        with pytest.raises(ConfigError, match=said):
            open_reader(f"authors:{calvin_rows}?{option}")
