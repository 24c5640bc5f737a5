"""Serialized image messages, in both byte orders, whole, cut and garbled."""

import contextlib
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.core.cdr_pictures import CdrPicture
from ifailsense_ros.core.errors import ImageError

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
PNG = cv2.imencode(".png", RGB[..., ::-1])[1].tobytes()


class Writer:
    """CDR by the book: a field lies at a multiple of its size behind the first four bytes."""

    def __init__(self, order: str = "<") -> None:
        self.order = order
        self.fields = b""

    def number(self, value: int, code: str = "I") -> "Writer":
        packed = struct.pack(self.order + code, value)
        self.fields += bytes(-len(self.fields) % len(packed)) + packed
        return self

    def text(self, value: str) -> "Writer":
        octets = value.encode() + b"\0"
        self.number(len(octets))
        self.fields += octets
        return self

    def octets(self, value: bytes) -> "Writer":
        self.number(len(value))
        self.fields += value
        return self

    def header(self, frame_id: str = "camera") -> "Writer":
        return self.number(-3, "i").number(7).text(frame_id)

    @property
    def message(self) -> bytes:
        return bytes([0, self.order == "<", 0, 0]) + self.fields


def image(order: str = "<", frame_id: str = "camera", data: bytes = RGB.tobytes()) -> bytes:
    writer = Writer(order).header(frame_id).number(2).number(3).text("rgb8").number(0, "B")
    return writer.number(9).octets(data).message


def compressed(data: bytes = PNG) -> bytes:
    return Writer().header().text("png").octets(data).message


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("frame_id", ["", "a", "camera", "Kamera für oben"])
def test_an_image(order, frame_id):
    picture = CdrPicture(image(order, frame_id), compressed=False)
    assert (picture.stamp_ns, picture.frame_id) == (-3 * 10**9 + 7, frame_id)
    picture.check()
    assert picture.decode().tolist() == RGB.tolist()
    assert picture.num_bytes == len(image(order, frame_id))


def test_a_compressed_image():
    picture = CdrPicture(compressed(), compressed=True)
    picture.check()
    assert picture.decode().tolist() == RGB.tolist()


def test_what_ros_serializes():
    pytest.importorskip("rclpy")
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import CompressedImage, Image

    message = Image(height=2, width=3, encoding="rgb8", step=9, data=RGB.tobytes())
    message.header.stamp.sec, message.header.stamp.nanosec = -3, 7
    message.header.frame_id = "camera"
    picture = CdrPicture(serialize_message(message), compressed=False)
    assert (picture.stamp_ns, picture.frame_id) == (-3 * 10**9 + 7, "camera")
    assert picture.decode().tolist() == RGB.tolist()
    message = CompressedImage(format="png", data=PNG)
    picture = CdrPicture(serialize_message(message), compressed=True)
    assert (picture.stamp_ns, picture.frame_id) == (0, "")
    assert picture.decode().tolist() == RGB.tolist()


@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_message_that_is_cut_off_anywhere(is_compressed):
    whole = compressed() if is_compressed else image()
    for length in range(len(whole)):
        with pytest.raises(ImageError, match=r"cut off|without a readable header"):
            CdrPicture(whole[:length], compressed=is_compressed).check()


def test_what_is_plainly_broken_is_found_without_decoding():
    with pytest.raises(ImageError, match="truncated"):
        CdrPicture(image(data=b"abc"), compressed=False).check()
    with pytest.raises(ImageError, match="truncated"):
        CdrPicture(compressed(PNG[:40]), compressed=True).check()


@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_garbage(data, is_compressed, behind_a_header):
    if behind_a_header:
        data = Writer().header().message + data
    with contextlib.suppress(ImageError):
        CdrPicture(data, compressed=is_compressed).decode()
