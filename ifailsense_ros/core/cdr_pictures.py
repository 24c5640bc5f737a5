"""Serialized sensor_msgs/Image and CompressedImage: header at once, the rest when it is needed.

Of the pictures that arrive most are never looked at, and a message of a megabyte that is made into
Python objects costs more than all else that is done with it. The bytes are CDR, as every ROS
middleware sends them and rosbag2 stores them.
"""

from __future__ import annotations

import struct

import numpy as np

from ifailsense_ros.core.errors import ImageError, text_of
from ifailsense_ros.core.images import (
    Checked,
    check_compressed,
    check_image,
    decode_checked,
    decode_image,
)

_ENCAPSULATION = 4
"""Bytes in front of the fields; the lowest bit of the second says little-endian. Fields are aligned
to their size behind them."""
_HEADERS = {0: struct.Struct(">iII"), 1: struct.Struct("<iII")}
"""std_msgs/Header up to the length of `frame_id`."""


class CdrPicture:
    """A serialized image message.

    Args:
        data: as taken from the middleware.
        compressed: whether it is a CompressedImage.

    Attributes:
        data: the same.
        stamp_ns, frame_id: of its header.

    Raises:
        ImageError: not even a header can be read.
    """

    __slots__ = ("_at", "_checked", "_compressed", "data", "frame_id", "stamp_ns")

    def __init__(self, data: bytes, *, compressed: bool) -> None:
        self.data = data
        self._compressed = compressed
        self._checked: Checked | None = None
        try:
            header = _HEADERS[data[1] & 1]
            seconds, nanoseconds, length = header.unpack_from(data, _ENCAPSULATION)
            text_at = _ENCAPSULATION + header.size
            self._at = text_at + length
            if self._at > len(data):
                raise ValueError("cut off in frame_id")
            self.stamp_ns = seconds * 10**9 + nanoseconds
            self.frame_id = data[text_at : self._at].rstrip(b"\0").decode(errors="replace")
        except (struct.error, IndexError, ValueError) as error:
            what = f"{'CompressedImage' if compressed else 'Image'} of {len(data)} bytes"
            raise ImageError(f"{what} without a readable header: {text_of(error)}") from error

    @property
    def num_bytes(self) -> int:
        """Its size, header included."""
        return len(self.data)

    def check(self) -> None:
        """Raises ImageError if it is plain without decoding that it cannot be decoded."""
        if self._compressed:
            self._checked = check_compressed(*self._compressed_fields())
        else:
            check_image(*self._image_fields())

    def decode(self) -> np.ndarray:
        """uint8 RGB (H, W, 3), possibly a view into `data`; raises ImageError."""
        if self._compressed:
            if self._checked is None:
                self.check()
            return decode_checked(self._checked)
        return decode_image(*self._image_fields())

    def _image_fields(self) -> tuple[int, int, str, int, int, memoryview]:
        """Height, width, encoding, is_bigendian, step, data."""
        fields = _Fields(self.data, self._at)
        height, width = fields.number(), fields.number()
        return height, width, fields.text(), fields.byte(), fields.number(), fields.octets()

    def _compressed_fields(self) -> tuple[str, memoryview]:
        """Format, data."""
        fields = _Fields(self.data, self._at)
        return fields.text(), fields.octets()


class _Fields:
    """Reads the fields of a message one after the other; ImageError where it is cut off."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = memoryview(data)
        self._at = at
        self._order = "little" if data[1] & 1 else "big"

    def number(self) -> int:
        """uint32."""
        self._at += -(self._at - _ENCAPSULATION) % 4
        return int.from_bytes(self._take(4), self._order)

    def byte(self) -> int:
        """uint8."""
        return self._take(1)[0]

    def text(self) -> str:
        """string; its length counts the zero at the end."""
        octets = self._take(self.number())
        return bytes(octets).rstrip(b"\0").decode(errors="replace")

    def octets(self) -> memoryview:
        """uint8[], not copied."""
        return self._take(self.number())

    def _take(self, count: int) -> memoryview:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise ImageError(f"the message is cut off after {len(self._data)} bytes")
        self._at += count
        return taken
