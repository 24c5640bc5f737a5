"""What a recorder keeps of an episode's pictures: JPEG keyframes, and a video where asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.keyframes import select_keyframes

from .render import CAMERAS, Camera, encode_jpeg
from .robot import SAMPLE_S

NUM_KEYFRAMES = 4


def video_path(folder: Path, split: str, index: int, kind: str, camera: str) -> Path:
    """Where the video of an episode lies, beside the shards."""
    return Path(folder) / "video" / f"{split}-{index:06d}-{kind}-{camera}.mp4"


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float = 1 / SAMPLE_S) -> None:
    """Write RGB frames (H, W, 3) uint8 as MP4 (mpeg4), whole or not at all.

    Raises:
        ConfigError: OpenCV cannot write videos here.
    """
    frames = iter(frames)
    first = next(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part.mp4")  # OpenCV goes by the ending
    height, width = first.shape[:2]
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
    try:
        if not writer.isOpened():
            raise ConfigError(
                f"{path}: OpenCV cannot write MP4 files here; install another build of opencv, "
                "or leave --video out"
            )
        for frame in (first, *frames):
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        writer.release()
        os.replace(part, path)
    finally:
        writer.release()
        part.unlink(missing_ok=True)


def shoot(
    camera: Camera | None,
    states: np.ndarray,
    stamps_ns: np.ndarray,
    keyframes: int,
    videos: dict[str, Path] | None = None,
) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    """Stamps and JPEG pictures of the keyframes of an episode, with the look the world has now.

    Args:
        camera: None renders nothing.
        states: all states of the episode, (n, nq).
        stamps_ns: their stamps, int64 (n,), nanoseconds.
        keyframes: T.
        videos: files by camera; every state is rendered then.

    Returns:
        stamps of the T keyframes, and T * N pictures, PoV-major (none without a camera).

    Raises:
        ConfigError: fewer than T states.
    """
    stamps = [int(s) for s in stamps_ns]
    try:
        picks = select_keyframes(stamps, keyframes)
    except ValueError as error:
        raise ConfigError(f"--keyframes: {error}") from error
    kept = tuple(stamps[i] for i in picks)
    if camera is None:
        return kept, ()
    if videos:
        views = camera.pictures(states)
        for name, view in zip(CAMERAS, views, strict=True):
            write_video(videos[name], view)
        views = [[view[i] for i in picks] for view in views]
    else:
        views = camera.pictures(states[picks])
    return kept, tuple(encode_jpeg(picture) for view in views for picture in view)
