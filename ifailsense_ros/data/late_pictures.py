"""Pictures of a replayed bag that are decoded when an episode is judged, and no sooner.

A node must decode every candidate for a keyframe as it comes: it cannot keep the messages of a
whole episode. A bag can be asked again, so here only the keyframes themselves are decoded, a tenth
of the pictures or less, and the tracker works with placeholders.

The keyframes are the live node's wherever these can be decoded. Where one cannot, the bag is to be
replayed again with `decode_all`: broken pictures are passed over while the tracker collects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import ImageError
from ifailsense_ros.core.pairing import Pair
from ifailsense_ros.core.recording import Decode, Shrink

LARGE = 1 << 18
"""Pictures of this size (bytes as recorded: raw ones, mostly) are shrunk as they come; the tracker
may hold some hundred of them, and shrunk they are a tenth."""


class LatePictures:
    """What a `BagReplay` decodes and shrinks with, and what makes its episodes complete.

    Args:
        cameras: names of the PoV, in their order.
        shrink: brings a view to the model's cell.
        decode_all: decode every candidate as the live node does.
    """

    def __init__(self, cameras: tuple[str, ...], shrink: Shrink, *, decode_all: bool) -> None:
        self._cameras = cameras
        self._shrink = shrink
        self._decode_all = decode_all

    def decoder(self, pair: Pair) -> Decode:
        """Views of a pair of `ImageRecorded`, or placeholders for them."""
        if self._decode_all or any(m.num_bytes >= LARGE for m in pair.messages):
            return lambda: self._views(pair)
        return lambda: [_placeholder(self._later(pair, row)) for row in range(len(self._cameras))]

    def shrink(self, view: np.ndarray) -> np.ndarray:
        """A view at the size of the cell; a placeholder stays what it is."""
        return view if view.dtype == object else self._shrink(view)

    def filled(self, episode: Episode) -> Episode:
        """The episode with all its pictures; the same object where it had them already.

        Raises:
            ImageError: one of them cannot be decoded.
        """
        views = [view for keyframe in episode.keyframes for view in keyframe.views]
        if all(view.dtype != object for view in views):
            return episode
        keyframes = tuple(
            dataclasses.replace(keyframe, views=tuple(self._filled(v) for v in keyframe.views))
            for keyframe in episode.keyframes
        )
        return dataclasses.replace(episode, keyframes=keyframes)

    def _filled(self, view: np.ndarray) -> np.ndarray:
        return self._shrink(view[0]()) if view.dtype == object else view

    def _later(self, pair: Pair, row: int) -> Callable[[], np.ndarray]:
        def decode() -> np.ndarray:
            try:
                return pair.messages[row].decode()
            except ImageError as error:
                raise ImageError(f"camera {self._cameras[row]}: {error}") from error

        return decode

    def _views(self, pair: Pair) -> list[np.ndarray]:
        return [self._later(pair, row)() for row in range(len(self._cameras))]


def _placeholder(decode: Callable[[], np.ndarray]) -> np.ndarray:
    """Holds the message alive as long as the tracker holds the picture, and no longer."""
    holder = np.empty(1, dtype=object)
    holder[0] = decode
    return holder
