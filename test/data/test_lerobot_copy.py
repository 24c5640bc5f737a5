"""Labelled and filtered copies of LeRobotDatasets: of the package's own, and of our export."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.export import lerobot_files as files
from ifailsense_ros.data.export.lerobot import CAMERAS, LerobotExport
from ifailsense_ros.data.export.lerobot_copy import LerobotCopy
from ifailsense_ros.data.export.lerobot_plan import plan_copy
from ifailsense_ros.data.export.lerobot_rows import EpisodeLabel
from ifailsense_ros.data.readers.lerobot import LerobotReader

pytest.importorskip("av")

PACKAGES = Path(__file__).resolve().parent / "readers"
THEIRS = ("lerobot-0.3.3", "lerobot-0.4.4")


def _label(success: bool | None, old: int) -> EpisodeLabel:
    verdict = {True: "SUCCESS", False: "FAILURE", None: "UNKNOWN"}[success]
    p = None if success is None else 0.25
    return EpisodeLabel(success, {"verdict": verdict, "p_success": p, "source_episode": old})


def _copy(source: Path, out: Path, keep: set[int], **settings: object) -> LerobotCopy:
    copy = LerobotCopy(plan_copy(source, keep.__contains__), out, **settings)
    copy.run(progress=False)
    return copy


def _rows(folder: Path) -> dict[str, list]:
    tables = [pq.read_table(p).to_pydict() for p in sorted(folder.glob("data/*/*.parquet"))]
    return {name: [v for table in tables for v in table[name]] for name in tables[0]}


def _info(folder: Path) -> dict:
    return json.loads((folder / "meta/info.json").read_text())


def _assert_same_episodes(source: Path, kept: list[int], copy: Path) -> None:
    """Rows and pictures bit for bit, by number."""
    before = dict(LerobotReader(source).numbered())
    after = list(LerobotReader(copy).numbered())
    assert [index for index, _ in after] == list(range(len(kept)))
    for old, (_, now) in zip(kept, after, strict=True):
        was = before[old]
        assert (now.instruction, now.stamps_ns) == (was.instruction, was.stamps_ns)
        steps = range(len(was.stamps_ns))
        for a, b in zip(was.read(steps), now.read(steps), strict=True):
            for mine, theirs in zip(a.views, b.views, strict=True):
                np.testing.assert_array_equal(theirs, mine)
    old_rows, rows = _rows(source), _rows(copy)
    mask = [episode in kept for episode in old_rows["episode_index"]]
    for name in set(old_rows) - {"episode_index", "index", "next.success"}:
        assert rows[name] == [v for v, m in zip(old_rows[name], mask, strict=True) if m], name
    assert rows["index"] == list(range(sum(mask)))
    assert _info(copy)["total_frames"] == sum(mask)
    assert _info(copy)["total_episodes"] == len(kept)


@pytest.mark.parametrize("package", THEIRS)
@pytest.mark.parametrize("kept", [[0, 1, 2], [0, 2], [1], [1, 2], [2]])
def test_any_episodes(tmp_path: Path, package: str, kept: list[int]) -> None:
    source = PACKAGES / package
    copy = _copy(source, tmp_path / "new", set(kept))
    assert copy.left_out == []
    _assert_same_episodes(source, kept, tmp_path / "new")
    # Without labels the rows are as they were.
    assert _info(tmp_path / "new")["features"] == _info(source)["features"]
    before = dict(LerobotReader(source).numbered())
    labels = [r.success for r in LerobotReader(tmp_path / "new")]
    assert labels == [before[old].success for old in kept]
    assert _info(tmp_path / "new")["splits"] == {"train": f"0:{len(kept)}"}
    assert not (tmp_path / "new.part").exists()


@pytest.mark.parametrize("package", THEIRS)
def test_labels_in_the_places_of_lerobot(tmp_path: Path, package: str) -> None:
    source = PACKAGES / package
    said = {0: False, 1: None, 2: True}
    labels = {old: _label(success, old) for old, success in said.items()}
    _copy(source, tmp_path / "new", {0, 1, 2}, labels=labels, replace_labels=True)
    rows = _rows(tmp_path / "new")
    lengths = (8, 5, 7)
    assert rows["next.success"] == [False] * (sum(lengths) - 1) + [True]
    assert [r.success for r in LerobotReader(tmp_path / "new")] == [False, None, True]
    if package == "lerobot-0.4.4":
        table = pq.read_table(tmp_path / "new/meta/episodes/chunk-000/file-000.parquet")
        episodes = table.to_pylist()
        stats = json.loads((tmp_path / "new/meta/stats.json").read_text())
        assert stats["next.success"]["mean"] == [pytest.approx(1 / 20)]
        assert episodes[2]["stats/next.success/max"] == [True]
        assert episodes[2]["stats/next.success/q99"] == [pytest.approx(0.94)]
    else:
        lines = (tmp_path / "new/meta/episodes.jsonl").read_text().splitlines()
        episodes = [json.loads(line) for line in lines]
    assert [row["success"] for row in episodes] == [False, None, True]
    assert [row["ifailsense/verdict"] for row in episodes] == ["FAILURE", "UNKNOWN", "SUCCESS"]
    assert [row["ifailsense/p_success"] for row in episodes] == [0.25, None, 0.25]


def test_own_labels_are_not_overwritten_unasked(tmp_path: Path) -> None:
    labels = {old: _label(True, old) for old in range(3)}
    for package in THEIRS:
        with pytest.raises(ConfigError, match=r"labels of its own \(next\.success\): give --repl"):
            _copy(PACKAGES / package, tmp_path / "new", {0, 1, 2}, labels=labels)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def exported(tmp_path: Path, record_maker: Callable) -> Path:
    """Seven unlabelled episodes of odd lengths in three shards, by our export."""
    records = [
        record_maker(
            k,
            success=None,
            kind="",
            stamps_ns=[10**9 * (k + 1) + i * 10**8 for i in range(5 + 2 * (k % 3))],
        )
        for k in range(7)
    ]
    list(LerobotExport(tmp_path / "set", episodes_per_file=3).run(records))
    return tmp_path / "set"


@pytest.mark.parametrize("kept", [[0, 1, 2, 3, 4, 5, 6], [1, 4, 6], [3, 4, 5], [0, 5]])
def test_several_files(tmp_path: Path, exported: Path, kept: list[int]) -> None:
    labels = {old: _label(old % 2 == 0, old) for old in kept}
    _copy(exported, tmp_path / "new", set(kept), labels=labels)
    _assert_same_episodes(exported, kept, tmp_path / "new")
    assert [r.success for r in LerobotReader(tmp_path / "new")] == [k % 2 == 0 for k in kept]
    features = _info(tmp_path / "new")["features"]
    assert features["next.success"] == {"dtype": "bool", "shape": [1], "names": None}
    tables = [
        pq.read_table(p) for p in sorted((tmp_path / "new/meta/episodes").glob("*/*.parquet"))
    ]
    assert len({str(table.schema) for table in tables}) == 1
    rows = [row for table in tables for row in table.to_pylist()]
    starts = np.cumsum([0, *(row["length"] for row in rows)])
    assert [row["dataset_from_index"] for row in rows] == starts[:-1].tolist()
    assert [row["dataset_to_index"] for row in rows] == starts[1:].tolist()
    assert [row["ifailsense/source_episode"] for row in rows] == kept
    for row, start in zip(rows, starts, strict=False):
        assert row["stats/index/min"] == [start]
        assert row["stats/index/mean"] == [start + (row["length"] - 1) / 2]
        assert row["stats/next.success/max"] == [float(row["success"])]
    if len(kept) < 7:
        stats = json.loads((tmp_path / "new/meta/stats.json").read_text())
        assert stats["index"]["max"] == [starts[-1] - 1]
        assert stats["timestamp"]["count"] == [starts[-1]]


def test_row_groups_of_an_episode_each(tmp_path: Path, exported: Path) -> None:
    """As newer releases of LeRobot write them; an episode may also be cut by a group's end."""
    for path in exported.glob("data/*/*.parquet"):
        pq.write_table(pq.read_table(path), path, row_group_size=4)
    _copy(exported, tmp_path / "new", {1, 2, 6}, labels={k: _label(True, k) for k in (1, 2, 6)})
    _assert_same_episodes(exported, [1, 2, 6], tmp_path / "new")
    done = [i for i, value in enumerate(_rows(tmp_path / "new")["next.success"]) if value]
    assert done == [6, 6 + 9, 6 + 9 + 5]


def test_columns_null_in_one_file(tmp_path: Path, exported: Path) -> None:
    labels = {k: _label(None if k < 3 else True, k) for k in range(7)}
    _copy(exported, tmp_path / "new", set(range(7)), labels=labels)
    assert [r.success for r in LerobotReader(tmp_path / "new")] == [None] * 3 + [True] * 4
    first, *others = (tmp_path / "new/meta/episodes").glob("*/*.parquet")
    assert all(pq.read_schema(p).equals(pq.read_schema(first)) for p in others)


def test_splits_follow_the_episodes(tmp_path: Path, exported: Path) -> None:
    info = _info(exported)
    info["splits"] = {"train": "0:4", "val": "4:7"}
    (exported / "meta/info.json").write_text(json.dumps(info))
    _copy(exported, tmp_path / "new", {0, 3, 4, 6})
    assert _info(tmp_path / "new")["splits"] == {"train": "0:2", "val": "2:4"}


def test_what_lies_beside(tmp_path: Path, exported: Path) -> None:
    (exported / "meta/modality.json").write_text("{}")
    (exported / "README.md").write_text("card")
    (exported / "sarm_progress.parquet").write_bytes(b"")
    (exported / "ifailsense").mkdir()
    copy = _copy(exported, tmp_path / "new", {0})
    assert copy.left_out == ["sarm_progress.parquet"]
    assert (tmp_path / "new/meta/modality.json").is_file()
    assert (tmp_path / "new/README.md").read_text() == "card"
    assert not (tmp_path / "new/ifailsense").exists()


def test_whole_videos_as_links(tmp_path: Path, exported: Path) -> None:
    _copy(exported, tmp_path / "new", {0, 1, 2, 4}, link=True)
    video = f"videos/{CAMERAS[0]}/chunk-000/file-00{{}}.mp4"
    assert (tmp_path / "new" / video.format(0)).samefile(exported / video.format(0))
    assert not (tmp_path / "new" / video.format(1)).samefile(exported / video.format(1))
    assert not (tmp_path / "new" / video.format(2)).exists()


def test_links_that_cannot_be_made(
    tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_disk(*args: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", other_disk)
    with pytest.raises(ConfigError, match=r"--link: .*mp4 .* \(Invalid cross-device link\): leave"):
        _copy(exported, tmp_path / "new", {0, 1, 2, 4}, link=True)
    assert not (tmp_path / "new").exists()


def test_goes_on_where_it_was_stopped(
    tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _copy(exported, tmp_path / "whole", {0, 1, 4, 6})
    wanted = {p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*")}
    for at in (1, 3, 7, 9, 11, 14):
        calls = iter(range(10**6))

        def interrupt(path: Path, calls: Iterator[int] = calls, at: int = at) -> None:
            if next(calls) == at:
                raise KeyboardInterrupt
            os.replace(files.part(path), path)

        with monkeypatch.context() as patch:
            patch.setattr(files, "finish", interrupt)
            with pytest.raises(KeyboardInterrupt):
                _copy(exported, tmp_path / "new", {0, 1, 4, 6})
        assert not (tmp_path / "new").exists()
        there = {p: p.stat().st_mtime_ns for p in (tmp_path / "new.part").rglob("*.mp4")}
        _copy(exported, tmp_path / "new", {0, 1, 4, 6})
        for path, before in there.items():
            after = tmp_path / "new" / path.relative_to(tmp_path / "new.part")
            assert after.stat().st_mtime_ns == before
        assert {p.relative_to(tmp_path / "new") for p in (tmp_path / "new").rglob("*")} == wanted
        _assert_same_episodes(exported, [0, 1, 4, 6], tmp_path / "new")
        os.rename(tmp_path / "new", tmp_path / f"done-{at}")


def test_what_is_dropped_may_be_damaged(tmp_path: Path, exported: Path) -> None:
    for path in exported.glob(f"videos/{CAMERAS[1]}/*/file-001.mp4"):
        path.unlink()
    for path in exported.glob("data/*/file-001.parquet"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"file-001\.mp4: is missing"):
        _copy(exported, tmp_path / "new", {0, 3})
    _copy(exported, tmp_path / "new", {0, 6})
    assert [len(r.stamps_ns) for r in LerobotReader(tmp_path / "new")] == [5, 5]


def test_another_copy_is_never_gone_on_with(
    tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(LerobotCopy, "_write_info", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _copy(exported, tmp_path / "new", {0, 1})
    _copy(exported, tmp_path / "new", {0, 2})
    _assert_same_episodes(exported, [0, 2], tmp_path / "new")


def test_mistakes(tmp_path: Path, exported: Path) -> None:
    with pytest.raises(ConfigError, match="no episode would be left"):
        _copy(exported, tmp_path / "new", set())
    with pytest.raises(ConfigError, match="is there already: choose another folder"):
        _copy(exported, exported, {0})
    with pytest.raises(ConfigError, match="lies in the data set itself"):
        _copy(exported, exported / "new", {0})
    path = exported / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 7), path)
    with pytest.raises(DataError, match="rows of episode 1 where the metadata promise 7"):
        _copy(exported, tmp_path / "new", {0, 1})
    assert not (tmp_path / "new").exists()
