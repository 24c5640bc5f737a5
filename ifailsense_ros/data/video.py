"""Frames of a video at given times, and pictures into a video, by PyAV.

OpenCV's wheels cannot decode AV1, which LeRobot writes by default, and know frames by number only;
PyAV knows their time stamps.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ifailsense_ros.core.errors import DataError

CODECS = {
    "h264": ("libx264", {"crf": "18", "g": "2"}),
    "av1": ("libsvtav1", {"crf": "24", "g": "2", "preset": "8"}),
}
"""Name -> FFmpeg's encoder and its options. A key frame every two: frames are read singly."""

_SEEK_S = 2.0
"""Over gaps up to this long decoding on costs less than going back to a key frame."""


def read_frames(
    path: Path, times_s: Sequence[float], tolerance_s: float, where: str = ""
) -> list[np.ndarray]:
    """The frames at these times, decoding little else.

    Args:
        path: of the video.
        times_s: presentation times in seconds, in any order, repeated ones allowed.
        tolerance_s: how far from it a frame may be; less than half a frame.
        where: what the frames are for, for the error.

    Returns:
        uint8 RGB (H, W, 3) for each time.

    Raises:
        DataError: PyAV is missing; no such file, no video, or no frame at one of the times.
    """
    av = import_av()
    what = f"{path}: " + (f"{where}: " if where else "")
    if not path.is_file():
        raise DataError(f"{what}the video is missing; copy the data set again")
    try:
        with av.open(str(path)) as container:
            found = dict(_frames_at(container, sorted(set(times_s)), tolerance_s, what))
    except DataError:
        raise
    except Exception as error:
        # A damaged file fails in any of many ways inside PyAV.
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{what}cannot be decoded ({reason}); it is damaged or was cut off: copy it again"
        ) from error
    return [found[time] for time in times_s]


def _frames_at(
    container: Any, times_s: Sequence[float], tolerance_s: float, what: str
) -> Iterator[tuple[float, np.ndarray]]:
    stream = container.streams.video[0]
    tolerance = tolerance_s / stream.time_base
    decoded: Iterator[Any] | None = None
    frame = None
    for time_s in times_s:
        wanted = time_s / stream.time_base
        if frame is None or wanted - frame.pts > _SEEK_S / stream.time_base:
            frame, decoded = _seek(container, stream, round(wanted), tolerance)
        while frame is not None and frame.pts < wanted - tolerance:
            frame = next(decoded, None)
        if frame is None or frame.pts > wanted + tolerance:
            raise DataError(
                f"{what}has no frame at {time_s:.3f} s: it was cut off, or is another episode's"
            )
        yield time_s, frame.to_ndarray(format="rgb24")


def _seek(container: Any, stream: Any, wanted: int, tolerance: float) -> tuple[Any, Iterator[Any]]:
    """Decoding from the key frame before; the first frame, and those after it."""
    back = 0
    while True:
        start = max(wanted - back, 0)
        container.seek(start, stream=stream, backward=True)
        decoded = container.decode(stream)
        frame = next(decoded, None)
        # Containers are indexed by decoding time: with reordered frames one may land too late.
        if start == 0 or (frame is not None and frame.pts <= wanted + tolerance):
            return frame, decoded
        back = max(2 * back, round(1 / stream.time_base))


class VideoWriter:
    """Writes pictures of one size as a video of constant frame rate.

    Args:
        path: of the video; it is overwritten.
        fps: frames a second.
        size: height and width.
        codec: one of `CODECS`.

    Attributes:
        pixel_format: FFmpeg's name.

    Raises:
        DataError: PyAV is missing, or lacks the encoder, or the codec cannot take pictures of this
            size.
    """

    def __init__(
        self, path: Path, fps: int | Fraction, size: tuple[int, int], codec: str = "h264"
    ) -> None:
        av = import_av()
        self._av = av
        self._fps = Fraction(fps)
        encoder, options = CODECS[codec]
        if encoder not in av.codecs_available:
            raise DataError(
                f"{codec}: PyAV {av.__version__} comes without {encoder}: use "
                f"{' or '.join(c for c in CODECS if c != codec)}, or another PyAV"
            )
        odd = size[0] % 2 or size[1] % 2
        if odd and codec != "h264":
            raise DataError(
                f"{codec} needs an even height and width, not {size[0]}x{size[1]}: use h264"
            )
        self.pixel_format = "yuv444p" if odd else "yuv420p"
        os.environ.setdefault("SVT_LOG", "1")  # else libsvtav1 tells its settings on stderr
        self._container: Any = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream(encoder, rate=self._fps, options=dict(options))
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = self.pixel_format
        self._count = 0

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Frames so far; the next one is shown at this number divided by the rate."""
        return self._count

    def add(self, picture: np.ndarray) -> None:
        """Append a picture, uint8 RGB (H, W, 3)."""
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = self._count, 1 / self._fps
        self._container.mux(self._stream.encode(frame))
        self._count += 1

    def close(self) -> None:
        """Write what is still held back, and the index. Closing it again does nothing."""
        if self._container is None:
            return
        try:
            if self._count:
                self._container.mux(self._stream.encode())
        finally:
            self.discard()

    def discard(self) -> None:
        """Let the file go as it is; it need not be a video that can be read."""
        container, self._container = self._container, None
        if container is not None:
            container.close()


def import_av() -> Any:
    """PyAV. Raises DataError where it is not installed."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise DataError(
            f"videos need PyAV, which cannot be imported ({error}): pip install av"
        ) from error
