"""The image decoder: every encoding against hand-made pixels and against rosbags-image."""

from __future__ import annotations

import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.core.errors import ImageError
from ifailsense_ros.core.images import SUPPORTED_ENCODINGS, decode_compressed, decode_image

RED = np.array([200, 30, 10], np.uint8)
RNG = np.random.default_rng(0)


def _picture(height: int = 6, width: int = 8) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _pad(rows: np.ndarray, padding: int) -> bytes:
    """Rows with `padding` bytes of rubbish behind each."""
    flat = np.ascontiguousarray(rows).reshape(rows.shape[0], -1).view(np.uint8)
    rubbish = np.full((rows.shape[0], padding), 0xAB, np.uint8)
    return np.hstack([flat, rubbish]).tobytes()


def _encode(rgb: np.ndarray, encoding: str) -> np.ndarray:
    """The same picture in another layout, (H, W, C)."""
    alpha = np.full((*rgb.shape[:2], 1), 77, np.uint8)
    return {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "8UC3": rgb[..., ::-1],
        "rgba8": np.concatenate([rgb, alpha], 2),
        "bgra8": np.concatenate([rgb[..., ::-1], alpha], 2),
        "8UC4": np.concatenate([rgb[..., ::-1], alpha], 2),
    }[encoding]


@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "8UC3", "8UC4"])
def test_colour_is_exact_whatever_the_padding(encoding: str, padding: int) -> None:
    rgb = _picture()
    pixels = _encode(rgb, encoding)
    step = pixels.shape[1] * pixels.shape[2] + padding
    out = decode_image(6, 8, encoding, 0, step, _pad(pixels, padding))
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, rgb)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_is_repeated_on_three_channels(encoding: str, padding: int) -> None:
    grey = _picture()[..., :1]
    out = decode_image(6, 8, encoding, 0, 8 + padding, _pad(grey, padding))
    np.testing.assert_array_equal(out, np.repeat(grey, 3, 2))


@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("encoding", ["mono16", "rgb16", "bgr16", "rgba16", "bgra16"])
def test_sixteen_bits_in_both_byte_orders(encoding: str, is_bigendian: int) -> None:
    rgb = _picture()
    if encoding == "mono16":
        rgb = np.repeat(rgb[..., :1], 3, 2)
        pixels = rgb[..., :1]
    else:
        pixels = _encode(rgb, encoding.replace("16", "8"))
    wide = (pixels.astype(np.uint16) * 257).astype(">u2" if is_bigendian else "<u2")
    # An odd step: rows that start at odd addresses.
    step = wide.shape[1] * wide.shape[2] * 2 + 3
    out = decode_image(6, 8, encoding, is_bigendian, step, _pad(wide, 3))
    np.testing.assert_array_equal(out, rgb)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_of_one_colour_gives_that_colour(pattern: str, bits: int) -> None:
    mosaic = np.zeros((6, 8), np.uint16)
    for i, letter in enumerate(pattern):
        mosaic[i // 2 :: 2, i % 2 :: 2] = RED["rgb".index(letter)]
    data = mosaic.astype(np.uint8) if bits == 8 else mosaic * 257
    out = decode_image(6, 8, f"bayer_{pattern}{bits}", 0, 8 * bits // 8 + 2, _pad(data, 2))
    np.testing.assert_array_equal(out, np.broadcast_to(RED, (6, 8, 3)))


@pytest.mark.parametrize("encoding", ["uyvy", "yuv422", "yuyv", "yuv422_yuy2"])
def test_yuv_of_one_colour_gives_that_colour(encoding: str) -> None:
    # BT.601, limited range: Y, U, V of RED worked out by hand from the standard's matrix.
    r, g, b = (float(c) for c in RED)
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    order = (u, y, v, y) if encoding in ("uyvy", "yuv422") else (y, u, y, v)
    row = np.tile(np.round(order).astype(np.uint8), 4)
    data = _pad(np.tile(row, (6, 1)), 3)
    out = decode_image(6, 8, encoding, 0, 16 + 3, data)
    assert np.abs(out.astype(int) - RED).max() <= 3


_PEER_NAMES = sorted(set(SUPPORTED_ENCODINGS) - {"8uc1", "8uc3", "8uc4"})


@pytest.mark.parametrize("encoding", _PEER_NAMES)
def test_agrees_with_rosbags_image(encoding: str) -> None:
    """An independent decoder; it ignores `step`, so rows are not padded here."""
    peer = pytest.importorskip("rosbags.image")
    channels = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}.get(encoding.rstrip("0123456789"), 1)
    bytes_per_pixel = channels * (2 if encoding.endswith("16") else 1)
    if encoding.startswith(("yuv", "uyvy", "yuyv")):
        bytes_per_pixel = 2
    step = 8 * bytes_per_pixel
    data = RNG.integers(0, 256, 6 * step, dtype=np.uint8)
    out = decode_image(6, 8, encoding, 0, step, data)
    message = SimpleNamespace(height=6, width=8, encoding=encoding, is_bigendian=0, data=data)
    try:
        expected = peer.message_to_cvimage(message, "rgb8")
    except Exception as error:  # whatever it raises, it offers no comparison for this encoding
        pytest.skip(f"rosbags-image cannot: {error}")
    tolerance = 1 if encoding.endswith("16") else 0  # it truncates, we round
    assert np.abs(out.astype(int) - expected).max() <= tolerance


def test_rgb8_is_not_copied() -> None:
    for data in (array.array("B", bytes(144)), bytearray(144), np.zeros(144, np.uint8)):
        out = decode_image(6, 8, "rgb8", 0, 24, data)
        data[0] = 9
        assert out[0, 0, 0] == 9
        assert np.shares_memory(out, np.frombuffer(data, np.uint8))


def test_last_row_may_lack_its_padding() -> None:
    rgb = _picture()
    np.testing.assert_array_equal(
        decode_image(6, 8, "rgb8", 0, 30, memoryview(_pad(rgb, 6))[:-6]), rgb
    )


@pytest.mark.parametrize(
    ("height", "width", "encoding", "step", "size", "says"),
    [
        (6, 8, "rgb8", 24, 143, "truncated"),
        (6, 8, "rgb8", 24, 0, "truncated"),
        (6, 8, "rgb8", 23, 144, "step is 23"),
        (0, 8, "rgb8", 24, 0, "sides must be"),
        (6, 0, "rgb8", 0, 0, "sides must be"),
        (6, 8, "16UC1", 16, 96, "depth"),
        (6, 8, "32FC1", 32, 192, "depth"),
        (6, 8, "nv12", 8, 72, "unknown encoding 'nv12'"),
        (6, 8, "", 8, 72, "unknown encoding ''"),
        (6, 7, "uyvy", 14, 84, "divisible"),
        (5, 8, "bayer_rggb8", 8, 40, "divisible"),
        (2, 2, "bayer_rggb8", 2, 4, "at least 4"),
        (1 << 31, 1 << 31, "mono8", 1 << 31, 10, "sides must be"),
    ],
)
def test_what_cannot_be_decoded_is_said_in_one_line(
    height: int, width: int, encoding: str, step: int, size: int, says: str
) -> None:
    with pytest.raises(ImageError, match=says) as caught:
        decode_image(height, width, encoding, 0, step, bytes(size))
    assert "\n" not in str(caught.value)


@given(
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from([*SUPPORTED_ENCODINGS, "16UC1", "nonsense"]),
    st.integers(0, 1),
    st.integers(0, 80),
    st.binary(max_size=700),
)
def test_only_image_error_leaves_decode_image(
    height: int, width: int, encoding: str, is_bigendian: int, step: int, data: bytes
) -> None:
    try:
        out = decode_image(height, width, encoding, is_bigendian, step, data)
    except ImageError:
        return
    assert out.shape == (height, width, 3)
    assert out.dtype == np.uint8


def _jpeg(rgb: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def _png(rgb: np.ndarray) -> bytes:
    return cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()


FLAT = np.full((40, 32, 3), RED, np.uint8)


@pytest.mark.parametrize("format", ["jpeg", "jpg", "", "rgb8; jpeg compressed bgr8", "JPEG"])
def test_jpeg(format: str) -> None:
    out = decode_compressed(format, _jpeg(FLAT))
    assert out.shape == FLAT.shape
    assert np.abs(out.astype(int) - RED).max() <= 4


def test_png_is_exact_and_alpha_dropped() -> None:
    rgb = _picture(20, 30)
    np.testing.assert_array_equal(decode_compressed("png", _png(rgb)), rgb)
    rgba = np.dstack([rgb[..., ::-1], np.full((20, 30), 9, np.uint8)])
    data = cv2.imencode(".png", rgba)[1].tobytes()
    np.testing.assert_array_equal(decode_compressed("bgra8; png compressed bgra8", data), rgb)


def test_channels_that_were_never_turned_are_left_alone() -> None:
    """`compressed rgb8`: the sender handed RGB to OpenCV as if it were BGR."""
    data = cv2.imencode(".png", FLAT)[1].tobytes()
    np.testing.assert_array_equal(decode_compressed("rgb8; png compressed rgb8", data), FLAT)


def test_padding_behind_the_end_marker_of_a_jpeg() -> None:
    assert decode_compressed("jpeg", _jpeg(FLAT) + bytes(100)).shape == FLAT.shape


@pytest.mark.parametrize(
    ("format", "data", "says"),
    [
        ("16UC1; compressedDepth png", _png(FLAT), "depth"),
        ("32FC1; compressedDepth", b"", "depth"),
        ("16UC1; png compressed ", _png(FLAT), "depth"),
        ("jpeg", b"", "neither"),
        ("h264", b"\x00\x00\x00\x01\x67" * 9, "neither JPEG nor PNG"),
        ("png", _png(_picture(20, 30))[:-30], "truncated"),
        ("png", _png(_picture(20, 30))[:40] + b"IEND", "damaged"),
        ("jpeg", b"\xff\xd8\xff\xdb" + bytes(40) + b"\xff\xd9", "corrupt"),
    ],
)
def test_compressed_that_cannot_be_decoded(format: str, data: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=says) as caught:
        decode_compressed(format, data)
    assert "\n" not in str(caught.value)


def test_every_truncation_of_a_jpeg_is_noticed() -> None:
    """OpenCV alone would hand over a picture whose lower part is grey."""
    data = _jpeg(_picture(40, 32))
    for size in range(0, len(data) - 2, 37):
        with pytest.raises(ImageError):
            decode_compressed("jpeg", data[:size])


@given(
    st.sampled_from(["jpeg", "png", "rgb8; jpeg compressed bgr8", ";", "x"]),
    st.sampled_from([_jpeg(FLAT), _png(FLAT), b""]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    st.integers(0, 2000),
)
def test_only_image_error_leaves_decode_compressed(
    format: str, data: bytes, flips: list[tuple[int, int]], cut: int
) -> None:
    broken = bytearray(data)
    for at, value in flips:
        # The sides of the picture are left alone: huge ones would only test the allocator.
        if at < len(broken) and not (16 <= at < 24 or 150 < at < 180):
            broken[at] = value
    try:
        out = decode_compressed(format, bytes(broken[: max(cut, 0)]))
    except ImageError:
        return
    assert out.ndim == 3
    assert out.shape[2] == 3
    assert out.dtype == np.uint8


def test_data_that_are_no_bytes() -> None:
    with pytest.raises(ImageError, match="not bytes"):
        decode_image(1, 1, "mono8", 0, 1, "x")


def test_a_picture_that_claims_gigabytes_is_refused_before_it_is_decoded() -> None:
    small = np.zeros((8, 8, 3), np.uint8)
    jpeg = bytearray(cv2.imencode(".jpg", small)[1].tobytes())
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xf0" * 2
    with pytest.raises(ImageError, match="says it is 65520x65520 pixels"):
        decode_compressed("jpeg", bytes(jpeg))
    png = bytearray(cv2.imencode(".png", small)[1].tobytes())
    size = bytes(png[16:24])
    png[16:24] = (20_000).to_bytes(4, "big") * 2
    with pytest.raises(ImageError, match="says it is 20000x20000 pixels"):
        decode_compressed("png", bytes(png))
    png[16:24] = size
    png[33:37] = (2**31 - 1).to_bytes(4, "big")  # the length of the first chunk of pixels
    with pytest.raises(ImageError, match="a chunk of 2147483647 bytes in"):
        decode_compressed("png", bytes(png))
