"""Image messages of a bag: their headers at once, the rest when it is needed.

Most pictures of a bag are never looked at.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from ifailsense_ros.core.errors import BagError, ImageError
from ifailsense_ros.core.images import (
    check_compressed,
    check_image,
    decode_compressed,
    decode_image,
)

if TYPE_CHECKING:
    from ifailsense_ros.data.rosbag import Bag, RawMessage


class BagPicture:
    """An image message, deserialized when it is first needed.

    Args:
        bag: deserializes it.
        raw: as recorded; a sensor_msgs/CompressedImage or Image.
    """

    __slots__ = ("_arguments", "_bag", "_raw")

    def __init__(self, bag: Bag, raw: RawMessage) -> None:
        self._bag, self._raw = bag, raw
        self._arguments: tuple[Any, ...] | None = None

    def decode(self) -> np.ndarray:
        """uint8 RGB (H, W, 3); raises ImageError."""
        arguments = self._fields()
        if self._is_compressed:
            return decode_compressed(*arguments)
        return decode_image(*arguments)

    def check(self) -> None:
        """Raises ImageError if it is plain without decoding that it cannot be decoded."""
        arguments = self._fields()
        if self._is_compressed:
            check_compressed(*arguments)
        else:
            check_image(*arguments)

    @property
    def _is_compressed(self) -> bool:
        return self._raw.msgtype.endswith("/CompressedImage")

    def _fields(self) -> tuple[Any, ...]:
        if self._arguments is None:
            try:
                m = self._bag.deserialize(self._raw)
            except BagError as error:
                raise ImageError(str(error)) from error
            if self._is_compressed:
                self._arguments = (m.format, m.data)
            else:
                sizes = (m.height, m.width, m.encoding, m.is_bigendian, m.step)
                self._arguments = (*sizes, m.data)
        return self._arguments


_HEADERS = {0: struct.Struct(">iII"), 1: struct.Struct("<iII")}
"""std_msgs/Header up to the length of `frame_id`, by the byte order that CDR's first bytes name."""


def cdr_header(data: bytes) -> tuple[int, str]:
    """Stamp in nanoseconds and frame_id of a serialized message that begins with a Header.

    Raises:
        struct.error, IndexError, UnicodeDecodeError: the bytes are no such message.
    """
    seconds, nanoseconds, length = _HEADERS[data[1] & 1].unpack_from(data, 4)
    end = 16 + length
    if end > len(data):
        raise struct.error("cut off in frame_id")
    return seconds * 10**9 + nanoseconds, data[16 : max(16, end - 1)].decode()
