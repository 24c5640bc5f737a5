"""Reading bags: what comes out, in which order, and what damaged bags say."""

from __future__ import annotations

import shutil
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ifailsense_ros.core.errors import BagError, ImageError
from ifailsense_ros.data.rosbag import (
    BagTopics,
    BoundaryRecorded,
    ImageRecorded,
    InstructionRecorded,
    message_typestore,
    open_bag,
    read_events,
)

SECOND = 10**9


def _one_line_error(path: Path, match: str, **options: object) -> None:
    with pytest.raises(BagError, match=match) as caught:
        list(read_events(path, **options))
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text


@pytest.mark.parametrize("mcap", [True, False])
@pytest.mark.parametrize("version", [8, 9])
def test_everything_comes_out_in_recorded_order(
    bag_maker: Callable, episode_writer: Callable, mcap: bool, version: int
) -> None:
    with bag_maker(mcap=mcap, version=version) as bag:
        episode_writer(bag, 100.0, episode_id=uuid.UUID(int=7))
    events = list(read_events(bag.path))
    assert [e.receive_ns for e in events] == sorted(e.receive_ns for e in events)
    assert Counter(type(e) for e in events) == {
        InstructionRecorded: 1,
        BoundaryRecorded: 2,
        ImageRecorded: 42,
    }
    instruction, start = events[:2]
    assert instruction.text == "lift the red block"
    assert start == BoundaryRecorded(
        round(99.98 * SECOND), round(99.98 * SECOND), 1, uuid.UUID(int=7), ""
    )
    assert events[-1].event == 2
    images = [e for e in events if isinstance(e, ImageRecorded)]
    assert [e.pov for e in images] == [0, 1] * 21
    third = images[5]
    assert third.stamp_ns == round(100.203 * SECOND)
    assert third.receive_ns == round(100.213 * SECOND)
    assert third.picture.frame_id == "camera"
    np.testing.assert_array_equal(third.picture.decode()[0, 0], [2, 100, 7])


def test_images_are_decoded_only_when_asked(bag_maker: Callable) -> None:
    with bag_maker() as bag:
        bag.topic("/gripper/image", "sensor_msgs/msg/Image")
        bag.episode(1.0, 1)
        bag.message(
            "/exo/image",
            "sensor_msgs/msg/Image",
            2.0,
            header=bag.header(2.0),
            height=4,
            width=4,
            encoding="16UC1",
            is_bigendian=0,
            step=8,
            data=np.zeros(32, np.uint8),
        )
    image = list(read_events(bag.path))[1]
    with pytest.raises(ImageError, match="depth"):
        image.picture.decode()


def test_compressed_is_found_behind_the_plain_name(bag_maker: Callable) -> None:
    rgb = np.full((5, 6, 3), (1, 2, 3), np.uint8)
    with bag_maker() as bag:
        bag.topic("/episode", "ifailsense_ros/msg/EpisodeEvent")
        bag.png("/exo/image/compressed", 1.0, rgb)
        bag.image("/gripper/image", 2.0, rgb)
    events = list(read_events(bag.path))
    assert [e.pov for e in events] == [0, 1]
    for event in events:
        np.testing.assert_array_equal(event.picture.decode(), rgb)


def test_topics_are_settings_and_other_topics_are_left_alone(bag_maker: Callable) -> None:
    rgb = np.zeros((5, 6, 3), np.uint8)
    with bag_maker() as bag:
        bag.image("/left/image_raw", 1.0, rgb)
        bag.image("/exo/image", 1.5, rgb)
        bag.instruction(2.0, "go", topic="/task")
        bag.episode(3.0, 1)
    topics = BagTopics(exo="/left/image_raw", instruction="/task")
    events = list(read_events(bag.path, topics, num_pov=1))
    assert [type(e) for e in events] == [ImageRecorded, InstructionRecorded, BoundaryRecorded]
    assert events[0].receive_ns == SECOND


def test_all_zero_id_is_none(bag_maker: Callable, episode_writer: Callable) -> None:
    with bag_maker() as bag:
        episode_writer(bag, 100.0)
    boundaries = [e for e in read_events(bag.path) if isinstance(e, BoundaryRecorded)]
    assert [b.episode_id for b in boundaries] == [None, None]


def test_bag_without_instruction_topic_is_lawful(bag_maker: Callable) -> None:
    with bag_maker() as bag:
        bag.topic("/exo/image", "sensor_msgs/msg/Image")
        bag.episode(1.0, 1, instruction="go")
    assert [e.instruction for e in read_events(bag.path, num_pov=1)] == ["go"]


def test_single_file(simple_bag: Path) -> None:
    assert len(list(read_events(simple_bag / "simple.mcap"))) == 45


def test_topic_missing_names_those_that_are_there(
    bag_maker: Callable, episode_writer: Callable
) -> None:
    with bag_maker() as bag:
        episode_writer(bag, 100.0, povs=(0,))
    _one_line_error(bag.path, r"/gripper/image is missing \(there are: /episode, /exo/image, /ins")
    assert len(list(read_events(bag.path, num_pov=1))) == 24


def test_topic_of_another_type(bag_maker: Callable) -> None:
    with bag_maker() as bag:
        bag.instruction(1.0, "x", topic="/exo/image")
    _one_line_error(bag.path, "/exo/image is std_msgs/msg/String, not sensor_msgs/msg/Image or")


def test_episode_event_of_another_definition(bag_maker: Callable, simple_bag: Path) -> None:
    metadata = simple_bag / "metadata.yaml"
    text = metadata.read_text()
    ours = message_typestore().hash_rihs01("ifailsense_ros/msg/EpisodeEvent")
    assert ours in text
    metadata.write_text(text.replace(ours, "RIHS01_" + "0" * 64))
    _one_line_error(simple_bag, "another definition")


def test_no_such_bag(tmp_path: Path) -> None:
    _one_line_error(tmp_path / "nowhere", "no such bag")


def test_folder_that_is_no_bag(tmp_path: Path) -> None:
    _one_line_error(tmp_path, "metadata.yaml is missing: give")


def test_recorder_was_killed(simple_bag: Path) -> None:
    (simple_bag / "metadata.yaml").unlink()
    _one_line_error(simple_bag, "reindex")


def test_some_other_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    _one_line_error(tmp_path / "notes.txt", "cannot be read")


def test_empty_and_mad_metadata(simple_bag: Path) -> None:
    for text in ("", "- 1\n- 2", "{", "rosbag2_bagfile_information: {version: 99}", "\x00"):
        (simple_bag / "metadata.yaml").write_text(text)
        _one_line_error(simple_bag, "cannot be read")


def test_storage_file_is_missing(simple_bag: Path) -> None:
    (simple_bag / "simple.mcap").unlink()
    _one_line_error(simple_bag, "missing")


def test_truncated_mcap_at_any_place(simple_bag: Path) -> None:
    storage = simple_bag / "simple.mcap"
    whole = storage.read_bytes()
    for size in [0, 4, 9, 40, *range(50, len(whole) - 1, len(whole) // 15), len(whole) - 1]:
        storage.write_bytes(whole[:size])
        _one_line_error(simple_bag, "damaged or was cut off")


def test_flipped_bytes_never_leave_as_anything_but_bag_error(simple_bag: Path) -> None:
    storage = simple_bag / "simple.mcap"
    whole = storage.read_bytes()
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(60):
        broken = bytearray(whole)
        for at in rng.integers(0, len(whole), 20):
            broken[at] ^= int(rng.integers(1, 256))
        storage.write_bytes(bytes(broken))
        try:
            for event in read_events(simple_bag):
                if isinstance(event, ImageRecorded):
                    event.picture.decode()
        except (BagError, ImageError):
            failed += 1
    assert failed  # or the test would not have tested anything


def test_damaged_message(bag_maker: Callable) -> None:
    with bag_maker() as bag:
        bag.topic("/exo/image", "sensor_msgs/msg/Image")
        bag.raw("/episode", "ifailsense_ros/msg/EpisodeEvent", 1.0, b"\x00\x01\x00\x00\x01")
    _one_line_error(bag.path, "a message on /episode is damaged", num_pov=1)


def test_damaged_sqlite(bag_maker: Callable, episode_writer: Callable) -> None:
    with bag_maker(mcap=False) as bag:
        episode_writer(bag, 100.0)
    storage = next(bag.path.glob("*.db3"))
    with sqlite3.connect(storage) as connection:
        connection.execute("DROP TABLE messages")
    _one_line_error(bag.path, "damaged")
    storage.write_bytes(b"not a database at all" * 100)
    _one_line_error(bag.path, "damaged")


def test_raw_messages_are_the_recorded_bytes(simple_bag: Path, tmp_path: Path) -> None:
    """What the replayer publishes; a copy made of them is the same bag."""
    with open_bag(simple_bag) as bag:
        assert bag.topics["/episode"] == "ifailsense_ros/msg/EpisodeEvent"
        raw = list(bag.messages())
        again = [bag.deserialize(m) for m in raw if m.topic == "/instruction"]
    assert len(raw) == 45
    assert [m.data for m in again] == ["lift the red block"]
    shutil.rmtree(simple_bag)
    assert raw[0].data  # bytes of their own, not a view of a closed file


def test_no_topics_asked_for_gives_nothing(simple_bag: Path) -> None:
    with open_bag(simple_bag) as bag:
        assert list(bag.messages(set())) == []
