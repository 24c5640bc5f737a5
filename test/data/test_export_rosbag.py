"""Records as bags: what was in them comes back, and the monitor's tracker can live on them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ifailsense_ros.cli import main
from ifailsense_ros.core.effects import TrackerConfig
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.core.verdict import Judgement, Outcome
from ifailsense_ros.data.export.rosbag import RosbagExport
from ifailsense_ros.data.readers.rosbag import RosbagReader
from ifailsense_ros.data.replay import BagReplay
from ifailsense_ros.data.rosbag import ImageRecorded, open_bag, read_events

SECOND = 10**9
DEMO = Path(__file__).resolve().parents[2] / "bags" / "demo"


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("pictures", ["jpeg", "png", "raw"])
def test_round_trip(
    tmp_path: Path, record_maker: Callable, assert_read_back: Callable, storage: str, pictures: str
) -> None:
    records = [
        record_maker(0),
        record_maker(1, success=False, kind="missing_rotation", twin="set/0", size=(24, 40)),
        record_maker(2, success=None, kind="", num_pov=2),
    ]
    export = RosbagExport(tmp_path, storage=storage, pictures=pictures)
    assert list(export.run(records)) == records
    read = list(RosbagReader(tmp_path))
    assert read[1].twin == read[0].key
    for before, after in zip(records, read, strict=True):
        assert_read_back(before, after)
        if pictures != "jpeg":
            (was,), (now,) = before.read([3]), after.read([3])
            np.testing.assert_array_equal(was.views[1], now.views[1])
    with open_bag(tmp_path / "episode-000000") as bag:
        assert bag.is_latched("/instruction")
        kind = "Image" if pictures == "raw" else "CompressedImage"
        behind = "" if pictures == "raw" else "/compressed"
        assert bag.topics[f"/exo/image{behind}"] == f"sensor_msgs/msg/{kind}"


@pytest.mark.parametrize("name", ["test-01-semantic", "test-04-drop"])
def test_round_trip_of_a_simulated_episode(tmp_path: Path, name: str) -> None:
    (simulated,) = RosbagReader(DEMO / name)
    before = dataclasses.replace(simulated, success=False, kind="drop")
    list(RosbagExport(tmp_path, pictures="png").run([before]))
    (after,) = RosbagReader(tmp_path)
    for field in ("stamps_ns", "instruction", "success", "kind", "start_ns", "end_ns"):
        assert getattr(after, field) == getattr(before, field)
    was, now = before.episode(4, 2), after.episode(4, 2)
    for a, b in zip(was.keyframes, now.keyframes, strict=True):
        for mine, theirs in zip(a.views, b.views, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_stamps_from_zero_come_back(
    tmp_path: Path, record_maker: Callable, assert_read_back: Callable
) -> None:
    """Stores count from the beginning of the episode; a header stamp of zero means "none"."""
    record = record_maker(0, stamps_ns=[0, 3 * SECOND, 7 * SECOND, 8 * SECOND])
    list(RosbagExport(tmp_path).run([record]))
    stamps = [
        e.stamp_ns
        for e in read_events(tmp_path / "episode-000000")
        if isinstance(e, ImageRecorded) and e.pov == 0
    ]
    assert stamps == [10 * SECOND, 13 * SECOND, 17 * SECOND, 18 * SECOND]
    (after,) = RosbagReader(tmp_path)
    assert_read_back(record, after)
    assert (after.start_ns, after.end_ns) == (0, 8 * SECOND)


def test_the_live_tracker_judges_it(tmp_path: Path, record_maker: Callable) -> None:
    record = record_maker(5, start_ns=3600 * SECOND * 6 + SECOND // 10)
    list(RosbagExport(tmp_path).run([record]))
    seen = []

    def judge(episode: object) -> Judgement:
        seen.append(episode)
        return Judgement(Outcome.FAILURE, p_success=0.0)

    replay = BagReplay(TrackerConfig(), judge)
    (verdict,) = replay.run(read_events(tmp_path / "episode-000000"))
    (episode,) = seen
    assert verdict.verdict.judgement.outcome is Outcome.FAILURE
    assert episode.episode_id == record.episode_id
    assert episode.keyframe_stamps_ns == record.episode(4, 2).keyframe_stamps_ns
    assert (episode.start_ns, episode.end_ns) == (record.start_ns, record.stamps_ns[-1])


def test_goes_on_where_it_was_stopped(tmp_path: Path, record_maker: Callable) -> None:
    records = [record_maker(k) for k in range(5)]
    run = RosbagExport(tmp_path).run(records)
    assert [next(run), next(run)] == records[:2]
    run.close()
    made = (tmp_path / "episode-000001" / "metadata.yaml").stat().st_mtime_ns
    assert list(RosbagExport(tmp_path).run(records)) == records[2:]
    assert (tmp_path / "episode-000001" / "metadata.yaml").stat().st_mtime_ns == made
    assert [r.instruction for r in RosbagReader(tmp_path)] == [r.instruction for r in records]
    assert list(RosbagExport(tmp_path).run(records)) == []
    with pytest.raises(ConfigError, match="export of other episodes"):
        list(RosbagExport(tmp_path).run(records[1:]))
    with pytest.raises(ConfigError, match="export of other episodes"):
        list(RosbagExport(tmp_path).run(records[:3]))


def test_stopped_between_a_bag_and_its_line_in_the_index(
    tmp_path: Path, record_maker: Callable
) -> None:
    records = [record_maker(k) for k in range(3)]
    list(RosbagExport(tmp_path).run(records))
    index = tmp_path / "index.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    assert [json.loads(line)["key"] for line in lines] == [f"made/set/{k}" for k in range(3)]
    index.write_text("".join(lines[:2]))
    assert list(RosbagExport(tmp_path).run(records)) == records[2:]
    assert len(list(RosbagReader(tmp_path))) == 3


def test_interrupted_in_the_middle_of_a_bag(tmp_path: Path, record_maker: Callable) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    records = [record_maker(0), dataclasses.replace(record_maker(1), read=interrupt)]
    with pytest.raises(KeyboardInterrupt):
        list(RosbagExport(tmp_path).run(records))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["episode-000000", "index.jsonl"]
    assert list(RosbagExport(tmp_path).run([record_maker(0), record_maker(1)]))


def test_records_that_cannot_be_read(tmp_path: Path, record_maker: Callable) -> None:
    records = [record_maker(0), record_maker(1, broken=6), record_maker(2)]
    with pytest.raises(DataError, match="step 6 is broken"):
        list(RosbagExport(tmp_path / "strict").run(records))
    export = RosbagExport(tmp_path / "all", keep_going=True)
    assert list(export.run(records)) == [records[0], records[2]]
    (problem,) = export.problems
    assert (problem.where, problem.what) == ("made/set/1", "episode 1: step 6 is broken")
    again = RosbagExport(tmp_path / "all", keep_going=True)
    assert list(again.run([*records, record_maker(3)])) != []
    assert [p.where for p in again.problems] == ["made/set/1"]
    assert len(list(RosbagReader(tmp_path / "all"))) == 3


def test_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        RosbagExport(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt"]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "bags"
    spec = f"rosbag:{DEMO / 'test-00-success'}?label=success"
    arguments = ["data", "export", "--from", spec, "--to", "rosbag2", "--out", str(out)]
    assert main([*arguments, "--storage", "sqlite3"]) == 0
    assert f"{out}: 1 episodes more" in capsys.readouterr().out
    assert list(out.rglob("*.db3"))
    (record,) = RosbagReader(out)
    assert (record.success, record.category) == (True, "lifting")
    assert main([*arguments, "--fps", "3"]) == 2
    assert "--to rosbag2 has no such option" in capsys.readouterr().err
