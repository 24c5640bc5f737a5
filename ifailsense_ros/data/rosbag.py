"""rosbag2 folders (MCAP or sqlite3) as a stream of typed events, without a ROS install."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ifailsense_ros.core.cdr_pictures import CdrPicture
from ifailsense_ros.core.errors import BagError, ImageError, text_of
from ifailsense_ros.data.ros_messages import message_typestore

EPISODE_EVENT_TYPE = "ifailsense_ros/msg/EpisodeEvent"
IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
STRING_TYPE = "std_msgs/msg/String"
BOOL_TYPE = "std_msgs/msg/Bool"


@dataclass(frozen=True)
class BagTopics:
    """Where in a bag the monitor's inputs are; the defaults are the node's.

    Attributes:
        exo: exocentric camera. `/compressed` behind it is tried where the name itself is missing.
        gripper: gripper camera, likewise; not looked for with one PoV.
        instruction: std_msgs/String. May be missing: START can carry the instruction.
        episode: ifailsense_ros/EpisodeEvent; "" where a bag has none and others say where its
            episodes begin and end.
        success: std_msgs/Bool, whether the episode that started last carried out its instruction.
            May be missing; a monitor never looks at it.
    """

    exo: str = "/exo/image"
    gripper: str = "/gripper/image"
    instruction: str = "/instruction"
    episode: str = "/episode"
    success: str = "/episode/success"


class RawMessage(NamedTuple):
    """One message as recorded: receive time in nanoseconds, topic, type name, CDR bytes."""

    receive_ns: int
    topic: str
    msgtype: str
    data: bytes


class ImageRecorded(NamedTuple):
    """A camera image, not decoded yet.

    Attributes:
        receive_ns: when the recorder got it, nanoseconds.
        pov: row of the montage, 0 = exocentric.
        stamp_ns: header stamp, nanoseconds.
        picture: to be decoded.
    """

    receive_ns: int
    pov: int
    stamp_ns: int
    picture: CdrPicture


@dataclass(frozen=True)
class InstructionRecorded:
    """A message on the instruction topic; it has no stamp but the recorder's."""

    receive_ns: int
    text: str


@dataclass(frozen=True)
class BoundaryRecorded:
    """An EpisodeEvent.

    Attributes:
        receive_ns: when the recorder got it, nanoseconds.
        stamp_ns: header stamp, nanoseconds.
        event: START, END or ABORT as numbered in EpisodeEvent.msg.
        episode_id: None for the message's all-zero id.
        instruction: may be empty.
    """

    receive_ns: int
    stamp_ns: int
    event: int
    episode_id: uuid.UUID | None
    instruction: str


@dataclass(frozen=True)
class LabelRecorded:
    """A message on the success topic; it has no stamp but the recorder's."""

    receive_ns: int
    success: bool


BagEvent = ImageRecorded | InstructionRecorded | BoundaryRecorded | LabelRecorded


class Bag:
    """An open rosbag2; made by `open_bag`."""

    def __init__(self, path: Path, reader: Any, store: Any) -> None:
        self.path = path
        self._reader = reader
        self._store = store

    @property
    def topics(self) -> dict[str, str]:
        """Message type of every recorded topic."""
        return {c.topic: c.msgtype for c in self._reader.connections}

    @property
    def duration_s(self) -> float:
        """From the first message to the last, seconds."""
        return self._reader.duration / 1e9

    def is_latched(self, topic: str) -> bool | None:
        """Whether a topic was recorded as transient_local; None where the bag does not say."""
        offered = [
            profile
            for c in self._reader.connections
            if c.topic == topic
            for profile in c.ext.offered_qos_profiles
        ]
        return any(p.durability.name == "TRANSIENT_LOCAL" for p in offered) if offered else None

    def messages(
        self, topics: set[str] | None = None, received: tuple[int, int] | None = None
    ) -> Iterator[RawMessage]:
        """Messages in recorded order.

        Args:
            topics: only these; None: all.
            received: only what the recorder got from the first of these times to the second
                (inclusive), nanoseconds; found by the bag's index.

        Raises:
            BagError: the file turns out to be damaged.
        """
        for connection, receive_ns, data in self.records(topics, received):
            yield RawMessage(receive_ns, connection.topic, connection.msgtype, data)

    def records(
        self, topics: set[str] | None = None, received: tuple[int, int] | None = None
    ) -> Iterator[tuple[Any, int, bytes]]:
        """As `messages`, but as rosbags gives them: connection, receive time, CDR bytes."""
        wanted = [c for c in self._reader.connections if topics is None or c.topic in topics]
        first, last = received or (None, None)
        stop = None if last is None else last + 1
        with _as_bag_error(self.path):
            if wanted:  # without connections rosbags would not filter, and yield everything
                yield from self._reader.messages(wanted, first, stop)

    def deserialize(self, message: RawMessage) -> Any:
        """The message with its fields as attributes.

        Raises:
            BagError: the bytes are not a message of that type.
        """
        try:
            return self._store.deserialize_cdr(message.data, message.msgtype)
        except Exception as error:  # damaged bytes fail in any of many ways inside rosbags
            raise BagError(
                f"{self.path}: a message on {message.topic} is damaged ({text_of(error)}): "
                "record the bag again"
            ) from error


@contextmanager
def open_bag(path: str | Path) -> Iterator[Bag]:
    """Open a rosbag2 folder, or a single .mcap or .db3 file.

    Raises:
        BagError: not there, not a bag, without metadata.yaml, truncated, of another version, or
            with EpisodeEvents of another definition than ours.
    """
    path = Path(path)
    store = message_typestore()
    from rosbags.rosbag2 import Reader

    if not path.exists():
        raise BagError(f"{path}: no such bag: give the folder that holds metadata.yaml")
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        hint = "give the folder that holds metadata.yaml"
        if any(path.glob("*.mcap")) or any(path.glob("*.db3")):
            hint = "the recorder was killed: run `ros2 bag reindex` on it"
        raise BagError(f"{path}: not a rosbag2, metadata.yaml is missing: {hint}")
    with _as_bag_error(path):
        reader = Reader(path)
        reader.open()
    try:
        _check_definitions(path, reader, store)
        yield Bag(path, reader, store)
    finally:
        reader.close()


def read_events(
    path: str | Path, topics: BagTopics | None = None, *, num_pov: int = 2, labels: bool = False
) -> Iterator[BagEvent]:
    """What the monitor would have received, in recorded order.

    Args:
        path: of the bag.
        topics: names in the bag; None: the node's defaults.
        num_pov: N, 1 or 2; with 1 the gripper camera is not read.
        labels: whether the success topic is read.

    Yields:
        `ImageRecorded`, `InstructionRecorded`, `BoundaryRecorded`, `LabelRecorded`.

    Raises:
        BagError: unreadable, damaged, or without a topic that is needed.
    """
    with open_bag(path) as bag:
        yield from events_of(bag, topics or BagTopics(), num_pov=num_pov, labels=labels)


def events_of(
    bag: Bag,
    topics: BagTopics,
    *,
    num_pov: int = 2,
    labels: bool = False,
    received: tuple[int, int] | None = None,
) -> Iterator[BagEvent]:
    """As `read_events`, of an open bag, or of what it received in a span of time."""
    cameras = {
        _find(bag, name, (IMAGE_TYPE, COMPRESSED_TYPE)): pov
        for pov, name in enumerate((topics.exo, topics.gripper)[:num_pov])
    }
    wanted = set(cameras)
    if topics.episode:
        wanted.add(_find(bag, topics.episode, (EPISODE_EVENT_TYPE,)))
    if topics.instruction in bag.topics:
        wanted.add(_find(bag, topics.instruction, (STRING_TYPE,)))
    if labels and topics.success in bag.topics:
        wanted.add(_find(bag, topics.success, (BOOL_TYPE,)))
    compressed = {topic: bag.topics[topic] == COMPRESSED_TYPE for topic in cameras}
    # Nearly all of a bag are pictures that are never looked at: only their headers are read here,
    # and what is done for each of them is what an evaluation costs.
    for connection, receive_ns, data in bag.records(wanted, received):
        topic = connection.topic
        pov = cameras.get(topic)
        if pov is None:
            yield _other_event(bag, RawMessage(receive_ns, topic, connection.msgtype, data))
            continue
        try:
            picture = CdrPicture(data, compressed=compressed[topic])
        except ImageError as error:
            raise BagError(
                f"{bag.path}: a message on {topic} is damaged ({error}): record the bag again"
            ) from error
        yield ImageRecorded(receive_ns, pov, picture.stamp_ns, picture)


def _find(bag: Bag, name: str, types: tuple[str, ...]) -> str:
    """The topic of that name and one of the types; for images also with `/compressed` behind."""
    for candidate in (name, f"{name}/compressed" if COMPRESSED_TYPE in types else name):
        msgtype = bag.topics.get(candidate)
        if msgtype is None:
            continue
        if msgtype not in types:
            raise BagError(
                f"{bag.path}: topic {candidate} is {msgtype}, not {' or '.join(types)}: name "
                "another topic"
            )
        return candidate
    there = ", ".join(sorted(bag.topics)) or "none at all"
    raise BagError(f"{bag.path}: topic {name} is missing (there are: {there}): name another topic")


def _other_event(bag: Bag, raw: RawMessage) -> BagEvent:
    message = bag.deserialize(raw)
    if raw.msgtype == EPISODE_EVENT_TYPE:
        return BoundaryRecorded(
            raw.receive_ns,
            _stamp_ns(message.header),
            int(message.event),
            _uuid(message.episode_id),
            message.instruction,
        )
    if raw.msgtype == BOOL_TYPE:
        return LabelRecorded(raw.receive_ns, bool(message.data))
    return InstructionRecorded(raw.receive_ns, message.data)


def _stamp_ns(header: Any) -> int:
    return header.stamp.sec * 10**9 + header.stamp.nanosec


def _uuid(message: Any) -> uuid.UUID | None:
    value = uuid.UUID(bytes=bytes(bytearray(message.uuid)))
    return value if value.int else None


def _check_definitions(path: Path, reader: Any, store: Any) -> None:
    for connection in reader.connections:
        if connection.msgtype != EPISODE_EVENT_TYPE or not connection.digest:
            continue
        if connection.digest != store.hash_rihs01(EPISODE_EVENT_TYPE):
            raise BagError(
                f"{path}: {connection.topic} was recorded with another definition of "
                f"{EPISODE_EVENT_TYPE}: record the bag again with this version"
            )


@contextmanager
def _as_bag_error(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # A damaged file fails in any of many ways inside rosbags; a damaged length as MemoryError.
        raise BagError(
            f"{path}: cannot be read as a rosbag2 ({text_of(error)}): it is damaged or was cut "
            "off; record or copy it again"
        ) from error
