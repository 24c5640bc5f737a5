"""The pairs of an episode: putting off makes no difference."""

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.core.errors import ImageError
from ifailsense_ros.core.recording import Frame, Recording

T, CAPACITY = 3, 8


class Pictures:
    """Frames of some stamps, and which of them were looked at."""

    def __init__(self, broken: set[int], broken_late: set[int], can_wait: bool) -> None:
        self._broken, self._late, self._can_wait = broken, broken_late, can_wait
        self.looked_at: list[int] = []

    def frame(self, stamp: int) -> Frame:
        return Frame(stamp, self._decoder(stamp), lambda view: view, 1, self._can_wait)

    def _decoder(self, stamp: int) -> Callable:
        def late() -> np.ndarray:
            if stamp in self._late:
                raise ImageError(f"{stamp} cannot be decoded")
            return np.full((1, 1, 3), stamp % 200, np.uint8)

        def decode() -> list:
            self.looked_at.append(stamp)
            if stamp in self._broken:
                raise ImageError(f"{stamp} is broken")
            return [late]

        return decode


@given(
    stamps=st.lists(st.integers(0, 40), max_size=24),
    broken=st.sets(st.integers(0, 40), max_size=20),
    broken_late=st.sets(st.integers(0, 40), max_size=6),
    recent=st.integers(0, 6),
    end=st.integers(5, 40),
    minimum=st.integers(1, T),
    snapshot_at=st.none() | st.integers(0, 20),
    fault_at=st.none() | st.integers(0, 20),
)
def test_the_same_keyframes_whether_or_not_pairs_wait(
    stamps, broken, broken_late, recent, end, minimum, snapshot_at, fault_at
):
    told = []
    for can_wait in (False, True):
        pictures = Pictures(broken, broken_late, can_wait)
        frames = [pictures.frame(stamp) for stamp in stamps]
        taken = frames[: max(0, len(frames) - recent)]
        recording = Recording(3, 1, T, CAPACITY)
        seen: list = []
        for number, frame in enumerate(taken):
            if number == fault_at:
                recording.note_fault("a picture without a stamp")
            recording.take(frame)
            if number == snapshot_at:
                seen.append([f.stamp_ns for f in recording.snapshot((), minimum)])
        recording.end_ns = end
        keyframes = recording.freeze(frames[len(taken) :], minimum)
        seen.append([f.stamp_ns for f in keyframes])
        seen.append([[view.tolist() for view in f.views] for f in keyframes])
        if not keyframes:
            seen += [bool(recording.faults), len(recording.frames())]
        told.append(seen)
    assert told[0] == told[1]


def test_only_keyframes_are_looked_at_while_there_is_room():
    pictures = Pictures(set(), set(), can_wait=True)
    recording = Recording(0, 0, T, CAPACITY)
    for stamp in range(5):
        recording.take(pictures.frame(stamp))
    assert not pictures.looked_at
    recording.freeze([pictures.frame(5), pictures.frame(6)], T)
    assert pictures.looked_at == [0, 3, 6]


def test_candidates_are_looked_at_as_soon_as_one_may_have_to_go():
    pictures = Pictures({0}, set(), can_wait=True)
    recording = Recording(0, 0, T, CAPACITY)
    for stamp in range(CAPACITY + 1):
        recording.take(pictures.frame(stamp))
    assert pictures.looked_at == list(range(CAPACITY + 1))
    assert recording.faults == ["0 is broken"]


def test_who_asks_how_many_there_are_hears_of_whole_ones():
    pictures = Pictures({1, 2}, set(), can_wait=True)
    recording = Recording(0, 0, T, CAPACITY)
    for stamp in range(4):
        recording.take(pictures.frame(stamp))
    assert len(recording) == 2
