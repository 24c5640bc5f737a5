"""Records as a LeRobotDataset v3.0: they come back, and an interrupted export goes on."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifailsense_ros.cli import main
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.export import lerobot_files as files
from ifailsense_ros.data.export.lerobot import CAMERAS, LerobotExport
from ifailsense_ros.data.export.lerobot_stats import (
    PictureStats,
    TotalStats,
    column_stats,
    flat_columns,
)
from ifailsense_ros.data.readers.lerobot import LerobotReader
from ifailsense_ros.data.readers.rosbag import RosbagReader

pytest.importorskip("av")

SECOND = 10**9
DEMO = Path(__file__).resolve().parents[2] / "bags" / "demo"


def _info(folder: Path) -> dict:
    return json.loads((folder / "meta/info.json").read_text())


@pytest.mark.parametrize(
    ("codec", "size", "num_pov"),
    [("h264", (32, 64), 2), ("h264", (31, 73), 1), ("av1", (64, 64), 2)],
)
def test_round_trip(
    tmp_path: Path,
    record_maker: Callable,
    assert_read_back: Callable,
    codec: str,
    size: tuple[int, int],
    num_pov: int,
) -> None:
    failed = {"success": False, "kind": "incomplete_grasp", "twin": "set/0"}
    records = [
        record_maker(k, size=size, num_pov=num_pov, **(failed if k % 2 else {})) for k in range(5)
    ]
    export = LerobotExport(tmp_path, codec=codec, episodes_per_file=2)
    assert list(export.run(records)) == records
    assert export.uneven == 0
    read = list(LerobotReader(tmp_path))
    for before, after in zip(records, read, strict=True):
        assert_read_back(before, after)
    assert len(list(tmp_path.glob("data/chunk-000/*.parquet"))) == 3
    info = _info(tmp_path)
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (5, 50, 3)
    assert (info["fps"], info["splits"]) == (10, {"train": "0:5"})
    assert info["features"][CAMERAS[0]]["shape"] == [*size, 3]
    assert not list(tmp_path.rglob("*.part"))


@settings(max_examples=8)
@given(
    gaps_ms=st.lists(st.integers(1, 5000), min_size=3, max_size=12),
    origin=st.sampled_from([0, 1_700_000_000 * SECOND + 7]),
    lead=st.integers(0, 10**8),
)
def test_any_stamps_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    record_maker: Callable,
    assert_read_back: Callable,
    gaps_ms: list[int],
    origin: int,
    lead: int,
) -> None:
    """LeRobot's own are float32 and evenly spaced; ours stand beside them."""
    folder = tmp_path_factory.mktemp("lerobot")
    stamps = [origin + int(s) * 10**6 + k for k, s in enumerate(np.cumsum([0, *gaps_ms]))]
    record = record_maker(stamps_ns=stamps, start_ns=origin - lead, end_ns=stamps[-1] + lead)
    list(LerobotExport(folder).run([record]))
    (after,) = LerobotReader(folder)
    assert_read_back(record, after)
    assert (after.start_ns, after.end_ns) == (record.start_ns, record.end_ns)


@pytest.mark.parametrize("name", ["test-02-success", "test-04-drop"])
def test_round_trip_of_a_simulated_episode(tmp_path: Path, name: str) -> None:
    (simulated,) = RosbagReader(DEMO / name)
    before = dataclasses.replace(simulated, success=name.endswith("success"), kind="x")
    list(LerobotExport(tmp_path).run([before]))
    (after,) = LerobotReader(tmp_path)
    for field in ("stamps_ns", "instruction", "success", "start_ns", "end_ns", "group", "category"):
        assert getattr(after, field) == getattr(before, field)
    was, now = before.episode(4, 2), after.episode(4, 2)
    assert now.keyframe_stamps_ns == was.keyframe_stamps_ns
    for a, b in zip(was.keyframes, now.keyframes, strict=True):
        for mine, theirs in zip(a.views, b.views, strict=True):
            assert theirs.shape == mine.shape
            # H.264 costs two grey levels; the next frame of the episode is further away.
            assert np.abs(mine.astype(float) - theirs).mean() < 4


def test_label_columns(tmp_path: Path, record_maker: Callable) -> None:
    """`success` of the episodes to filter by, `next.success` of the last row as LeRobot has it."""
    records = [record_maker(0), record_maker(1, success=False, kind="drop")]
    list(LerobotExport(tmp_path).run(records))
    rows = pq.read_table(tmp_path / "data/chunk-000/file-000.parquet").to_pydict()
    assert rows["next.success"] == [False] * 9 + [True] + [False] * 10
    assert rows["next.done"] == ([False] * 9 + [True]) * 2
    assert rows["index"] == list(range(20))
    np.testing.assert_allclose(rows["timestamp"], [k / 10 for k in range(10)] * 2, rtol=1e-6)
    episodes = pq.read_table(tmp_path / "meta/episodes/chunk-000/file-000.parquet").to_pydict()
    assert episodes["success"] == [True, False]
    assert episodes[f"videos/{CAMERAS[1]}/from_timestamp"] == [0.0, 1.0]


def test_unlabelled_records(tmp_path: Path, record_maker: Callable) -> None:
    unlabelled = record_maker(0, success=None, kind="")
    list(LerobotExport(tmp_path / "a").run([unlabelled]))
    assert "next.success" not in _info(tmp_path / "a")["features"]
    (after,) = LerobotReader(tmp_path / "a")
    assert (after.success, after.kind) == (None, "")
    with pytest.raises(DataError, match="set/1: a label, unlike the episodes before"):
        list(LerobotExport(tmp_path / "b").run([unlabelled, record_maker(1)]))


def test_tasks_as_pandas_reads_them(tmp_path: Path, record_maker: Callable) -> None:
    list(LerobotExport(tmp_path).run([record_maker(k) for k in range(4)]))
    table = pq.read_table(tmp_path / "meta/tasks.parquet")
    assert table.to_pydict() == {
        "task_index": [0, 1, 2],
        "task": ["lift block 0", "lift block 1", "lift block 2"],
    }
    assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_statistics(tmp_path: Path, record_maker: Callable) -> None:
    records = [record_maker(k) for k in range(5)]
    list(LerobotExport(tmp_path, episodes_per_file=2).run(records))
    stats = json.loads((tmp_path / "meta/stats.json").read_text())
    frames = np.stack([k.views[0] for r in records for k in r.read(range(10))])[:, ::4, ::4] / 255
    exo = stats[CAMERAS[0]]
    assert np.shape(exo["mean"]) == (3, 1, 1)
    np.testing.assert_allclose(np.ravel(exo["mean"]), frames.mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(np.ravel(exo["std"]), frames.std((0, 1, 2)), rtol=1e-9)
    assert exo["count"] == [50]
    assert stats["timestamp"]["max"] == [pytest.approx(0.9)]
    assert stats["index"]["mean"] == [24.5]


@given(
    parts=st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9), min_size=1, max_size=6)
)
def test_statistics_of_parts_are_those_of_the_whole(parts: list[list[float]]) -> None:
    total = TotalStats()
    for values in parts:
        total.add(flat_columns({"x": column_stats(np.array(values))}))
    whole = np.array([v for values in parts for v in values])
    merged = total.as_json()["x"]
    assert merged["count"] == [len(whole)]
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(merged[name][0], getattr(np, name)(whole), atol=1e-6)


def test_statistics_of_pictures_stay_small() -> None:
    stats = PictureStats()
    for value in (0, 51, 255):
        stats.add(np.full((8, 8, 3), value, np.uint8))
    result = stats.result()
    assert [float(result[n][1, 0, 0]) for n in ("min", "max")] == [0, 1]
    assert float(result["mean"][0, 0, 0]) == pytest.approx(0.4)
    assert result["count"].tolist() == [3]


def test_goes_on_where_it_was_stopped(
    tmp_path: Path, record_maker: Callable, assert_read_back: Callable
) -> None:
    records = [record_maker(k) for k in range(7)]
    run = LerobotExport(tmp_path, episodes_per_file=2).run(records)
    assert [next(run) for _ in range(5)] == records[:5]  # the fifth is in an unfinished shard
    run.close()
    assert not list(tmp_path.rglob("*.part"))
    # What is there is a data set.
    assert len(list(LerobotReader(tmp_path))) == _info(tmp_path)["total_episodes"] == 4
    first = (tmp_path / "data/chunk-000/file-000.parquet").read_bytes()
    assert list(LerobotExport(tmp_path, episodes_per_file=2).run(records)) == records[4:]
    assert (tmp_path / "data/chunk-000/file-000.parquet").read_bytes() == first
    for before, after in zip(records, LerobotReader(tmp_path), strict=True):
        assert_read_back(before, after)
    stats = json.loads((tmp_path / "meta/stats.json").read_text())
    assert stats["index"]["max"] == [69]
    assert _info(tmp_path)["total_tasks"] == 3
    assert list(LerobotExport(tmp_path).run(records)) == []


def test_stopped_between_a_shard_and_the_metadata(tmp_path: Path, record_maker: Callable) -> None:
    records = [record_maker(k) for k in range(4)]
    list(LerobotExport(tmp_path, episodes_per_file=2).run(records[:2]))
    old = {
        name: (tmp_path / f"meta/{name}").read_bytes() for name in ("info.json", "tasks.parquet")
    }
    list(LerobotExport(tmp_path, episodes_per_file=2).run(records))
    for name, content in old.items():
        (tmp_path / f"meta/{name}").write_bytes(content)
    assert list(LerobotExport(tmp_path).run(records)) == []
    assert _info(tmp_path)["total_episodes"] == 4
    assert [r.instruction for r in LerobotReader(tmp_path)] == [r.instruction for r in records]


def test_stopped_before_the_first_shard(tmp_path: Path, record_maker: Callable) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    records = [record_maker(0), dataclasses.replace(record_maker(1), read=interrupt)]
    with pytest.raises(KeyboardInterrupt):
        list(LerobotExport(tmp_path).run(records))
    records[1] = record_maker(1)
    assert list(LerobotExport(tmp_path).run(records)) == records
    assert len(list(LerobotReader(tmp_path))) == 2


def test_interrupted_while_a_shard_gets_its_names(
    tmp_path: Path, record_maker: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record_maker(k) for k in range(4)]
    for at in range(8):  # info.json; video, video, rows, metadata; tasks, statistics, info.json
        names = iter(range(10**6))

        def interrupt(path: Path, names: Iterator[int] = names, at: int = at) -> None:
            if next(names) == at:
                raise KeyboardInterrupt
            os.replace(files.part(path), path)

        folder = tmp_path / str(at)
        with monkeypatch.context() as patch:
            patch.setattr(files, "finish", interrupt)
            with pytest.raises(KeyboardInterrupt):
                list(LerobotExport(folder, episodes_per_file=2).run(records))
        rest = list(LerobotExport(folder, episodes_per_file=2).run(records))
        assert rest == (records[2:] if at > 4 else records)
        assert len(list(LerobotReader(folder))) == _info(folder)["total_episodes"] == 4
        assert not list(folder.rglob("*.part"))


def test_going_on_with_something_else(tmp_path: Path, record_maker: Callable) -> None:
    records = [record_maker(k) for k in range(3)]
    list(LerobotExport(tmp_path).run(records))
    for others in (records[1:], records[:2], [record_maker(9)]):
        with pytest.raises(ConfigError, match="export of other episodes"):
            list(LerobotExport(tmp_path).run(others))
    with pytest.raises(ConfigError, match="begun with 10 frames a second"):
        LerobotExport(tmp_path, fps=5)
    (tmp_path / "meta/info.json").unlink()
    with pytest.raises(ConfigError, match="is not an export to go on with"):
        LerobotExport(tmp_path)
    for package in ("0.3.3", "0.4.4"):
        theirs = Path(__file__).resolve().parent / "readers" / f"lerobot-{package}"
        with pytest.raises(ConfigError, match="another program's data set"):
            LerobotExport(theirs)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("")
    with pytest.raises(ConfigError, match="choose another folder"):
        LerobotExport(tmp_path / "mine")


def test_records_that_do_not_fit(tmp_path: Path, record_maker: Callable) -> None:
    odd = {
        "broken": record_maker(1, broken=6),
        "shape": record_maker(2, size=(32, 72)),
        "PoV": record_maker(3, num_pov=1),
    }
    for k, (reason, record) in enumerate(odd.items()):
        with pytest.raises(DataError, match=reason):
            list(LerobotExport(tmp_path / str(k)).run([record_maker(0), record]))
    records = [record_maker(0), *odd.values(), record_maker(4)]
    export = LerobotExport(tmp_path / "all", keep_going=True)
    assert list(export.run(records)) == [records[0], records[4]]
    assert [p.where for p in export.problems] == [f"made/set/{k}" for k in (1, 2, 3)]
    video = tmp_path / "all/videos" / CAMERAS[0] / "chunk-000/file-000.mp4"
    (_, after) = LerobotReader(tmp_path / "all")
    assert video.is_file()
    assert after.instruction == records[4].instruction
    assert after.read([9])[0].stamp_ns == records[4].stamps_ns[9]


def test_uneven_stamps_are_counted(tmp_path: Path, record_maker: Callable) -> None:
    stamps = [SECOND, 2 * SECOND, 3 * SECOND, 9 * SECOND]
    export = LerobotExport(tmp_path)
    list(export.run([record_maker(0, stamps_ns=stamps)]))
    assert export.uneven == 1
    assert _info(tmp_path)["fps"] == 1


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "lerobot"
    bags = tmp_path / "bags"
    bags.mkdir()
    for name in ("test-00-success", "test-04-drop"):
        (bags / name).symlink_to(DEMO / name)
    (bags / "killed").mkdir()
    (bags / "killed" / "killed_0.mcap").write_bytes(b"")
    arguments = ["data", "export", "--to", "lerobot3", "--out", str(out)]
    arguments += ["--from", f"rosbag:{bags}?label=success"]
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"ifailsense: {bags / 'killed'}: ")
    assert main([*arguments, "--keep-going", "--episodes-per-file", "1"]) == 1
    shown = capsys.readouterr()
    assert f"{out}: 2 episodes more" in shown.out
    assert f"left out: {bags / 'killed'}: " in shown.err
    assert [r.success for r in LerobotReader(out)] == [True, True]
    assert main([*arguments, "--fps", "0"]) == 2
    assert "--fps 0: must be at least 1" in capsys.readouterr().err
