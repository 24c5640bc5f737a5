"""Record a simulated episode as a rosbag2 MCAP folder, with the truth beside it.

``ifailsense sim record-bag --split test --index 4 --kind incomplete_grasp --out some_folder``

A bag holds what a robot's bag would: two camera topics, the instruction, the episode's START and
END. The sidecar ``truth.yaml`` says what really happened; no reader of bags looks at it.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.data.failure_classes import (
    FAILURE_CLASSES,
    SEMANTIC_MISALIGNMENT,
    WRONG_TARGET_OBJECT,
)
from ifailsense_ros.data.rosbag import EPISODE_EVENT_TYPE, message_typestore

from . import GENERATOR_VERSION
from .failures import perform_failure
from .look import LEVELS, level_name
from .render import CAMERAS, JPEG_QUALITY, Camera, encode_jpeg
from .robot import World
from .rollout import SPLITS, Rollout, simulate

SEMANTIC = SEMANTIC_MISALIGNMENT
KINDS = ("success", SEMANTIC, *FAILURE_CLASSES)

IMAGE_TOPICS = {"exo": "/exo/image/compressed", "wrist": "/gripper/image/compressed"}
FRAME_IDS = {"exo": "exo_camera_optical_frame", "wrist": "gripper_camera_optical_frame"}

# Simulated time starts here, an hour later for each index, so that no two scenes overlap.
_EPOCH_NS = 1_700_000_000 * 10**9
_HOUR_NS = 3600 * 10**9
_MS = 10**6
_INSTRUCTION_LEAD_NS = 250 * _MS
_START_LEAD_NS = 150 * _MS
_END_LAG_NS = 50 * _MS
_GRIPPER_LAG_NS = 4 * _MS  # the cameras of a real rig are not triggered together
_RECEIVE_LAG_NS = 2 * _MS
_ID_SPACE = uuid.UUID("6f0c1f0e-5d0b-5d27-9a43-0f4f2f2f8c11")


def roll_out(
    world: World, split: str, index: int, kind: str, *, seed: int = 0, look: str = "mild"
) -> Rollout:
    """The episode a bag of this kind shows.

    Raises:
        ConfigError: for an unknown kind, or a fault the task leaves no place for.
    """
    if kind not in KINDS:
        raise ConfigError(f"--kind {kind!r}: choose one of {', '.join(KINDS)}")
    success = simulate(world, split, index, look, seed=seed)
    if kind not in FAILURE_CLASSES:
        return success
    try:
        return perform_failure(world, success, kind)
    except ValueError as error:
        raise ConfigError(f"--kind {kind} with --index {index}: {error}") from error


def truth_of(rollout: Rollout, kind: str) -> dict[str, Any]:
    """What the sidecar says about an episode shown as ``kind``."""
    setup = rollout.setup
    asked = setup.negative if kind == SEMANTIC else setup.task
    # The setup of an episode with the wrong target names what was done as its negative.
    performed = setup.negative if kind == WRONG_TARGET_OBJECT else setup.task
    return {
        "instruction": setup.negative_instruction if kind == SEMANTIC else setup.instruction,
        "performed_task": performed.name,
        "instructed_task": asked.name,
        "category": asked.category,
        "truth": "success" if int(rollout.outcomes[asked.name]) == 1 else "failure",
        "kind": kind,
        "contrast": [] if performed == asked else list(setup.contrast),
        "seed": {
            "base": setup.seed,
            "split": setup.split,
            "index": setup.index,
            "attempt": setup.attempt,
        },
        "look": setup.level,
        "generator_version": GENERATOR_VERSION,
        "jpeg_quality": JPEG_QUALITY,
        "command": f"ifailsense sim record-bag --seed {setup.seed} --look {setup.level} "
        f"--split {setup.split} --index {setup.index} --kind {kind} --out FOLDER",
    }


def _qos(latched: bool) -> Any:
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    forever = QosTime(2147483647, 4294967295)
    return Qos(
        QosHistory.KEEP_LAST,
        1 if latched else 10,
        QosReliability.RELIABLE,
        durability,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )


class _BagWriter:
    """Collects messages and writes them in order of their receive times."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._messages: list[tuple[int, str, str, Any]] = []

    def type(self, name: str) -> Any:
        """The message class of a type name such as ``std_msgs/msg/String``."""
        return self._store.types[name]

    def stamp(self, nanoseconds: int) -> Any:
        """A builtin_interfaces/Time."""
        seconds, rest = divmod(nanoseconds, 10**9)
        return self.type("builtin_interfaces/msg/Time")(sec=seconds, nanosec=rest)

    def header(self, nanoseconds: int, frame_id: str = "") -> Any:
        """A std_msgs/Header."""
        return self.type("std_msgs/msg/Header")(stamp=self.stamp(nanoseconds), frame_id=frame_id)

    def add(self, receive_ns: int, topic: str, type_name: str, message: Any) -> None:
        """Queue one message."""
        self._messages.append((receive_ns, topic, type_name, message))

    def write(self, folder: Path) -> None:
        """Write the rosbag2 folder; it must not exist."""
        from rosbags.rosbag2 import StoragePlugin, Writer

        with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
            connections = {}
            for _, topic, name, _ in sorted(self._messages, key=lambda m: m[1]):
                if topic not in connections:
                    connections[topic] = bag.add_connection(
                        topic,
                        name,
                        typestore=self._store,
                        offered_qos_profiles=[_qos(latched=topic == "/instruction")],
                    )
            for receive_ns, topic, name, message in sorted(self._messages, key=lambda m: m[0]):
                data = self._store.serialize_cdr(message, name)
                bag.write(connections[topic], receive_ns, bytes(data))


def _episode_event(
    writer: _BagWriter, stamp_ns: int, event: int, episode_id: uuid.UUID, text: str
) -> None:
    identifier = writer.type("unique_identifier_msgs/msg/UUID")(
        uuid=np.frombuffer(episode_id.bytes, np.uint8)
    )
    message = writer.type(EPISODE_EVENT_TYPE)(
        header=writer.header(stamp_ns), episode_id=identifier, event=event, instruction=text
    )
    writer.add(stamp_ns + _RECEIVE_LAG_NS, "/episode", EPISODE_EVENT_TYPE, message)


def write_bag(folder: Path, rollout: Rollout, kind: str, pictures: list[list[np.ndarray]]) -> None:
    """Write one episode as a bag.

    Args:
        folder: where; must not exist yet.
        rollout: the episode.
        kind: one of `KINDS`.
        pictures: per camera in ``render.CAMERAS`` order one RGB picture per state of the rollout.

    Raises:
        ConfigError: if the folder exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise ConfigError(f"{folder} exists already; delete it or choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    truth = truth_of(rollout, kind)
    text = truth["instruction"]
    writer = _BagWriter(message_typestore())
    origin = _EPOCH_NS + rollout.setup.index * _HOUR_NS
    stamps = [origin + int(s) for s in rollout.stamps_ns]
    first, last = stamps[0], stamps[-1]

    string = writer.type("std_msgs/msg/String")(data=text)
    writer.add(first - _INSTRUCTION_LEAD_NS, "/instruction", "std_msgs/msg/String", string)
    event = writer.type(EPISODE_EVENT_TYPE)
    episode_id = uuid.uuid5(_ID_SPACE, f"{truth['seed']} {kind}")
    _episode_event(writer, first - _START_LEAD_NS, event.START, episode_id, text)
    for camera, row in zip(CAMERAS, pictures, strict=True):
        lag = _GRIPPER_LAG_NS if camera == "wrist" else 0
        name = "sensor_msgs/msg/CompressedImage"
        for stamp, picture in zip(stamps, row, strict=True):
            message = writer.type(name)(
                header=writer.header(stamp + lag, FRAME_IDS[camera]),
                format="jpeg",
                data=np.frombuffer(encode_jpeg(picture), np.uint8),
            )
            writer.add(stamp + lag + _RECEIVE_LAG_NS, IMAGE_TOPICS[camera], name, message)
    _episode_event(writer, last + _END_LAG_NS, event.END, episode_id, text)
    writer.write(folder)
    # JSON values are YAML values, so no YAML writer is needed.
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in truth.items()]
    (folder / "truth.yaml").write_text("".join(lines), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ifailsense sim record-bag", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the bag")
    parser.add_argument("--seed", type=int, default=0, help="base seed")
    parser.add_argument("--look", default="mild", help=f"level: {', '.join(LEVELS)}")
    parser.add_argument("--split", default="test", choices=sorted(SPLITS))
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--kind", default="success", choices=KINDS)
    args = parser.parse_args(arguments)
    try:
        look = level_name(args.look)
        world = World()
        with Camera(world) as camera:
            rollout = roll_out(world, args.split, args.index, args.kind, seed=args.seed, look=look)
            write_bag(args.out, rollout, args.kind, camera.pictures(rollout.states))
    except (IFailSenseError, ValueError) as error:
        print(f"ifailsense sim record-bag: {error}", file=sys.stderr)
        return 2
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
