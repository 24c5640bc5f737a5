"""LeRobotDatasets v2.1 and v3.0, written here by the letter of the format, and what is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.readers import open_reader
from ifailsense_ros.data.readers.lerobot import LerobotReader
from ifailsense_ros.data.records import EXPERT
from ifailsense_ros.data.video import VideoWriter

pytest.importorskip("av")

SIZE = (32, 64)
EXO, WRIST = "observation.images.exterior_1_left", "observation.images.wrist_left"


@dataclass
class Made:
    """What to write: episodes of consecutive numbered pictures.

    Attributes:
        lengths: time steps of each episode.
        cameras: key -> "video" or "image".
        columns: further columns of the rows, a value an episode or a function of (episode, step).
        episode_columns: further columns of the episodes' metadata.
        tasks: the instructions; episode k has the one of number k % their count.
    """

    lengths: tuple[int, ...] = (12, 7, 9)
    fps: float = 30
    cameras: dict[str, str] = field(default_factory=lambda: {EXO: "video", WRIST: "video"})
    columns: dict[str, Any] = field(default_factory=dict)
    episode_columns: dict[str, list] = field(default_factory=dict)
    tasks: tuple[str, ...] = ("Put the cup in the sink.", "open the drawer")
    info: dict[str, Any] = field(default_factory=dict)

    def first(self, episode: int) -> int:
        """Number of an episode's first row in the data set, and of its exocentric picture."""
        return sum(self.lengths[:episode])

    def rows(self, episode: int, numbered: Callable) -> dict[str, list]:
        """The columns of an episode's rows."""
        count = self.lengths[episode]
        rows: dict[str, list] = {
            "timestamp": pa.array([np.float32(k / self.fps) for k in range(count)], pa.float32()),
            "frame_index": list(range(count)),
            "episode_index": [episode] * count,
            "index": [self.first(episode) + k for k in range(count)],
            "task_index": [episode % len(self.tasks)] * count,
        }
        for name, value in self.columns.items():
            rows[name] = [value(episode, k) if callable(value) else value for k in range(count)]
        for pov, (key, kind) in enumerate(self.cameras.items()):
            if kind == "image":
                numbers = [self.first(episode) + k + 100 * pov for k in range(count)]
                rows[key] = [
                    {"bytes": cv2.imencode(".png", numbered(n))[1].tobytes(), "path": None}
                    for n in numbers
                ]
        return rows

    def features(self) -> dict[str, dict]:
        """info.json's features."""
        cameras = {
            key: {"dtype": kind, "shape": [*SIZE, 3], "names": ["height", "width", "channels"]}
            for key, kind in self.cameras.items()
        }
        return cameras | {"timestamp": {"dtype": "float32", "shape": [1], "names": None}}

    def videos(self) -> list[tuple[int, str]]:
        """Number and key of the cameras that are videos."""
        return [(n, key) for n, (key, kind) in enumerate(self.cameras.items()) if kind == "video"]

    def common(self) -> dict[str, Any]:
        """What both versions have in info.json."""
        return {
            "robot_type": "Franka",
            "total_episodes": len(self.lengths),
            "total_frames": sum(self.lengths),
            "total_tasks": len(self.tasks),
            "fps": self.fps,
            "chunks_size": 1000,
            "splits": {"train": f"0:{len(self.lengths)}"},
            "features": self.features(),
        }


def write_v2(root: Path, made: Made, numbered: Callable) -> None:
    """v2.1: files an episode, JSON lines."""
    (root / "meta").mkdir(parents=True)
    info = {
        **made.common(),
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": (
            "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
        ),
        **made.info,
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    tasks = [{"task_index": n, "task": text} for n, text in enumerate(made.tasks)]
    (root / "meta/tasks.jsonl").write_text("".join(json.dumps(t) + "\n" for t in tasks))
    with (root / "meta/episodes.jsonl").open("w") as file:
        for episode, length in enumerate(made.lengths):
            extra = {k: v[episode] for k, v in made.episode_columns.items()}
            text = made.tasks[episode % len(made.tasks)]
            row = {"episode_index": episode, "tasks": [text], "length": length, **extra}
            file.write(json.dumps(row) + "\n")
    (root / "data/chunk-000").mkdir(parents=True)
    for episode, length in enumerate(made.lengths):
        name = f"episode_{episode:06d}"
        table = pa.table(made.rows(episode, numbered))
        pq.write_table(table, root / f"data/chunk-000/{name}.parquet")
        for pov, key in made.videos():
            path = root / f"videos/chunk-000/{key}/{name}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            with VideoWriter(path, made.fps, SIZE) as video:
                for k in range(length):
                    video.add(numbered(made.first(episode) + k + 100 * pov))


def write_v3(root: Path, made: Made, numbered: Callable) -> None:
    """v3.0: two episodes a file, offsets in meta/episodes, tasks as pandas writes them."""
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    info = {
        **made.common(),
        "codebase_version": "v3.0",
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        **made.info,
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    tasks = {"task_index": list(range(len(made.tasks))), "__index_level_0__": list(made.tasks)}
    pq.write_table(pa.table(tasks), root / "meta/tasks.parquet")
    (root / "data/chunk-000").mkdir(parents=True)
    for number, start in enumerate(range(0, len(made.lengths), 2)):
        members = range(start, min(start + 2, len(made.lengths)))
        rows = []
        for episode in members:
            offset = (made.first(episode) - made.first(start)) / made.fps
            row = {
                "episode_index": episode,
                "tasks": [made.tasks[episode % len(made.tasks)]],
                "length": made.lengths[episode],
                "data/chunk_index": 0,
                "data/file_index": number,
                "dataset_from_index": made.first(episode),
                "dataset_to_index": made.first(episode + 1),
                "stats/timestamp/count": [made.lengths[episode]],
                **{name: values[episode] for name, values in made.episode_columns.items()},
            }
            for _, key in made.videos():
                row |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": number}
                row[f"videos/{key}/from_timestamp"] = offset
                row[f"videos/{key}/to_timestamp"] = offset + made.lengths[episode] / made.fps
            rows.append(row)
        name = f"chunk-000/file-{number:03d}"
        pq.write_table(pa.Table.from_pylist(rows), root / f"meta/episodes/{name}.parquet")
        with pq.ParquetWriter(
            root / f"data/{name}.parquet",
            pa.table(made.rows(start, numbered)).schema,
        ) as writer:
            for episode in members:  # a row group each, as LeRobot does
                writer.write_table(pa.table(made.rows(episode, numbered)))
        for pov, key in made.videos():
            path = root / f"videos/{key}/{name}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            with VideoWriter(path, made.fps, SIZE) as video:
                for k in range(made.first(start), made.first(members[-1] + 1)):
                    video.add(numbered(k + 100 * pov))


WRITERS = {"v2.1": write_v2, "v3.0": write_v3}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, picture_numbers: tuple[Callable, Callable]) -> Write:
    """`write(version, **fields of Made)` gives the folder of a data set."""

    def make(version: str = "v3.0", **fields: Any) -> Path:
        root = tmp_path / "cups"
        WRITERS[version](root, Made(**fields), picture_numbers[0])
        return root

    return make


def _one_line(caught: pytest.ExceptionInfo, *parts: object) -> None:
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text


@pytest.mark.parametrize("version", WRITERS)
@pytest.mark.parametrize("kind", ["video", "image"])
def test_episodes_stamps_and_pictures(
    write: Write, picture_numbers: tuple[Callable, Callable], version: str, kind: str
) -> None:
    root = write(version, cameras={EXO: kind, WRIST: kind})
    records = list(open_reader(f"lerobot:{root}"))
    assert [r.key for r in records] == ["cups/0", "cups/1", "cups/2"]
    assert [r.instruction for r in records] == [
        "Put the cup in the sink.",
        "open the drawer",
        "Put the cup in the sink.",
    ]
    assert [r.category for r in records] == ["placing", "opening_closing", "placing"]
    first = 0
    for record, length in zip(records, (12, 7, 9), strict=True):
        # float32 seconds, put back on the grid of 30 Hz
        assert record.stamps_ns == tuple(round(k * 1e9 / 30) for k in range(length))
        for order in (range(length), [length - 1, 0, 3]):
            for step, keyframe in zip(order, record.read(order), strict=True):
                assert keyframe.stamp_ns == record.stamps_ns[step]
                assert [v.shape for v in keyframe.views] == [(*SIZE, 3)] * 2
                numbers = [picture_numbers[1](v) for v in keyframe.views]
                assert numbers == [first + step, first + step + 100]
        first += length
    assert records[1].episode(4, 1).num_pov == 1


def test_stamps_off_the_grid_are_kept(write: Write) -> None:
    times = np.array([0, 0.031, 0.07, 0.1, 0.2, 0.9], np.float32)
    root = write("v2.1", lengths=(6,))
    path = root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "timestamp", pa.array(times)), path)
    (record,) = LerobotReader(root)
    assert record.stamps_ns[:4] == (0, round(float(times[1]) * 1e9), 70000000, 100000000)


@pytest.mark.parametrize("version", WRITERS)
def test_labels(write: Write, version: str) -> None:
    columns = {
        "next.success": lambda episode, step: episode == 1 and step == 6,
        "next.done": lambda episode, step: False,
    }
    root = write(version, columns=columns)
    assert [r.success for r in LerobotReader(root)] == [False, True, False]
    assert [r.kind for r in LerobotReader(root)] == ["", EXPERT, ""]
    assert [r.task for r in LerobotReader(root)] == ["", "open the drawer", ""]


def test_label_of_the_episode_goes_before_that_of_its_rows(write: Write) -> None:
    root = write(
        columns={"next.success": True, "is_episode_successful": [False]},
        episode_columns={"success": [True, None, False]},
    )
    assert [r.success for r in LerobotReader(root)] == [True, False, False]


def test_without_labels(write: Write) -> None:
    root = write()
    assert [(r.success, r.kind, r.task) for r in LerobotReader(root)] == [(None, "", "")] * 3
    record = next(iter(open_reader(f"lerobot:{root}?label=success")))
    assert (record.success, record.kind) == (True, EXPERT)
    assert record.task == "put the cup in the sink"
    assert {r.success for r in LerobotReader(root, label="failure")} == {False}
    with pytest.raises(ConfigError, match="label=yes: must be one of success, failure"):
        LerobotReader(root, label="yes")


def test_label_that_is_none(write: Write) -> None:
    root = write(columns={"success": lambda episode, step: "maybe" if episode == 1 else "failure"})
    reader = LerobotReader(root, keep_going=True)
    assert [r.success for r in reader] == [False, False]
    assert "column success: 'maybe' is no label" in reader.problems[0].what


def test_some_episodes(write: Write) -> None:
    folder = write(lengths=(12, 7, 9, 8))
    for text, numbers in {
        "1:3": [1, 2],
        ":2": [0, 1],
        "3:": [3],
        "9:": [],
        "": [0, 1, 2, 3],
    }.items():
        found = list(LerobotReader(folder, episodes=text).numbered())
        assert [number for number, _ in found] == numbers
        assert [len(r.stamps_ns) for _, r in found] == [(12, 7, 9, 8)[n] for n in numbers]
    assert [len(r.stamps_ns) for r in open_reader(f"lerobot:{folder}?episodes=2:3")] == [9]
    for text in ("2", "a:b", "1:2:3", "-1:2"):
        with pytest.raises(ConfigError, match=f"episodes={text}: must be FIRST:END"):
            LerobotReader(folder, episodes=text)


def test_label_that_a_detector_does_not_know(write: Write) -> None:
    columns = {
        "success": [None, True, False],
        "ifailsense/verdict": ["UNKNOWN", "SUCCESS", "FAILURE"],
    }
    rows = {"next.success": lambda episode, step: False}
    folder = write(episode_columns=columns, columns=rows)
    assert [r.success for r in LerobotReader(folder)] == [None, True, False]
    assert [r.success for r in LerobotReader(folder, label="success")] == [True, True, False]


def test_droid(write: Write) -> None:
    """The columns of LeRobot's own port of DROID; its `task_category` holds the building."""
    columns = {
        "is_episode_successful": lambda episode, step: episode != 1,
        "task_category": "Berkeley",
        "building": "Berkeley",
        "collector_id": lambda episode, step: f"person {episode // 2}",
        "date": "2023-07-07",
        "language_instruction": "Put the cup in the sink.",
    }
    cameras = {EXO: "video", "observation.images.exterior_2_left": "video", WRIST: "video"}
    root = write(columns=columns, cameras=cameras, fps=15)
    records = list(LerobotReader(root))
    assert [r.success for r in records] == [True, False, True]
    assert records[0].group == records[1].group == "Berkeley/person 0/2023-07-07"
    assert records[2].group == "Berkeley/person 1/2023-07-07"
    assert records[0].category == "placing"


def test_cameras_by_option_and_by_name(
    write: Write, picture_numbers: tuple[Callable, Callable]
) -> None:
    keys = ("observation.images.left", "observation.images.right", "observation.images.arm")
    root = write(cameras=dict.fromkeys(keys, "video"), lengths=(4,))
    with pytest.raises(DataError, match="which camera is the exocentric one") as caught:
        LerobotReader(root)
    _one_line(caught, root, ", ".join(sorted(keys)), "exo=KEY")
    with pytest.raises(DataError, match="exo=front: no such camera") as caught:
        LerobotReader(root, exo="front")
    _one_line(caught, root, keys[2])
    (record,) = open_reader(f"lerobot:{root}?exo={keys[1]}&gripper={keys[2]}")
    assert [picture_numbers[1](v) for v in record.read([1])[0].views] == [101, 201]
    (record,) = LerobotReader(root, exo=keys[0], gripper="none")
    assert record.num_pov == 1


@pytest.mark.parametrize(
    ("keys", "exo", "gripper"),
    [
        (("observation.image",), "observation.image", None),
        (("observation.images.cam_1",), "observation.images.cam_1", None),
        (("observation.images.wrist", "observation.images.cam_1"), "cam_1", "wrist"),
        (("observation.images.wrist", "observation.images.front", "x.top"), "front", "wrist"),
        (("observation.images.image", "observation.images.wrist_image"), "image", "wrist_image"),
        (("exterior_image_1_left", "wrist_image_left"), "exterior_image_1_left", "left"),
    ],
)
def test_usual_names(
    write: Write,
    picture_numbers: tuple[Callable, Callable],
    keys: tuple[str, ...],
    exo: str,
    gripper: str | None,
) -> None:
    root = write(cameras=dict.fromkeys(keys, "image"), lengths=(2,))
    (record,) = LerobotReader(root)
    numbers = [picture_numbers[1](v) for v in record.read([0])[0].views]
    wanted = [exo] if gripper is None else [exo, gripper]
    assert [keys[n // 100].endswith(w) for n, w in zip(numbers, wanted, strict=True)] == [
        True
    ] * len(wanted)


def test_depth_is_no_camera(write: Write) -> None:
    root = write(cameras={"observation.images.cam": "video"}, lengths=(2,))
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"]["observation.images.depth"] = {
        "dtype": "video",
        "shape": [4, 4, 1],
        "info": {"video.is_depth_map": True},
    }
    path.write_text(json.dumps(info))
    (record,) = LerobotReader(root)
    assert record.num_pov == 1


def test_videos_are_opened_only_for_pictures(write: Write) -> None:
    root = write()
    for path in root.rglob("*.mp4"):
        path.write_bytes(b"no video")
    records = list(LerobotReader(root))
    with pytest.raises(DataError, match="episode 2: cannot be decoded") as caught:
        records[2].episode(4, 2)
    _one_line(caught, f"videos/{EXO}/chunk-000/file-001.mp4")


@pytest.mark.parametrize("version", WRITERS)
def test_missing_video(write: Write, version: str) -> None:
    root = write(version)
    pattern = "*wrist_left/**/file-001.mp4" if version == "v3.0" else "*wrist_left/*_000002.mp4"
    (gone,) = root.rglob(pattern)
    gone.unlink()
    reader = LerobotReader(root)
    with pytest.raises(DataError, match="is missing; copy") as caught:
        list(reader)
    _one_line(caught, gone, "episode 2")
    reader = LerobotReader(root, keep_going=True)
    assert [r.key for r in reader] == ["cups/0", "cups/1"]
    (problem,) = reader.problems
    assert problem.where.endswith("episode 2")
    assert problem.what.startswith(f"{gone}: is missing")


def test_video_that_ends_too_soon(write: Write) -> None:
    root = write("v2.1", lengths=(12, 7))
    videos = root / "videos/chunk-000" / EXO
    (videos / "episode_000001.mp4").replace(videos / "episode_000000.mp4")
    (videos / "episode_000001.mp4").write_bytes(b"")
    record = next(iter(LerobotReader(root)))
    record.read([6])
    with pytest.raises(DataError, match=r"episode 0: has no frame at 0\.233 s") as caught:
        record.read([7])
    _one_line(caught, videos / "episode_000000.mp4")


@pytest.mark.parametrize("version", WRITERS)
def test_truncated_parquet(write: Write, version: str) -> None:
    root = write(version)
    damaged = sorted((root / "data").rglob("*.parquet"))[-1]
    damaged.write_bytes(damaged.read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be read") as caught:
        list(LerobotReader(root))
    _one_line(caught, damaged)
    reader = LerobotReader(root, keep_going=True)
    assert [r.key for r in reader] == ["cups/0", "cups/1"]
    assert len(reader.problems) == 1


def test_damaged_list_of_episodes(write: Write) -> None:
    root = write()
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.write_bytes(b"PAR1")
    reader = LerobotReader(root, keep_going=True)
    assert [r.key for r in reader] == ["cups/2"]
    assert reader.problems[0].where == str(path)


def test_rows_that_are_missing(write: Write) -> None:
    root = write("v2.1")
    path = root / "data/chunk-000/episode_000001.parquet"
    pq.write_table(pq.read_table(path).slice(0, 5), path)
    with pytest.raises(DataError, match="5 rows where the metadata promise 7") as caught:
        list(LerobotReader(root))
    _one_line(caught, path, "episode 1")


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("timestamp", [0.0, None, 0.1], "column timestamp must hold one value a row"),
        ("task_index", ["a", "b", "c"], "column task_index must hold one value a row"),
        ("timestamp", [[0.0, 1.0]] * 3, "column timestamp must hold one value a row"),
        ("timestamp", [0.0, 0.2, 0.1], "timestamps go back in time"),
        ("timestamp", [0.0, float("nan"), 0.1], "timestamp holds more than seconds"),
        ("task_index", [7, 7, 7], "task_index 7 is not in the table"),
        ("timestamp", None, "column timestamp is missing"),
    ],
)
def test_rows_that_make_no_sense(
    write: Write, column: str, values: list | None, reason: str
) -> None:
    root = write("v2.1", lengths=(3,))
    path = root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    table = table.drop_columns([column])
    pq.write_table(table if values is None else table.append_column(column, [values]), path)
    with pytest.raises(DataError, match=reason) as caught:
        list(LerobotReader(root))
    _one_line(caught, "episode 0")


def test_one_value_a_row_in_lists(write: Write) -> None:
    """Features of shape [1] as older data sets have them."""
    root = write("v2.1", columns={"next.success": lambda episode, step: [episode == 0]})
    assert [r.success for r in LerobotReader(root)] == [True, False, False]


def test_metadata_that_make_no_sense(write: Write) -> None:
    root = write("v2.1")
    path = root / "meta/episodes.jsonl"
    lines = path.read_text().splitlines()
    lines[0] = lines[0].replace('"length": 12', '"length": "a lot"')
    lines[1] = lines[1].replace('"episode_index": 1', '"episode_index": null')
    path.write_text("\n".join(lines))
    reader = LerobotReader(root, keep_going=True)
    assert [r.key for r in reader] == ["cups/2"]
    assert [p.what.partition(" in the metadata")[1] for p in reader.problems] == [
        " in the metadata"
    ] * 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fps": None}, "fps is None"),
        ({"fps": 0}, "fps is 0; must be above zero"),
        ({"codebase_version": "v1.6"}, "'v1.6': this program reads v2.0, v2.1 and v3.0"),
        ({"codebase_version": "v4.0"}, "'v4.0'"),
        ({"features": []}, "features is"),
        ({"data_path": 3}, "data_path is 3"),
        ({"features": {"action": {}}}, "action has no dtype"),
        ({"features": {"action": {"dtype": "float32"}}}, r"there are: none"),
    ],
)
def test_info_that_makes_no_sense(write: Write, change: dict, reason: str) -> None:
    root = write(info=change)
    with pytest.raises(DataError, match=reason) as caught:
        LerobotReader(root, keep_going=True)
    _one_line(caught, root)


def test_info_without_fps_or_altogether(write: Write) -> None:
    root = write()
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    del info["fps"]
    path.write_text(json.dumps(info))
    with pytest.raises(DataError, match="fps is missing"):
        LerobotReader(root)
    path.write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        LerobotReader(root)
    path.unlink()
    with pytest.raises(DataError, match=r"info\.json: is missing"):
        LerobotReader(root)


def test_path_template_of_another_kind(write: Write) -> None:
    root = write(info={"data_path": "data/{shard}.parquet"})
    with pytest.raises(DataError, match="cannot be filled in") as caught:
        list(LerobotReader(root))
    _one_line(caught, "info.json")


@pytest.mark.parametrize("version", WRITERS)
def test_tasks(write: Write, version: str) -> None:
    root = write(version)
    (path,) = (root / "meta").glob("tasks.*")
    path.unlink()
    with pytest.raises(DataError, match="is missing") as caught:
        list(LerobotReader(root, keep_going=True))
    _one_line(caught, path)


def test_episode_of_several_instructions(write: Write) -> None:
    root = write("v2.1")
    path = root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    numbers = pa.array([0] * 6 + [1] * 6)
    at = table.schema.get_field_index("task_index")
    pq.write_table(table.set_column(at, "task_index", numbers), path)
    reader = LerobotReader(root, keep_going=True)
    assert len(list(reader)) == 2
    assert "2 instructions" in reader.problems[0].what


@pytest.mark.parametrize("version", WRITERS)
def test_episode_without_an_instruction(write: Write, version: str) -> None:
    """As many of DROID's failures are."""
    reader = LerobotReader(write(version, tasks=("turn the knob", " ")), keep_going=True)
    assert [r.key for r in reader] == ["cups/0", "cups/2"]
    assert "there is no instruction" in reader.problems[0].what


def test_picture_that_is_damaged(write: Write) -> None:
    root = write("v2.1", cameras={EXO: "image"}, lengths=(3,))
    path = root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    cells = [{"bytes": b"\x89PNG...", "path": None}, {"bytes": None, "path": "images/x.png"}, None]
    at = table.schema.get_field_index(EXO)
    column = pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(table.set_column(at, EXO, column), path)
    (record,) = LerobotReader(root)
    for step, reason in enumerate((EXO, "images/x.png: is missing", "holds no picture")):
        with pytest.raises(DataError, match=reason) as caught:
            record.read([step])
        _one_line(caught, root)
    (root / "images").mkdir()
    cv2.imwrite(str(root / "images/x.png"), np.zeros((*SIZE, 3), np.uint8))
    assert record.read([1])[0].views[0].shape == (*SIZE, 3)
    with pytest.raises(DataError, match=r"time steps 0 to 2, not \[3\]"):
        record.read([3])
