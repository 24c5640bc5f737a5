"""Image messages to RGB pictures, without ROS: sensor_msgs/Image and CompressedImage fields in.

Used where cv_bridge is missing or broken (it fails with NumPy 2, which a pip torch brings), and
for bags. Nothing but `ImageError` leaves these functions, whatever the bytes are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np

from ifailsense_ros.core.errors import ImageError, text_of
from ifailsense_ros.core.picture_size import why_not_decodable

_Convert = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Encoding:
    """How one encoding lies in memory: `channels` values of `dtype` per pixel, then `to_rgb`."""

    channels: int
    to_rgb: _Convert
    dtype: type = np.uint8
    # Rows and columns come in blocks of this: a Bayer pattern, two pixels that share colour.
    multiple: tuple[int, int] = (1, 1)
    # OpenCV leaves Bayer pictures below this black, without a word.
    smallest: int = 1


def _cvt(code: int) -> _Convert:
    return lambda image: cv2.cvtColor(image, code)


def _from_gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)


def _bayer(code: int) -> _Convert:
    # OpenCV names a pattern by its second row, ROS by its first: the codes look crossed.
    return lambda image: cv2.cvtColor(image[:, :, 0], code)


def _sixteen(to_rgb: _Convert) -> _Convert:
    """To 8 bits first; 65535 becomes 255."""
    return lambda image: to_rgb(((image.astype(np.uint32) + 128) // 257).astype(np.uint8))


_BAYER_CODES = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
_UYVY = _Encoding(2, _cvt(cv2.COLOR_YUV2RGB_UYVY), multiple=(1, 2))
_YUYV = _Encoding(2, _cvt(cv2.COLOR_YUV2RGB_YUYV), multiple=(1, 2))
_ENCODINGS = {
    "rgb8": _Encoding(3, lambda image: image),
    "bgr8": _Encoding(3, _cvt(cv2.COLOR_BGR2RGB)),
    "rgba8": _Encoding(4, _cvt(cv2.COLOR_RGBA2RGB)),
    "bgra8": _Encoding(4, _cvt(cv2.COLOR_BGRA2RGB)),
    "mono8": _Encoding(1, _from_gray),
    # The names of OpenCV types say nothing of colour; OpenCV's own order is meant.
    "8uc1": _Encoding(1, _from_gray),
    "8uc3": _Encoding(3, _cvt(cv2.COLOR_BGR2RGB)),
    "8uc4": _Encoding(4, _cvt(cv2.COLOR_BGRA2RGB)),
    "rgb16": _Encoding(3, _sixteen(lambda image: image), np.uint16),
    "bgr16": _Encoding(3, _sixteen(_cvt(cv2.COLOR_BGR2RGB)), np.uint16),
    "rgba16": _Encoding(4, _sixteen(_cvt(cv2.COLOR_RGBA2RGB)), np.uint16),
    "bgra16": _Encoding(4, _sixteen(_cvt(cv2.COLOR_BGRA2RGB)), np.uint16),
    "mono16": _Encoding(1, _sixteen(_from_gray), np.uint16),
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    **{
        f"bayer_{pattern}8": _Encoding(1, _bayer(code), multiple=(2, 2), smallest=4)
        for pattern, code in _BAYER_CODES.items()
    },
    **{
        f"bayer_{pattern}16": _Encoding(1, _sixteen(_bayer(code)), np.uint16, (2, 2), smallest=4)
        for pattern, code in _BAYER_CODES.items()
    },
}
_DEPTH = {"16uc1", "16sc1", "32fc1", "64fc1", "32sc1"}
SUPPORTED_ENCODINGS = tuple(sorted(_ENCODINGS))
"""Encodings that `decode_image` takes, in lower case; the check ignores case."""

_MAX_SIDE = 1 << 15


def decode_image(
    height: int, width: int, encoding: str, is_bigendian: int, step: int, data: Any
) -> np.ndarray:
    """The pixels of a sensor_msgs/Image.

    Args:
        height: rows.
        width: pixels per row.
        encoding: of sensor_msgs' image_encodings, see `SUPPORTED_ENCODINGS`.
        is_bigendian: byte order of 16-bit encodings.
        step: bytes per row, padding included.
        data: bytes, memoryview, array.array or uint8 array of `step * height` bytes (the last
            row's padding may be missing). Not copied unless the encoding needs it.

    Returns:
        uint8 RGB (height, width, 3). For rgb8 a view into `data`, possibly read-only.

    Raises:
        ImageError: depth, unknown encoding, sizes that do not fit together, truncated data.
    """
    what, layout, pixels = _pixels(height, width, encoding, is_bigendian, step, data)
    try:
        return layout.to_rgb(pixels)
    except cv2.error as error:
        raise ImageError(f"{what}: cannot be converted: {text_of(error)}") from error


def check_image(
    height: int, width: int, encoding: str, is_bigendian: int, step: int, data: Any
) -> None:
    """What `decode_image` finds wrong without looking at the pixels; raises as it does."""
    _pixels(height, width, encoding, is_bigendian, step, data)


def _pixels(
    height: int, width: int, encoding: str, is_bigendian: int, step: int, data: Any
) -> tuple[str, _Encoding, np.ndarray]:
    """Name for errors, layout, and the pixels as they lie in memory."""
    name = str(encoding).strip().lower()
    layout = _ENCODINGS.get(name)
    if layout is None:
        raise ImageError(_why_refused(str(encoding)))
    what = f"{name} image of {width}x{height}"
    if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
        raise ImageError(f"{what}: sides must be 1..{_MAX_SIDE}: check the camera driver")
    rows, columns = layout.multiple
    if height % rows or width % columns or min(height, width) < layout.smallest:
        raise ImageError(
            f"{what}: this encoding needs a height divisible by {rows}, a width divisible by "
            f"{columns}, and both at least {layout.smallest}: check the camera driver"
        )
    item = np.dtype(layout.dtype).itemsize
    row_bytes = width * layout.channels * item
    if step < row_bytes:
        raise ImageError(
            f"{what}: step is {step} bytes, a row needs {row_bytes}: check the camera driver"
        )
    raw = _as_bytes(data, what)
    needed = step * (height - 1) + row_bytes
    if raw.size < needed:
        raise ImageError(
            f"{what}: truncated, {raw.size} bytes of data where {needed} are needed: check the "
            "camera driver or the transport"
        )
    # Strided and not reshaped: padding behind each row, and a step that is no multiple of the
    # pixel, stay out without a copy.
    pixels = np.lib.stride_tricks.as_strided(
        raw, (height, row_bytes), (step, 1), writeable=raw.flags.writeable
    )
    if item == 2:
        order = ">u2" if is_bigendian else "<u2"
        pixels = np.ascontiguousarray(pixels).view(order)
    return what, layout, pixels.reshape(height, width, layout.channels)


def decode_compressed(format: str, data: Any) -> np.ndarray:
    """The pixels of a sensor_msgs/CompressedImage holding JPEG or PNG.

    Args:
        format: the message's field: "jpeg", "png", or as image_transport writes it,
            "rgb8; jpeg compressed bgr8". What the data are is told by the data themselves.
        data: bytes, memoryview, array.array or uint8 array.

    Returns:
        uint8 RGB (H, W, 3); alpha is dropped, an EXIF rotation is not applied (as ROS does).

    Raises:
        ImageError: depth (`compressedDepth`, or 16UC1/32FC1 in a PNG), neither JPEG nor PNG,
            truncated or corrupt data, or data that claim an absurd size.
    """
    return decode_checked(check_compressed(format, data))


def decode_checked(checked: Checked) -> np.ndarray:
    """As `decode_compressed`, of what `check_compressed` gave."""
    what, transport, raw = checked
    try:
        image = cv2.imdecode(raw, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"{what}: cannot be decoded: {text_of(error)}") from error
    if image is None:
        raise ImageError(f"{what}: corrupt ({raw.size} bytes): check the camera or the transport")
    if "compressed rgb" in transport:
        # Written without the change to OpenCV's channel order, so the array is RGB as it stands.
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


Checked: TypeAlias = tuple[str, str, np.ndarray]
"""Name for errors, transport of `format`, and the bytes of a whole JPEG or PNG."""


def check_compressed(format: str, data: Any) -> Checked:
    """What `decode_compressed` finds wrong without decoding; raises as it does."""
    what = f"compressed image of format {format!r}"
    lower = str(format).lower()
    original, _, transport = lower.partition(";")
    if "compresseddepth" in lower or original.strip() in _DEPTH:
        raise ImageError(f"{what}: depth, which the detector cannot see: remap a colour camera")
    raw = _as_bytes(data, what)
    view = raw.data
    head, end = bytes(view[:8]), bytes(view[-2:])
    if head.startswith(b"\xff\xd8\xff"):
        # OpenCV fills up a truncated JPEG with grey and says nothing. Some cameras pad behind
        # the end marker, so it need not be the last thing.
        complete = end == b"\xff\xd9" or b"\xff\xd9" in bytes(view[-4096:])
    elif head == b"\x89PNG\r\n\x1a\n":
        complete = b"IEND" in bytes(view[-4096:])
    else:
        raise ImageError(
            f"{what}: the data ({raw.size} bytes) are neither JPEG nor PNG: set the camera to one "
            "of them, or use image_transport raw"
        )
    if not complete:
        raise ImageError(f"{what}: truncated after {raw.size} bytes: check the transport")
    if reason := why_not_decodable(view):
        raise ImageError(f"{what}: {reason}: check the camera or the transport")
    return what, transport, raw


def _as_bytes(data: Any, what: str) -> np.ndarray:
    """The data as a flat uint8 array, without a copy where they lie in one piece."""
    try:
        if isinstance(data, np.ndarray):
            return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        view = memoryview(data)
        # NumPy 1 refuses empty buffers.
        return np.frombuffer(view, np.uint8) if view.nbytes else np.empty(0, np.uint8)
    except (TypeError, ValueError, BufferError):
        raise ImageError(f"{what}: the data are a {type(data).__name__}, not bytes") from None


def _why_refused(encoding: str) -> str:
    if encoding.strip().lower() in _DEPTH:
        return (
            f"encoding {encoding!r} is depth, which the detector cannot see: remap a colour camera"
        )
    return (
        f"unknown encoding {encoding!r}: set the camera to one of {', '.join(SUPPORTED_ENCODINGS)}"
    )
