"""Parts of a video without encoding: the same frames, at the times that the cut says."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.video import read_frames
from ifailsense_ros.data.video_cut import VideoCut

av = pytest.importorskip("av")

FPS, COUNT = 15, 40
ENCODERS = {
    "short": ("libx264", {"g": "2", "crf": "18"}),
    "reordered": ("libx264", {"g": "9", "bf": "3", "sc_threshold": "0"}),
    "open": ("libx264", {"g": "9", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}),
    "one": ("libx264", {"g": "1000", "sc_threshold": "0"}),
    "av1": ("libsvtav1", {"g": "2", "crf": "30", "preset": "12"}),
}


@pytest.fixture(scope="module", params=ENCODERS)
def video(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    picture_numbers: tuple[Callable, Callable],
) -> Path:
    """A video of 40 numbered pictures."""
    encoder, options = ENCODERS[request.param]
    if encoder not in av.codecs_available:
        pytest.skip(f"PyAV without {encoder}")
    path = tmp_path_factory.mktemp("video") / f"{request.param}.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(COUNT):
            picture = picture_numbers[0](number, (64, 64))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _read(path: Path, begin_s: float, count: int) -> np.ndarray:
    return np.array(read_frames(path, [begin_s + k / FPS for k in range(count)], 0.4 / FPS))


@settings(max_examples=5, deadline=None)
@given(bounds=st.lists(st.integers(0, COUNT), min_size=2, max_size=6, unique=True))
def test_every_span_keeps_its_frames(video: Path, bounds: list[int]) -> None:
    bounds = sorted(bounds)[: len(bounds) // 2 * 2]
    spans = list(zip(bounds[::2], bounds[1::2], strict=True))
    cut = VideoCut(video, [(a / FPS, b / FPS) for a, b in spans], FPS)
    out = video.with_name("cut.mp4")
    cut.write(out)
    for (first, end), begin_s in zip(spans, cut.begins_s, strict=True):
        np.testing.assert_array_equal(
            _read(out, begin_s, end - first), _read(video, first / FPS, end - first)
        )
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        times = [float(frame.pts * stream.time_base) for frame in container.decode(stream)]
    # LeRobot's other decoder counts frames: they must begin at zero and be evenly spaced.
    np.testing.assert_allclose(times, np.arange(len(times)) / FPS, atol=1e-6)
    assert len(times) <= COUNT


def test_what_is_dropped_is_not_in_the_file(video: Path) -> None:
    cut = VideoCut(video, [(10 / FPS, 12 / FPS)], FPS)
    cut.write(out := video.with_name("cut.mp4"))
    with av.open(str(out)) as container:
        left = sum(1 for _ in container.decode(video=0))
    assert left <= {"short": 2, "av1": 2, "reordered": 9, "open": 2 * 9, "one": COUNT}[video.stem]


def test_span_that_is_not_there(video: Path) -> None:
    with pytest.raises(DataError, match=r"has no frame at 4\.000 s: it was cut off"):
        VideoCut(video, [(0.0, 1.0), (4.0, 5.0)], FPS)


def test_damaged_video(video: Path) -> None:
    broken = video.with_name("broken.mp4")
    broken.write_bytes(video.read_bytes()[:200])
    with pytest.raises(DataError, match=r"broken\.mp4: cannot be cut .*copy it again"):
        VideoCut(broken, [(0.0, 1.0)], FPS)
    with pytest.raises(DataError, match="is missing"):
        VideoCut(video.with_name("nowhere.mp4"), [(0.0, 1.0)], FPS)
