"""Frames come by their time, whatever the codec's order of frames and distance of key frames."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.video import CODECS, VideoWriter, read_frames

pytest.importorskip("av")
COUNT, FPS = 120, 10


@pytest.fixture(scope="module", params=["h264", "av1", "reordered"])
def video(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    picture_numbers: tuple[Callable, Callable],
) -> Path:
    """120 numbered pictures at 10 Hz; "reordered" has B-frames and key frames far apart."""
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    codec = request.param
    with pytest.MonkeyPatch.context() as patch:
        if codec == "reordered":
            codec = "h264"
            patch.setitem(CODECS, codec, ("libx264", {"bf": "3", "g": "50", "crf": "18"}))
        with VideoWriter(path, FPS, (32, 64), codec) as writer:
            for number in range(COUNT):
                writer.add(picture_numbers[0](number))
        assert len(writer) == COUNT
        writer.close()  # again
    return path


@settings(max_examples=20)
@given(numbers=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=6))
def test_frames_are_those_of_their_times(
    video: Path, picture_numbers: tuple[Callable, Callable], numbers: list[int]
) -> None:
    _, number_of = picture_numbers
    frames = read_frames(video, [n / FPS for n in numbers], 0.45 / FPS)
    assert [number_of(frame) for frame in frames] == numbers
    assert {frame.shape for frame in frames} == {(32, 64, 3)}


def test_time_without_a_frame(video: Path) -> None:
    for time_s in (COUNT / FPS, 1e4, 3.05, -0.1):
        with pytest.raises(DataError, match=rf"no frame at {time_s:.3f} s") as caught:
            read_frames(video, [0.0, time_s], 0.4 / FPS, "episode 3")
        assert str(caught.value).startswith(f"{video}: episode 3: ")


def test_pictures_of_odd_size_and_odd_rate(
    tmp_path: Path, picture_numbers: tuple[Callable, Callable]
) -> None:
    numbered, number_of = picture_numbers
    path = tmp_path / "odd.mp4"
    rate = Fraction(30000, 1001)
    with VideoWriter(path, rate, (31, 72)) as writer:
        for number in range(10):
            writer.add(numbered(number, (31, 72)))
    (frame,) = read_frames(path, [float(7 / rate)], float(0.45 / rate))
    assert frame.shape == (31, 72, 3)
    assert number_of(frame) == 7
    with pytest.raises(DataError, match="even height and width, not 31x72"):
        VideoWriter(path, rate, (31, 72), "av1")


def test_damaged_videos_cost_one_line(video: Path, tmp_path: Path) -> None:
    data = video.read_bytes()
    cases = {"head.mp4": data[: len(data) // 2], "text.mp4": b"no video", "empty.mp4": b""}
    for name, content in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be decoded") as caught:
            read_frames(path, [0.0], 0.04)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="the video is missing"):
        read_frames(tmp_path / "none.mp4", [0.0], 0.04)


def test_encoder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODECS, "av1", ("libnothing", {}))
    with pytest.raises(DataError, match="comes without libnothing: use h264, or another"):
        VideoWriter(tmp_path / "a.mp4", FPS, (32, 64), "av1")
