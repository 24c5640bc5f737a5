"""The two seams to parts of a full ROS install: image decoding and camera synchronisation.

`cv_bridge` and `message_filters` are used where they import and work; otherwise our own
`core.cdr_pictures` and `core.pairing` do the same. Everything that knows of the choice is here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np

from ifailsense_ros.core.cdr_pictures import CdrPicture
from ifailsense_ros.core.errors import ConfigError, ImageError
from ifailsense_ros.core.pairing import CLOCK_JUMP, UNMATCHED, ApproximatePairing, Pair
from ifailsense_ros.ros.conversions import to_time

DECODERS = ("auto", "cv_bridge", "builtin")
SYNCHRONIZERS = ("auto", "message_filters", "builtin")

ReadPicture = Callable[[bytes], CdrPicture]
"""A serialized sensor_msgs/Image or CompressedImage to what decodes it; raises ImageError."""


def make_reader(choice: str, *, compressed: bool) -> ReadPicture:
    """Reads pictures that are decoded as the `image_decoder` parameter says.

    Compressed pictures are always decoded by the builtin one: it is the same OpenCV call, with
    truncated and depth pictures refused.

    Raises:
        ConfigError: cv_bridge was asked for and does not work here.
    """
    if not compressed and choice in ("auto", "cv_bridge"):
        try:
            convert = _cv_bridge()
            return lambda data: _BridgePicture(data, convert)
        except Exception as error:  # built for NumPy 1, it fails with whatever it likes
            if choice == "cv_bridge":
                raise ConfigError(
                    f"parameter image_decoder: cv_bridge does not work here "
                    f"({' '.join(str(error).split())}); use builtin"
                ) from error
    return partial(CdrPicture, compressed=compressed)


class _BridgePicture(CdrPicture):
    """A raw picture that cv_bridge converts; what it cannot convert, it alone knows."""

    __slots__ = ("_convert",)

    def __init__(self, data: bytes, convert: Callable[[Any, str], np.ndarray]) -> None:
        super().__init__(data, compressed=False)
        self._convert = convert

    def check(self) -> None:
        """See `CdrPicture`."""

    def decode(self) -> np.ndarray:
        """See `CdrPicture`."""
        from rclpy.serialization import deserialize_message
        from sensor_msgs.msg import Image

        try:
            return self._convert(deserialize_message(self.data, Image), "rgb8")
        except Exception as error:
            raise ImageError(f"cv_bridge: {' '.join(str(error).split())}") from error


def _cv_bridge() -> Callable[[Any, str], np.ndarray]:
    from cv_bridge import CvBridge
    from sensor_msgs.msg import Image

    bridge = CvBridge()
    # Importing is no proof: try it once on a pixel before trusting it with the cameras.
    pixel = Image(height=1, width=1, encoding="bgr8", step=3, data=[1, 2, 3])
    if bridge.imgmsg_to_cv2(pixel, "rgb8").tolist() != [[[3, 2, 1]]]:
        raise ImportError("it does not convert bgr8 to rgb8")
    return bridge.imgmsg_to_cv2


class Synchronizer(Protocol):
    """Pairs the messages of the cameras."""

    def add(self, stream: str, stamp_ns: int, message: Any) -> list[Pair]:
        """Take a message; returns the pairs that it completes."""

    def dropped(self, stream: str) -> dict[str, int]:
        """Messages that found no partner, by reason."""

    def waiting(self, stream: str) -> int:
        """Messages that wait for a partner."""

    def reset(self) -> None:
        """Time has jumped back."""

    def give_up_waiting(self) -> None:
        """The cameras have gone silent."""


def make_synchronizer(
    choice: str, cameras: Sequence[str], slop_ns: int, queue_size: int
) -> Synchronizer:
    """The synchroniser of the `synchronizer` parameter.

    Raises:
        ConfigError: message_filters was asked for and cannot be imported.
    """
    # One camera needs no partner.
    if choice in ("auto", "message_filters") and len(cameras) > 1:
        try:
            return MessageFiltersSynchronizer(cameras, slop_ns, queue_size)
        except ImportError as error:
            if choice == "message_filters":
                raise ConfigError(
                    f"parameter synchronizer: message_filters cannot be imported ({error}); "
                    "install ros-<distro>-message-filters or use builtin"
                ) from error
    return ApproximatePairing(cameras, slop_ns, queue_size)


class MessageFiltersSynchronizer:
    """message_filters.ApproximateTimeSynchronizer, fed by hand.

    It calls back under a lock that an exception would leave locked for good, so its callback only
    appends; and it never recovers from a jump back in time, so `reset` makes a new one. It does
    not say what it drops: all that is neither paired nor waiting counts as unmatched.
    """

    def __init__(self, cameras: Sequence[str], slop_ns: int, queue_size: int) -> None:
        self._cameras = tuple(cameras)
        self._slop_ns = slop_ns
        self._queue_size = queue_size
        self._matched: list[tuple[Any, ...]] = []
        self._received: Counter[str] = Counter()
        self._paired = 0
        self._given_up: dict[str, Counter[str]] = {camera: Counter() for camera in cameras}
        self._make()

    def _make(self) -> None:
        import message_filters

        self._filters = {camera: message_filters.SimpleFilter() for camera in self._cameras}
        self._sync = message_filters.ApproximateTimeSynchronizer(
            list(self._filters.values()), self._queue_size, self._slop_ns / 1e9
        )
        self._sync.registerCallback(lambda *messages: self._matched.append(messages))

    def add(self, stream: str, stamp_ns: int, message: Any) -> list[Pair]:
        """See `Synchronizer`."""
        self._received[stream] += 1
        header = SimpleNamespace(stamp=to_time(stamp_ns))
        self._filters[stream].signalMessage(
            SimpleNamespace(header=header, stamp_ns=stamp_ns, message=message)
        )
        pairs = []
        for matched in self._matched:
            stamps = tuple(m.stamp_ns for m in matched)
            pairs.append(Pair(stamps[0], stamps, tuple(m.message for m in matched)))
        self._matched.clear()
        self._paired += len(pairs)
        return pairs

    def dropped(self, stream: str) -> dict[str, int]:
        """See `Synchronizer`."""
        counts = Counter(self._given_up[stream])
        counts[UNMATCHED] += (
            self._received[stream] - self._paired - self.waiting(stream) - counts.total()
        )
        return {reason: count for reason, count in counts.items() if count}

    def waiting(self, stream: str) -> int:
        """See `Synchronizer`."""
        return len(self._sync.queues[self._cameras.index(stream)])

    def reset(self) -> None:
        """See `Synchronizer`."""
        for camera in self._cameras:
            self._given_up[camera][CLOCK_JUMP] += self.waiting(camera)
        self._make()

    def give_up_waiting(self) -> None:
        """See `Synchronizer`."""
        if any(self.waiting(camera) for camera in self._cameras):
            self._make()
