"""Writes one episode as a rosbag2: what the monitor would have received while it happened."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ifailsense_ros.core.effects import BoundaryKind
from ifailsense_ros.core.episode import POV_NAMES
from ifailsense_ros.data.ros_messages import message_typestore
from ifailsense_ros.data.rosbag import (
    COMPRESSED_TYPE,
    EPISODE_EVENT_TYPE,
    IMAGE_TYPE,
    STRING_TYPE,
    BagTopics,
)

PICTURES = ("jpeg", "png", "raw")
STORAGES = ("mcap", "sqlite3")
JPEG_QUALITY = 95

_TOPICS = BagTopics()


class EpisodeBagWriter:
    """A new rosbag2 folder with the monitor's topics.

    Receive times are the stamps: what is written looks as if it had come without delay.

    Args:
        folder: of the bag; must not exist.
        num_pov: N.
        storage: one of `STORAGES`.
        pictures: one of `PICTURES`; raw is rgb8.
    """

    def __init__(
        self, folder: Path, num_pov: int, *, storage: str = "mcap", pictures: str = "jpeg"
    ) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer

        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        self._store = message_typestore()
        self._writer = Writer(folder, version=9, storage_plugin=plugin)
        self._writer.open()
        self._pictures = pictures
        names = (_TOPICS.exo, _TOPICS.gripper)[:num_pov]
        image_type = IMAGE_TYPE if pictures == "raw" else COMPRESSED_TYPE
        behind = "" if pictures == "raw" else "/compressed"
        self._cameras = [self._topic(f"{name}{behind}", image_type) for name in names]
        self._instruction = self._topic(_TOPICS.instruction, STRING_TYPE, latched=True)
        self._episode = self._topic(_TOPICS.episode, EPISODE_EVENT_TYPE)

    def __enter__(self) -> EpisodeBagWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def instruction(self, receive_ns: int, text: str) -> None:
        """The instruction, as a planner publishes it."""
        self._write(self._instruction, receive_ns, data=text)

    def boundary(
        self, kind: BoundaryKind, stamp_ns: int, receive_ns: int, episode_id: uuid.UUID, text: str
    ) -> None:
        """START, END or ABORT."""
        identifier = self._store.types["unique_identifier_msgs/msg/UUID"](
            np.frombuffer(episode_id.bytes, np.uint8)
        )
        self._write(
            self._episode,
            receive_ns,
            header=self._header(stamp_ns, ""),
            episode_id=identifier,
            event=int(kind),
            instruction=text,
        )

    def views(self, stamp_ns: int, views: tuple[np.ndarray, ...]) -> None:
        """One time step, uint8 RGB (H, W, 3) for each PoV."""
        for name, camera, view in zip(POV_NAMES, self._cameras, views, strict=False):
            header = self._header(stamp_ns, f"{name}_camera_optical_frame")
            if self._pictures == "raw":
                self._write(
                    camera,
                    stamp_ns,
                    header=header,
                    height=view.shape[0],
                    width=view.shape[1],
                    encoding="rgb8",
                    is_bigendian=0,
                    step=view.shape[1] * 3,
                    data=np.ascontiguousarray(view).reshape(-1),
                )
                continue
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if self._pictures == "jpeg" else []
            extension = ".jpg" if self._pictures == "jpeg" else ".png"
            _, data = cv2.imencode(extension, cv2.cvtColor(view, cv2.COLOR_RGB2BGR), quality)
            self._write(
                camera, stamp_ns, header=header, format=self._pictures, data=data.reshape(-1)
            )

    def _topic(self, name: str, msgtype: str, latched: bool = False) -> Any:
        return self._writer.add_connection(
            name, msgtype, typestore=self._store, offered_qos_profiles=[_qos(latched)]
        )

    def _write(self, connection: Any, receive_ns: int, **fields: Any) -> None:
        message = self._store.types[connection.msgtype](**fields)
        data = self._store.serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, receive_ns, bytes(data))

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        time = self._store.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
        return self._store.types["std_msgs/msg/Header"](time, frame_id)


def _qos(latched: bool) -> Any:
    """Reliable; latched ones are kept for those who come later."""
    from rosbags import interfaces as rosbags

    forever = rosbags.QosTime(2**31 - 1, 2**32 - 1)
    return rosbags.Qos(
        history=rosbags.QosHistory.KEEP_LAST,
        depth=1 if latched else 10,
        reliability=rosbags.QosReliability.RELIABLE,
        durability=(
            rosbags.QosDurability.TRANSIENT_LOCAL if latched else rosbags.QosDurability.VOLATILE
        ),
        deadline=forever,
        lifespan=forever,
        liveliness=rosbags.QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )
