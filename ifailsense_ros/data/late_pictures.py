"""Pictures of a replayed bag that are decoded when an episode is judged, and no sooner.

A node must decode every candidate for a keyframe as it comes: it cannot keep the messages of a
whole episode. A bag can be asked again, so here only the keyframes themselves are decoded, a tenth
of the pictures or less, and the tracker works with placeholders.

A picture that is plainly broken (truncated, of an unknown encoding, ...) is passed over at once, as
by the node. Where a keyframe turns out to be broken otherwise, the bag is to be replayed again with
`decode_all`. So the keyframes are the node's, but for one case: in an episode of more pairs than
the tracker keeps, beside such a picture that was only a candidate, it may be a neighbour.
"""

from __future__ import annotations

import dataclasses

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
        self._rows = range(len(cameras))
        self._shrink = shrink
        self._decode_all = decode_all

    def decoder(self, pair: Pair) -> Decode:
        """Views of a pair of `ImageRecorded`, or placeholders for them."""
        if not self._decode_all and max(m.num_bytes for m in pair.messages) < LARGE:
            return lambda: [self._later(pair, row) for row in self._rows]
        return lambda: [self.view(pair, row) for row in self._rows]

    def shrink(self, view: np.ndarray | _Later) -> np.ndarray | _Later:
        """A view at the size of the cell; a placeholder stays what it is."""
        return view if isinstance(view, _Later) else self._shrink(view)

    def view(self, pair: Pair, row: int) -> np.ndarray:
        """One picture of a pair, at full size; raises ImageError."""
        try:
            return pair.messages[row].decode()
        except ImageError as error:
            raise ImageError(f"camera {self._cameras[row]}: {error}") from error

    def _later(self, pair: Pair, row: int) -> _Later:
        try:
            pair.messages[row].check()
        except ImageError as error:
            raise ImageError(f"camera {self._cameras[row]}: {error}") from error
        return _Later(pair, row)

    def filled(self, episode: Episode) -> Episode:
        """The episode with all its pictures; the same object where it had them already.

        Raises:
            ImageError: one of them cannot be decoded.
        """
        views = [view for keyframe in episode.keyframes for view in keyframe.views]
        if not any(isinstance(view, _Later) for view in views):
            return episode
        keyframes = tuple(
            dataclasses.replace(keyframe, views=tuple(self._filled(v) for v in keyframe.views))
            for keyframe in episode.keyframes
        )
        return dataclasses.replace(episode, keyframes=keyframes)

    def _filled(self, view: np.ndarray | _Later) -> np.ndarray:
        return self._shrink(self.view(view.pair, view.row)) if isinstance(view, _Later) else view


class _Later:
    """Stands for a view while the tracker holds it, and keeps its message that long."""

    __slots__ = ("pair", "row")

    def __init__(self, pair: Pair, row: int) -> None:
        self.pair, self.row = pair, row
