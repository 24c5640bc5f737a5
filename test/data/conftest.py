"""Small bags, written with rosbags, and records made of numbered pictures."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.records import EXPERT, EpisodeRecord
from ifailsense_ros.data.rosbag import message_typestore

SECOND = 10**9
START, END, ABORT = 1, 2, 3


class BagMaker:
    """Writes messages in the order they are given; receive time = `at` in seconds."""

    def __init__(self, path: Path, *, mcap: bool = True, version: int = 9) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer

        self.path = path
        self.store = message_typestore()
        plugin = StoragePlugin.MCAP if mcap else StoragePlugin.SQLITE3
        self._writer = Writer(path, version=version, storage_plugin=plugin)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagMaker:
        self._writer.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def topic(self, topic: str, msgtype: str) -> Any:
        """A topic, also one that never carries a message."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, msgtype, typestore=self.store
            )
        return self._connections[topic]

    def raw(self, topic: str, msgtype: str, at: float, data: bytes) -> None:
        self._writer.write(self.topic(topic, msgtype), round(at * SECOND), data)

    def message(self, topic: str, msgtype: str, at: float, **fields: Any) -> None:
        message = self.store.types[msgtype](**fields)
        self.raw(topic, msgtype, at, self.store.serialize_cdr(message, msgtype))

    def header(self, stamp: float, frame_id: str = "camera") -> Any:
        ns = round(stamp * SECOND)
        time = self.store.types["builtin_interfaces/msg/Time"](ns // SECOND, ns % SECOND)
        return self.store.types["std_msgs/msg/Header"](time, frame_id)

    def image(self, topic: str, at: float, rgb: np.ndarray, stamp: float | None = None) -> None:
        self.message(
            topic,
            "sensor_msgs/msg/Image",
            at,
            header=self.header(at if stamp is None else stamp),
            height=rgb.shape[0],
            width=rgb.shape[1],
            encoding="rgb8",
            is_bigendian=0,
            step=rgb.shape[1] * 3,
            data=rgb.reshape(-1),
        )

    def png(self, topic: str, at: float, rgb: np.ndarray, stamp: float | None = None) -> None:
        self.message(
            topic,
            "sensor_msgs/msg/CompressedImage",
            at,
            header=self.header(at if stamp is None else stamp),
            format="png",
            data=cv2.imencode(".png", rgb[..., ::-1])[1].reshape(-1),
        )

    def instruction(self, at: float, text: str, topic: str = "/instruction") -> None:
        self.message(topic, "std_msgs/msg/String", at, data=text)

    def episode(
        self,
        at: float,
        event: int,
        episode_id: uuid.UUID | None = None,
        instruction: str = "",
        stamp: float | None = None,
    ) -> None:
        raw = (episode_id or uuid.UUID(int=0)).bytes
        self.message(
            "/episode",
            "ifailsense_ros/msg/EpisodeEvent",
            at,
            header=self.header(at if stamp is None else stamp),
            episode_id=self.store.types["unique_identifier_msgs/msg/UUID"](
                np.frombuffer(raw, np.uint8)
            ),
            event=event,
            instruction=instruction,
        )


def picture(value: int, pov: int = 0) -> np.ndarray:
    """A flat picture that tells its time step (red) and PoV (green)."""
    return np.broadcast_to(np.array([value, 100 * pov, 7], np.uint8), (24, 32, 3)).copy()


def write_episode(
    bag: BagMaker,
    start: float,
    *,
    seconds: float = 2.0,
    episode_id: uuid.UUID | None = None,
    instruction: str = "lift the red block",
    povs: Iterable[int] = (0, 1),
    topics: tuple[str, str] = ("/exo/image", "/gripper/image"),
) -> None:
    """One episode at 10 Hz: START, pictures of both cameras, END."""
    bag.instruction(start - 0.05, instruction)
    bag.episode(start - 0.02, START, episode_id)
    for k in range(round(seconds * 10) + 1):
        at = start + 0.1 * k
        for pov in povs:
            # The recorder got it 10 ms after it was taken, the second camera is 3 ms late.
            bag.image(topics[pov], at + 0.01 + 0.003 * pov, picture(k, pov), at + 0.003 * pov)
    bag.episode(start + seconds + 0.05, END, episode_id)


@pytest.fixture
def bag_maker(tmp_path: Path) -> Callable[..., BagMaker]:
    """`with bag_maker("name") as bag:` writes a bag under the test's folder."""

    def make(name: str = "bag", **options: Any) -> BagMaker:
        return BagMaker(tmp_path / name, **options)

    return make


@pytest.fixture
def episode_writer() -> Callable[..., None]:
    """`write_episode`, for tests that need one in the middle of other things."""
    return write_episode


@pytest.fixture
def simple_bag(bag_maker: Callable[..., BagMaker]) -> Path:
    """One episode of two seconds, two cameras."""
    with bag_maker("simple") as bag:
        write_episode(bag, 100.0, episode_id=uuid.UUID(int=7))
    return bag.path


@pytest.fixture(scope="session")
def bag_writer() -> type[BagMaker]:
    """`BagMaker`, for tests of many examples, which must not share a folder."""
    return BagMaker


def numbered(number: int, size: tuple[int, int] = (32, 64)) -> np.ndarray:
    """A picture whose eight bars are the bits of a number: it survives lossy codecs."""
    picture = np.zeros((*size, 3), np.uint8)
    bar = size[1] // 8
    for bit in range(8):
        if number >> bit & 1:
            picture[:, bar * bit : bar * (bit + 1)] = 255
    return picture


def number_of(picture: np.ndarray) -> int:
    """The number a picture shows."""
    bar = picture.shape[1] // 8
    bars = picture[:, : 8 * bar].mean(axis=(0, 2)).reshape(8, -1).mean(axis=1)
    return sum(int(b > 128) << bit for bit, b in enumerate(bars))


def make_record(
    number: int = 0,
    *,
    stamps_ns: Sequence[int] | None = None,
    size: tuple[int, int] = (32, 64),
    num_pov: int = 2,
    broken: int | None = None,
    **fields: Any,
) -> EpisodeRecord:
    """A record of numbered pictures: time step + 10 * number, the gripper's plus 100.

    Args:
        number: of the episode.
        stamps_ns: None: ten at 10 Hz, from the hour `number`.
        size: height and width of the pictures.
        num_pov: N.
        broken: a time step whose pictures cannot be read.
        fields: of the record, in place of the usual ones.
    """
    if stamps_ns is None:
        stamps_ns = [3600 * SECOND * (number + 1) + k * SECOND // 10 for k in range(10)]

    def read(steps: Sequence[int]) -> tuple[Keyframe, ...]:
        if broken in steps:
            raise DataError(f"episode {number}: step {broken} is broken")
        return tuple(
            Keyframe(
                stamps_ns[step],
                tuple(numbered(10 * number + step + 100 * pov, size) for pov in range(num_pov)),
            )
            for step in steps
        )

    usual = {
        "source": "made",
        "key": f"set/{number}",
        "group": f"scene {number // 2}",
        "instruction": f"lift block {number % 3}",
        "task": f"lift_{number % 3}",
        "category": "lifting",
        "kind": EXPERT,
        "success": True,
    }
    return EpisodeRecord(
        **{**usual, **fields}, stamps_ns=tuple(stamps_ns), num_pov=num_pov, read=read
    )


@pytest.fixture(scope="session")
def record_maker() -> Callable[..., EpisodeRecord]:
    """`make_record`."""
    return make_record


@pytest.fixture(scope="session")
def picture_numbers() -> tuple[Callable, Callable]:
    """`numbered` and `number_of`."""
    return numbered, number_of


@pytest.fixture(scope="session")
def assert_read_back() -> Callable[[EpisodeRecord, EpisodeRecord], None]:
    """What must survive a round trip: stamps, sizes, frames, instruction, label and what is known
    of the task; key and twin get the folder's name in front.
    """

    def check(before: EpisodeRecord, after: EpisodeRecord) -> None:
        for name in (
            *("stamps_ns", "num_pov", "instruction", "success", "kind", "task", "category"),
            "group",
        ):
            assert getattr(after, name) == getattr(before, name), name
        folder = after.key.partition("/")[0]
        assert after.key == f"{folder}/{before.key}"
        assert after.twin == (before.twin and f"{folder}/{before.twin}")
        steps = range(len(before.stamps_ns))
        for was, now in zip(before.read(steps), after.read(steps), strict=True):
            assert now.stamp_ns == was.stamp_ns
            assert [v.shape for v in now.views] == [v.shape for v in was.views]
            assert [number_of(v) for v in now.views] == [number_of(v) for v in was.views]

    return check
