"""Keyframes: T time steps of an episode, first and last included, the rest evenly spaced in time.

The paper (Sec. III-A) picks T frames of a recorded trajectory. A monitor sees a stream whose
length nobody knows yet, so `KeyframeBuffer` keeps a bounded, evenly spaced sample of it from which
`select_keyframes` picks at the end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Generic, TypeVar

Payload = TypeVar("Payload")


def select_keyframes(stamps_ns: Sequence[int], t: int) -> list[int]:
    """Pick T keyframes of a known sequence.

    Args:
        stamps_ns: stamps in ascending order (equal ones allowed), nanoseconds.
        t: number of keyframes T, >= 1. With T = 1 it is the last frame: the state reached.

    Returns:
        T strictly increasing indices: the first frame, the last, and for each time in between the
        nearest frame that leaves enough frames on either side (of equally near ones the earlier).

    Raises:
        ValueError: fewer than T stamps, T < 1, or stamps that descend.
    """
    count = len(stamps_ns)
    if t < 1:
        raise ValueError(f"t must be at least 1, not {t}")
    if t > count:
        raise ValueError(f"{t} keyframes cannot be picked from {count} frames")
    if any(a > b for a, b in pairwise(stamps_ns)):
        raise ValueError("stamps must be in ascending order")
    if t == 1:
        return [count - 1]
    first, last = stamps_ns[0], stamps_ns[-1]
    chosen = [0]
    for step in range(1, t - 1):
        # Times are compared multiplied by (t - 1), so that everything stays in exact integers.
        target = first * (t - 1) + (last - first) * step
        low, high = chosen[-1] + 1, count - (t - step)
        after = bisect_left(stamps_ns, target, low, high, key=lambda s: s * (t - 1))
        if after > low and _distance(stamps_ns, after - 1, target, t) <= _distance(
            stamps_ns, after, target, t
        ):
            # The first of a run of equal stamps: the choice is then the same for any order.
            after = bisect_left(stamps_ns, stamps_ns[after - 1], low, after)
        chosen.append(after)
    chosen.append(count - 1)
    return chosen


def _distance(stamps_ns: Sequence[int], index: int, target: int, t: int) -> int:
    return abs(stamps_ns[index] * (t - 1) - target)


class KeyframeBuffer(Generic[Payload]):
    """A bounded sample of a stream of unknown length, evenly spaced in time.

    Time since `origin_ns` is cut into slots of one stride; a slot keeps its earliest frame, and the
    newest frame of all is kept beside them. When more than `capacity` slots are taken, the stride
    doubles and neighbouring slots merge. What is kept is therefore a function of the *set* of
    stamps seen, not of the order in which they came, except that a frame that arrives late for its
    slot replaces a later one (`wants` says so): live and offline keep the same frames.

    Every stamp seen has a kept one less than one stride before it (or at it), and the stride is
    less than 2 * duration / (capacity - 1): with the default capacity below 4 % of the episode.

    Args:
        t: number of keyframes that will be picked.
        capacity: most slots kept, at least 2 * t so that T frames always remain.
        origin_ns: where the slots are counted from, nanoseconds (START of the episode).
    """

    def __init__(self, t: int, capacity: int = 64, origin_ns: int = 0) -> None:
        if t < 1:
            raise ValueError(f"t must be at least 1, not {t}")
        if capacity < max(2 * t, 2):
            raise ValueError(f"capacity must be at least {max(2 * t, 2)}, not {capacity}")
        self._t = t
        self._capacity = capacity
        self._origin_ns = origin_ns
        # One nanosecond keeps every distinct stamp until the buffer is full: an episode shorter
        # than `capacity` frames is not thinned at all.
        self._stride_ns = 1
        self._slots: dict[int, tuple[int, Payload]] = {}
        self._newest: tuple[int, Payload] | None = None

    @property
    def stride_ns(self) -> int:
        """Length of a slot, nanoseconds; a power of two."""
        return self._stride_ns

    def __len__(self) -> int:
        return len(self.items())

    def wants(self, stamp_ns: int) -> bool:
        """Whether a frame of this stamp would be kept in a slot (and not only as the newest).

        Ask before decoding: most frames of a long episode are not wanted.
        """
        held = self._slots.get(self._slot(stamp_ns))
        return held is None or stamp_ns < held[0]

    def add(self, stamp_ns: int, payload: Payload) -> bool:
        """Offer a frame; of two with the same stamp the first stays.

        Returns:
            What `wants` said: whether it went into a slot.
        """
        if self._newest is None or stamp_ns > self._newest[0]:
            self._newest = (stamp_ns, payload)
        if not self.wants(stamp_ns):
            return False
        self._slots[self._slot(stamp_ns)] = (stamp_ns, payload)
        while len(self._slots) > self._capacity:
            self._double_stride()
        return True

    def items(self) -> list[tuple[int, Payload]]:
        """The kept frames as (stamp in nanoseconds, payload), oldest first."""
        kept = sorted(self._slots.values(), key=lambda item: item[0])
        if self._newest is not None and (not kept or kept[-1][0] < self._newest[0]):
            kept.append(self._newest)
        return kept

    def select(self) -> list[tuple[int, Payload]]:
        """The T keyframes of what was seen so far, oldest first.

        Raises:
            ValueError: fewer than T frames were seen.
        """
        kept = self.items()
        return [kept[i] for i in select_keyframes([stamp for stamp, _ in kept], self._t)]

    def _slot(self, stamp_ns: int) -> int:
        return (stamp_ns - self._origin_ns) // self._stride_ns

    def _double_stride(self) -> None:
        self._stride_ns *= 2
        merged: dict[int, tuple[int, Payload]] = {}
        for item in self._slots.values():
            slot = self._slot(item[0])
            if slot not in merged or item[0] < merged[slot][0]:
                merged[slot] = item
        self._slots = merged
