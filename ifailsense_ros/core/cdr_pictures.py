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
_UNPACK = (struct.Struct(">iII").unpack_from, struct.Struct("<iII").unpack_from)
"""std_msgs/Header up to the length of `frame_id`, by byte order."""
_TEXT_AT = _ENCAPSULATION + struct.calcsize("<iII")
"""Where `frame_id` begins."""


class CdrPicture:
    """A serialized image message.

    Args:
        data: as taken from the middleware.
        compressed: whether it is a CompressedImage.

    Attributes:
        data: the same.
        stamp_ns: of its header, nanoseconds.
        num_bytes: its size, header included.

    Raises:
        ImageError: not even a header can be read.
    """

    __slots__ = ("_at", "_checked", "_compressed", "data", "num_bytes", "stamp_ns")

    def __init__(self, data: bytes, *, compressed: bool) -> None:
        self.data = data
        self._compressed = compressed
        self._checked: Checked | None = None
        self.num_bytes = len(data)
        try:
            seconds, nanoseconds, length = _UNPACK[data[1] & 1](data, _ENCAPSULATION)
            self._at = at = _TEXT_AT + length
            if at > self.num_bytes:
                raise ValueError("cut off in frame_id")
            self.stamp_ns = seconds * 1_000_000_000 + nanoseconds
        except (struct.error, IndexError, ValueError) as error:
            what = f"{'CompressedImage' if compressed else 'Image'} of {len(data)} bytes"
            raise ImageError(f"{what} without a readable header: {text_of(error)}") from error

    @property
    def frame_id(self) -> str:
        """Of its header."""
        return self.data[_TEXT_AT : self._at].rstrip(b"\0").decode(errors="replace")

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
