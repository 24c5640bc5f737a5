"""Frames of a video by number, with OpenCV: DROID numbers its frames and dates them elsewhere.

LeRobot's videos, which are AV1 and read by time, are for `data.video`.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from ifailsense_ros.core.errors import DataError

# Of a damaged video we say one line; ffmpeg would add its own. Read by OpenCV at its first video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class VideoFrames:
    """Single frames of a video file by number, without decoding more of it than needed.

    Raises:
        DataError: missing, or no video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DataError(f"{path}: is missing; copy the data set again")
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        cv2.utils.logging.setLogLevel(level)
        if not self._capture.isOpened():
            raise DataError(f"{path}: is not a video that OpenCV can read; copy it again")

    def __enter__(self) -> VideoFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __len__(self) -> int:
        """Number of frames, as the container says; 0 where that is nonsense."""
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        return int(count) if 0 < count < 2**31 else 0

    def frame(self, index: int) -> np.ndarray:
        """The frame of this index, uint8 RGB (H, W, 3).

        Raises:
            DataError: there is no such frame, or it cannot be decoded.
        """
        ok, picture = False, None
        if 0 <= index < len(self):
            # OpenCV's ffmpeg backend goes to the key frame before and decodes up to the index.
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            ok, picture = self._capture.read()
        if not ok:
            raise DataError(
                f"{self.path}: frame {index} cannot be decoded (the file says it has {len(self)}); "
                "copy it again"
            )
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
