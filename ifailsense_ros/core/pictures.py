"""Pictures as they come from a camera or a bag: refused at once where that is plain, decoded late.

Of the candidates for keyframes that an episode holds, few are chosen. Small ones (JPEG) are
therefore kept as they came and decoded when they are chosen; large ones (raw) are decoded at once,
because shrunk to the model's cell they take a tenth of the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np

from ifailsense_ros.core.errors import ImageError

LATE_BELOW = 1 << 18
"""Bytes of a picture, as it came, from which it is decoded at once. What an episode holds is so
bounded: the tracker's candidates times this times N."""

View: TypeAlias = np.ndarray | Callable[[], np.ndarray]
"""uint8 RGB (H, W, 3), or what decodes it when it is called; raises ImageError."""


class Picture(Protocol):
    """One picture of one camera."""

    @property
    def num_bytes(self) -> int:
        """Its size as it came."""

    def check(self) -> None:
        """Raises ImageError if it is plain without decoding that it cannot be decoded."""

    def decode(self) -> np.ndarray:
        """uint8 RGB (H, W, 3); raises ImageError."""


def are_small(pictures: Sequence[Picture]) -> bool:
    """Whether all of them are decoded late."""
    return max([picture.num_bytes for picture in pictures]) < LATE_BELOW


def views_of(cameras: Sequence[str], pictures: Sequence[Picture]) -> list[View]:
    """The views of a pair.

    Args:
        cameras: names of the PoV, in their order.
        pictures: theirs.

    Raises:
        ImageError: one of them is of no use; names the camera. Those that are decoded late raise
            it then.
    """
    views: list[View] = []
    for camera, picture in zip(cameras, pictures, strict=True):
        if picture.num_bytes < LATE_BELOW:
            _of(camera, picture.check)
            views.append(partial(_of, camera, picture.decode))
        else:
            views.append(_of(camera, picture.decode))
    return views


def _of(camera: str, act: Callable[[], np.ndarray | None]) -> np.ndarray | None:
    try:
        return act()
    except ImageError as error:
        raise ImageError(f"camera {camera}: {error}") from error
