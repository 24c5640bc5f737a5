"""Bags as records: the same pairs and keyframes as the live tracker's, labels from beside them."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifailsense_ros.core.effects import TrackerConfig
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.core.verdict import Judgement, Outcome
from ifailsense_ros.data.bag_sidecar import SIDECAR_NAME, write_sidecar
from ifailsense_ros.data.readers import bag_episodes, open_reader
from ifailsense_ros.data.readers.rosbag import RosbagReader
from ifailsense_ros.data.records import EXPERT
from ifailsense_ros.data.replay import BagReplay
from ifailsense_ros.data.rosbag import ImageRecorded, read_events

SECOND = 10**9
DEMO = Path(__file__).resolve().parents[3] / "bags" / "demo"


def _judged(bag: Path, num_keyframes: int) -> list[Episode]:
    """What a detector of that T is asked about by the tracker of the live node."""
    seen: list[Episode] = []

    def judge(episode: Episode) -> Judgement:
        seen.append(episode)
        return Judgement(Outcome.SUCCESS, p_success=1.0)

    config = TrackerConfig(num_keyframes=num_keyframes, min_keyframes=num_keyframes)
    list(BagReplay(config, judge).run(read_events(bag)))
    return seen


def _assert_same_episode(ours: Episode, live: Episode) -> None:
    assert ours.keyframe_stamps_ns == live.keyframe_stamps_ns
    assert (ours.instruction, ours.start_ns, ours.end_ns) == (
        live.instruction,
        live.start_ns,
        live.end_ns,
    )
    for mine, theirs in zip(ours.keyframes, live.keyframes, strict=True):
        for a, b in zip(mine.views, theirs.views, strict=True):
            np.testing.assert_array_equal(a, b)


def _one_line(caught: pytest.ExceptionInfo, *parts: str) -> None:
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize("mcap", [True, False])
@pytest.mark.parametrize("version", [8, 9])
def test_both_storages(
    bag_maker: Callable, episode_writer: Callable, mcap: bool, version: int
) -> None:
    with bag_maker(mcap=mcap, version=version) as bag:
        episode_writer(bag, 100.0, instruction="push the block")
    (record,) = RosbagReader(bag.path)
    assert record.stamps_ns == tuple(round((100 + k / 10) * SECOND) for k in range(21))
    assert (record.key, record.group, record.instruction) == ("bag/0", "bag", "push the block")
    assert (record.category, record.success, record.kind) == ("pushing", None, "")
    for step, keyframe in enumerate(record.read(range(21))):
        assert keyframe.stamp_ns == record.stamps_ns[step]
        for pov, view in enumerate(keyframe.views):
            assert view.shape == (24, 32, 3)
            assert tuple(view[0, 0]) == (step, 100 * pov, 7)


@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg"])
def test_raw_and_compressed(bag_maker: Callable, encoding: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    picture = cv2.GaussianBlur(picture, (9, 9), 0)
    with bag_maker() as bag:
        bag.episode(1.0, 1, instruction="go")
        for k in range(4):
            for topic in ("/exo/image", "/gripper/image"):
                at = 1.1 + k / 10
                if encoding == "raw":
                    bag.image(topic, at, picture)
                elif encoding == "png":
                    bag.png(f"{topic}/compressed", at, picture)
                else:
                    bag.message(
                        f"{topic}/compressed",
                        "sensor_msgs/msg/CompressedImage",
                        at,
                        header=bag.header(at),
                        format="jpeg",
                        data=cv2.imencode(".jpg", picture[..., ::-1])[1].reshape(-1),
                    )
        bag.episode(1.5, 2)
    (record,) = RosbagReader(bag.path)
    for view in record.episode(4, 2).keyframes[3].views:
        assert view.shape == picture.shape
        error = np.abs(view.astype(int) - picture).max()
        assert error == 0 if encoding != "jpeg" else error < 40


@pytest.mark.parametrize("bag", ["test-01-success", "test-04-drop"])
@pytest.mark.parametrize("num_keyframes", [2, 4, 8])
def test_keyframes_of_the_demo_bags_are_the_live_ones(bag: str, num_keyframes: int) -> None:
    (record,) = RosbagReader(DEMO / bag)
    (live,) = _judged(DEMO / bag, num_keyframes)
    _assert_same_episode(record.episode(num_keyframes, 2), live)


@settings(max_examples=8)
@given(
    steps_ms=st.lists(st.integers(20, 400), min_size=70, max_size=200),
    start_late_ms=st.integers(0, 300),
    num_keyframes=st.sampled_from([3, 4, 5]),
)
def test_keyframes_of_long_irregular_episodes_are_the_live_ones(
    bag_writer: type, steps_ms: list[int], start_late_ms: int, num_keyframes: int
) -> None:
    """More pairs than the live node keeps candidates, START received after its first pictures."""
    times = [100 + s for s in np.cumsum([0, *steps_ms]) / 1000]
    with tempfile.TemporaryDirectory() as folder:
        with bag_writer(Path(folder) / "bag") as bag:
            messages = [(t + 0.001, k) for k, t in enumerate(times)]
            messages += [(times[0] + start_late_ms / 1000, -1), (times[-1] + 0.005, -2)]
            for at, what in sorted(messages):
                if what == -1:
                    bag.episode(at, 1, uuid.UUID(int=7), "go", stamp=times[0] - 0.01)
                elif what == -2:
                    bag.episode(at, 2, uuid.UUID(int=7), stamp=times[-1])
                else:
                    picture = np.full((2, 2, 3), what, np.uint8)
                    bag.image("/exo/image", at, picture, stamp=times[what])
                    bag.image("/gripper/image", at, picture, stamp=times[what])
        (record,) = RosbagReader(bag.path)
        (live,) = _judged(bag.path, num_keyframes)
        assert len(record.stamps_ns) == len(times)
        _assert_same_episode(record.episode(num_keyframes, 2), live)


def test_pictures_that_cannot_be_decoded_are_passed_over_as_live(bag_maker: Callable) -> None:
    with bag_maker() as bag:
        bag.episode(99.95, 1, uuid.UUID(int=7), "go")
        for k in range(30):
            at = 100 + k / 10
            bag.image("/exo/image", at, np.full((4, 4, 3), k, np.uint8))
            if k in (0, 10, 20, 29):
                bag.message(
                    "/gripper/image",
                    "sensor_msgs/msg/Image",
                    at,
                    header=bag.header(at),
                    height=2,
                    width=2,
                    encoding="32FC1",
                    is_bigendian=0,
                    step=8,
                    data=np.zeros(16, np.uint8),
                )
            else:
                bag.image("/gripper/image", at, np.full((4, 4, 3), k, np.uint8))
        bag.episode(102.95, 2, uuid.UUID(int=7))
    (record,) = RosbagReader(bag.path)
    (live,) = _judged(bag.path, 4)
    episode = record.episode(4, 2)
    _assert_same_episode(episode, live)
    assert int(episode.keyframes[0].views[0][0, 0, 0]) == 1
    with pytest.raises(DataError, match=r"102.9|102900000000 ns: .*depth") as caught:
        record.read([29])
    _one_line(caught, str(bag.path))


def test_no_picture_is_decoded_before_it_is_asked_for(
    simple_bag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("ifailsense_ros.core.cdr_pictures.decode_image", refuse)
    (record,) = RosbagReader(simple_bag)
    with pytest.raises(AssertionError, match="decoded"):
        record.read([0])


def test_pairs_between_episodes_are_forgotten(
    bag_maker: Callable, episode_writer: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bag_episodes, "_KEPT_PAIRS", 5)
    with bag_maker() as bag:
        for k in range(3):
            episode_writer(bag, 100.0 + 20 * k, instruction=f"go {k}")
            for idle in range(40):
                at = 105.0 + 20 * k + idle / 10
                for topic in ("/exo/image", "/gripper/image"):
                    bag.image(topic, at, np.full((4, 4, 3), 200, np.uint8))
    records = list(RosbagReader(bag.path))
    assert [r.instruction for r in records] == ["go 0", "go 1", "go 2"]
    for k, record in enumerate(records):
        assert record.stamps_ns[0] == (100 + 20 * k) * SECOND
        assert len(record.stamps_ns) == 21
        assert int(record.read([20])[0].views[0][0, 0, 0]) == 20


def test_sidecar_bounds_and_labels_a_bag_without_events(bag_maker: Callable) -> None:
    with bag_maker() as bag:
        for k in range(100):
            for topic in ("/left/image", "/hand/image"):
                bag.image(topic, 50 + k / 10, np.full((4, 6, 3), k, np.uint8))
    (bag.path / SIDECAR_NAME).write_text(
        "episodes:\n"
        "- {start: 1, end: 2.55, instruction: lift the block, label: success, task: lift,"
        " category: raising, group: desk 4}\n"
        "- {start: 4, end: 6, instruction: turn it, label: failure, kind: missing_rotation}\n"
    )
    spec = f"rosbag:{bag.path}?exo=/left/image&gripper=/hand/image"
    first, second = open_reader(spec)
    # The live node's pre-roll: pairs from 0.2 s before START belong to the episode.
    assert first.stamps_ns == tuple(round((50.8 + k / 10) * SECOND) for k in range(18))
    assert (first.start_ns, first.end_ns) == (51 * SECOND, round(52.55 * SECOND))
    assert (first.instruction, first.task, first.category) == ("lift the block", "lift", "raising")
    assert (first.success, first.kind, first.group) == (True, EXPERT, "desk 4")
    assert (second.success, second.kind, second.group) == (False, "missing_rotation", "bag")
    assert second.category == "rotating"
    assert int(second.read([0])[0].views[1][0, 0, 0]) == 38


def test_sidecar_labels_episodes_of_the_topic(
    bag_maker: Callable, episode_writer: Callable
) -> None:
    with bag_maker() as bag:
        for k in range(3):
            episode_writer(bag, 100.0 + 10 * k, episode_id=uuid.UUID(int=k + 1))
    labels = {3: "success", 1: "failure"}
    entries = [{"episode_id": str(uuid.UUID(int=k)), "label": v} for k, v in labels.items()]
    write_sidecar(bag.path, entries)
    assert [r.success for r in RosbagReader(bag.path)] == [False, None, True]
    write_sidecar(bag.path, [{"label": "success"}, {"label": "failure"}, {"label": "unknown"}])
    assert [r.success for r in RosbagReader(bag.path)] == [True, False, None]
    write_sidecar(bag.path, [{"label": "success"}])
    with pytest.raises(DataError, match="1 entries in the sidecar, 3 episodes in the bag"):
        list(RosbagReader(bag.path))
    write_sidecar(bag.path, [{"episode_id": str(uuid.UUID(int=9)), "label": "success"}])
    with pytest.raises(DataError, match="which is not in the bag"):
        list(RosbagReader(bag.path))


def test_labels_on_a_topic(bag_maker: Callable, episode_writer: Callable) -> None:
    with bag_maker() as bag:
        for k, label in enumerate((True, False, None)):
            episode_writer(bag, 100.0 + 10 * k)
            if label is not None:
                bag.message("/episode/success", "std_msgs/msg/Bool", 105.0 + 10 * k, data=label)
    records = list(RosbagReader(bag.path))
    assert [(r.success, r.kind) for r in records] == [(True, EXPERT), (False, ""), (None, "")]
    demonstrations = RosbagReader(bag.path, label="success")
    assert [r.success for r in demonstrations] == [True, False, True]


def test_episodes_that_were_not_finished_are_named(
    bag_maker: Callable, episode_writer: Callable
) -> None:
    with bag_maker() as bag:
        episode_writer(bag, 100.0, instruction="one")
        bag.episode(110.0, 1, uuid.UUID(int=8), "two")
        bag.episode(111.0, 3, uuid.UUID(int=8))
        episode_writer(bag, 120.0, instruction="three")
    with pytest.raises(DataError, match="episode 1: ABORTED") as caught:
        list(RosbagReader(bag.path))
    _one_line(caught, str(bag.path))
    reader = RosbagReader(bag.path, keep_going=True)
    assert [r.instruction for r in reader] == ["one", "three"]
    (problem,) = reader.problems
    assert problem.where == f"{bag.path}: episode 1"
    assert problem.what.startswith("ABORTED: ")


def test_damaged_bags_cost_one_line_each(
    bag_maker: Callable, episode_writer: Callable, tmp_path: Path
) -> None:
    for name in ("a", "b", "c", "d"):
        with bag_maker(f"bags/{name}", mcap=name != "c") as bag:
            episode_writer(bag, 100.0, instruction=name)
    bags = tmp_path / "bags"
    (bags / "a" / "metadata.yaml").unlink()
    file = bags / "b" / "b.mcap"
    file.write_bytes(file.read_bytes()[:4000])
    file = bags / "c" / "c.db3"
    file.write_bytes(file.read_bytes()[:4000])
    for name, reason in {"a": "ros2 bag reindex", "b": "cut off", "c": "cut off"}.items():
        with pytest.raises(DataError, match=reason) as caught:
            list(RosbagReader(bags / name))
        _one_line(caught, str(bags / name))
    reader = RosbagReader(bags, keep_going=True)
    assert [r.key for r in reader] == ["d/0"]
    assert [p.where for p in reader.problems] == [str(bags / name) for name in "abc"]
    assert all("\n" not in p.what for p in reader.problems)


def test_topic_that_is_missing(simple_bag: Path) -> None:
    with pytest.raises(DataError, match="topic /wrist is missing") as caught:
        list(RosbagReader(simple_bag, gripper="/wrist"))
    _one_line(caught, str(simple_bag))
    (record,) = RosbagReader(simple_bag, gripper="/wrist", num_pov="1")
    assert record.num_pov == len(record.read([0])[0].views) == 1
    with pytest.raises(DataError, match="1 PoV, 2 asked for"):
        record.episode(4, 2)


def test_paths(simple_bag: Path, tmp_path: Path) -> None:
    (by_file,) = RosbagReader(simple_bag / "simple.mcap")
    (by_folder,) = RosbagReader(simple_bag)
    (by_parent,) = RosbagReader(tmp_path)
    assert by_file.stamps_ns == by_folder.stamps_ns == by_parent.stamps_ns
    assert (by_folder.key, by_parent.key) == ("simple/0", "simple/0")
    links = tmp_path / "deep" / "links"
    links.mkdir(parents=True)
    (links / "one").symlink_to(simple_bag)
    (links / "round").symlink_to(links)
    assert [r.key for r in RosbagReader(links)] == ["one/0"]
    shutil.rmtree(simple_bag)
    with pytest.raises(DataError, match="no rosbag2 in it"):
        list(RosbagReader(tmp_path))
    with pytest.raises(DataError, match="no such file or folder"):
        RosbagReader(simple_bag)


@pytest.mark.parametrize("options", [{"num_pov": 3}, {"num_pov": "x"}, {"label": "yes"}])
def test_options_out_of_range(simple_bag: Path, options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        RosbagReader(simple_bag, **options)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("episodes: [", "is not YAML"),
        ("[]", "must hold fields"),
        ("episodes: []", "at least one entry"),
        ("episodes: [{begin: 1}]", "episode 0: no field 'begin'"),
        ("episodes: [{start: 1}]", "needs both start and end"),
        ("episodes: [{start: 1, end_ns: 5}]", "needs both start_ns and end_ns"),
        ("episodes: [{start: .nan, end: 2}]", "start: nan is not a number"),
        ("episodes: [{start_ns: 1.5, end_ns: 2}]", "start_ns: 1.5 is not a number"),
        ("episodes: [{start: 3, end: 2}]", "not in the order of time"),
        ("episodes: [{start: 1, end: 4}, {start: 3, end: 5}]", "overlap"),
        ("episodes: [{start: 1, end: 2}, {label: success}]", "either all have start and end"),
        ("episodes: [{label: yes}]", "label: True is none of success, failure, unknown"),
        ("episodes: [{instruction: 7}]", "instruction: 7 is not a text"),
        ("episodes: [{key: a}, {key: a}]", "two have the same key"),
        ("episodes: [{episode_id: me}]", "episode_id: 'me' is not a UUID"),
        ("episodes: [{label: success}]\nstamp_offset_ns: x", "stamp_offset_ns: 'x'"),
    ],
)
def test_sidecar_that_makes_no_sense(simple_bag: Path, text: str, reason: str) -> None:
    (simple_bag / SIDECAR_NAME).write_text(text)
    with pytest.raises(DataError, match=reason) as caught:
        list(RosbagReader(simple_bag))
    _one_line(caught, str(simple_bag / SIDECAR_NAME))


def test_a_picture_is_found_by_its_stamp_among_those_received_together(
    bag_maker: Callable,
) -> None:
    """A recorder that stamps whole batches with one receive time."""
    with bag_maker() as bag:
        bag.episode(99.95, 1, uuid.UUID(int=7), "go")
        for batch in range(4):
            for k in range(5):
                stamp = 100 + (5 * batch + k) / 10
                picture = np.full((4, 4, 3), 5 * batch + k, np.uint8)
                for topic in ("/exo/image", "/gripper/image"):
                    bag.image(topic, 100.5 + batch / 2, picture, stamp=stamp)
        bag.episode(102.1, 2, uuid.UUID(int=7), stamp=101.95)
    (record,) = RosbagReader(bag.path)
    values = [int(k.views[1][0, 0, 0]) for k in record.read(range(20))]
    assert values == list(range(20))
    assert len([e for e in read_events(bag.path) if isinstance(e, ImageRecorded)]) == 40
