"""The seams to cv_bridge and message_filters, with and without them installed."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

import cv2
import ros_peer
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage

from ifailsense_ros.core.errors import ConfigError, ImageError
from ifailsense_ros.core.pairing import ApproximatePairing
from ifailsense_ros.ros.image_source import (
    MessageFiltersSynchronizer,
    make_reader,
    make_synchronizer,
)

MS = 1_000_000
CAMERAS = ("exo", "gripper")


@pytest.fixture
def no_cv_bridge(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)


@pytest.fixture
def no_message_filters(monkeypatch):
    monkeypatch.setitem(sys.modules, "message_filters", None)


def fake_cv_bridge(monkeypatch, convert):
    module = ModuleType("cv_bridge")
    module.CvBridge = lambda: SimpleNamespace(imgmsg_to_cv2=convert)
    monkeypatch.setitem(sys.modules, "cv_bridge", module)


def make_image(level, **fields):
    return serialize_message(ros_peer.make_image(level, **fields))


def test_auto_decodes_without_cv_bridge(no_cv_bridge):
    read = make_reader("auto", compressed=False)
    assert read(make_image(9)).decode().tolist() == np.full((24, 32, 3), 9).tolist()


def test_cv_bridge_asked_for_but_missing(no_cv_bridge):
    with pytest.raises(ConfigError, match="image_decoder: cv_bridge does not work here"):
        make_reader("cv_bridge", compressed=False)


def test_a_cv_bridge_that_fails_with_numpy_2_is_not_used(monkeypatch):
    def convert(message, encoding):
        raise AttributeError("_ARRAY_API not found")

    fake_cv_bridge(monkeypatch, convert)
    assert make_reader("auto", compressed=False)(make_image(9)).decode().mean() == 9
    with pytest.raises(ConfigError, match="_ARRAY_API not found"):
        make_reader("cv_bridge", compressed=False)


def test_a_working_cv_bridge_is_used(monkeypatch):
    def convert(message, encoding):
        if message.encoding == "odd":
            raise RuntimeError("Unrecognized\nimage encoding")
        data = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        return data[:, :, ::-1] if message.encoding == "bgr8" else data + 1

    fake_cv_bridge(monkeypatch, convert)
    read = make_reader("auto", compressed=False)
    assert read(make_image(9)).decode().mean() == 10
    odd = read(make_image(9, encoding="odd"))
    odd.check()  # what cv_bridge knows is not told in advance
    with pytest.raises(ImageError, match="cv_bridge: Unrecognized image encoding"):
        odd.decode()
    assert make_reader("builtin", compressed=False)(make_image(9)).decode().mean() == 9


def test_compressed_pictures():
    png = cv2.imencode(".png", np.full((4, 5, 3), (1, 2, 3), np.uint8))[1]
    message = CompressedImage(format="png", data=png.tobytes())
    picture = make_reader("auto", compressed=True)(serialize_message(message)).decode()
    assert picture.shape == (4, 5, 3)
    assert picture[0, 0].tolist() == [3, 2, 1]


def test_auto_synchronises_without_message_filters(no_message_filters):
    assert isinstance(make_synchronizer("auto", CAMERAS, 50 * MS, 10), ApproximatePairing)


def test_message_filters_asked_for_but_missing(no_message_filters):
    with pytest.raises(ConfigError, match="synchronizer: message_filters cannot be imported"):
        make_synchronizer("message_filters", CAMERAS, 50 * MS, 10)


def test_one_camera_needs_no_synchroniser():
    assert isinstance(make_synchronizer("auto", ("exo",), 0, 10), ApproximatePairing)


def test_message_filters_behind_the_seam():
    """Run with upstream's message_filters on PYTHONPATH where no ROS install has it."""
    pytest.importorskip("message_filters")
    sync = make_synchronizer("auto", CAMERAS, 20 * MS, 3)
    assert isinstance(sync, MessageFiltersSynchronizer)
    pairs = []
    for i in range(5):
        for camera, phase in zip(CAMERAS, (0, 5), strict=True):
            stamp = (1000 + 100 * i + phase) * MS
            pairs += sync.add(camera, stamp, f"{camera} {i}")
    assert pairs[1].messages == ("exo 1", "gripper 1")
    assert [p.stamps_ns for p in pairs] == [
        ((1000 + 100 * i) * MS, (1005 + 100 * i) * MS) for i in range(5)
    ]
    for i in range(5):
        assert sync.add("exo", (2000 + 100 * i) * MS, "a picture") == []
    assert (sync.waiting("exo"), sync.dropped("exo")) == (3, {"unmatched": 2})
    sync.reset()
    assert sync.dropped("exo") == {"clock_jump": 3, "unmatched": 2}
    # After a reset time may start anew; message_filters itself never recovers from that.
    sync.add("exo", 10 * MS, "a picture")
    assert len(sync.add("gripper", 10 * MS, "a picture")) == 1
    sync.add("exo", 500 * MS, "a picture")
    sync.give_up_waiting()
    assert sync.dropped("exo") == {"clock_jump": 3, "unmatched": 3}
    assert sync.waiting("exo") == 0
