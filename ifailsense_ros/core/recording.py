"""The pairs of a running episode: looked at late, kept bounded, frozen into keyframes."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.core.keyframes import KeyframeBuffer, select_keyframes
from ifailsense_ros.core.pictures import View

Decode = Callable[[], Sequence[View]]
"""Gives the N views of a pair in PoV order, or what will give them; raises ImageError."""

Shrink = Callable[[np.ndarray], np.ndarray]
"""Brings a view to the model's cell."""

USED = "used"
DECIMATED = "decimated"
BAD_IMAGE = "bad_image"


class Frame:
    """A pair that is looked at when it becomes a candidate, or never, and has all its views when
    it is chosen.

    Args:
        stamp_ns: of the pair, nanoseconds.
        decode: see `Decode`; called at most once.
        shrink: applied to each view; the full-size picture is let go.
        num_pov: N, how many views `decode` must give.
        can_wait: whether it costs little to keep it undecoded until the episode is over, and nobody
            counts broken pictures.
    """

    __slots__ = (
        "_decode", "_is_candidate", "_num_pov", "_shrink", "_views",
        "can_wait", "counted", "fault", "stamp_ns",
    )  # fmt: skip

    def __init__(
        self,
        stamp_ns: int,
        decode: Decode,
        shrink: Shrink,
        num_pov: int,
        can_wait: bool = False,
    ) -> None:
        self.stamp_ns = stamp_ns
        self.can_wait = can_wait
        self.fault = ""
        self.counted: str | None = None
        self._is_candidate = False
        self._views: tuple[View, ...] = ()
        self._decode: Decode | None = decode
        self._shrink = shrink
        self._num_pov = num_pov

    @property
    def views(self) -> tuple[np.ndarray, ...]:
        """The shrunk views, after `complete`."""
        return self._views

    def load(self) -> bool:
        """Make it a candidate; False if it is none (`fault` says why), whatever came out later."""
        decode, self._decode = self._decode, None
        if decode is not None:
            self._attempt(lambda: self._checked(decode()))
            self._is_candidate = not self.fault
        return self._is_candidate

    def complete(self) -> bool:
        """Decode what was left for later; False if the pair is unusable."""
        if self.load() and any(callable(view) for view in self._views):
            self._attempt(lambda: (v() if callable(v) else v for v in self._views))
        return not self.fault

    def _checked(self, views: Sequence[View]) -> Sequence[View]:
        if len(views) != self._num_pov:
            raise ValueError(f"{len(views)} views instead of {self._num_pov}")
        return views

    def _attempt(self, views: Callable[[], Iterable[View]]) -> None:
        # Whatever a decoder trips over, one broken picture must not stop the monitor.
        try:
            self._views = tuple(v if callable(v) else self._shrink(v) for v in views())
        except Exception as error:
            self._views = ()
            self.fault = " ".join(str(error).split()) or type(error).__name__

    @property
    def fate(self) -> str:
        """What became of the pair: USED (a candidate), DECIMATED (never needed) or BAD_IMAGE."""
        if self.fault:
            return BAD_IMAGE
        return DECIMATED if self._decode is not None else USED


class RecentPairs:
    """The newest pairs, undecoded, oldest first.

    Pairs reach the episodes only when they leave this ring. So a START or END that arrives late,
    by less than the ring's length, finds exactly the pairs it would have found in time, and the
    keyframes depend on stamps alone.
    """

    def __init__(self, count: int, span_ns: int) -> None:
        self._count = count
        self._span_ns = span_ns
        self._frames: list[Frame] = []

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)

    def add(self, frame: Frame) -> list[Frame]:
        """Take a pair; returns those that leave, oldest first."""
        frames = self._frames
        if not frames or frames[-1].stamp_ns <= frame.stamp_ns:
            frames.append(frame)
        else:
            insort(frames, frame, key=lambda f: f.stamp_ns)
        oldest_kept = frames[-1].stamp_ns - self._span_ns
        leaving = max(0, len(frames) - self._count)
        while frames[leaving].stamp_ns < oldest_kept:
            leaving += 1
        left = frames[:leaving]
        del frames[:leaving]
        return left

    def clear(self) -> list[Frame]:
        """Empty the ring; returns what was in it, oldest first."""
        left, self._frames = self._frames, []
        return left


class Recording:
    """The pairs whose stamps lie in [start_ns - pre_roll_ns, end_ns].

    A pair that may become a keyframe is looked at when it comes, and not held if it is broken.
    Those that can wait are put off as long as there is room for all of them: while none has to go,
    a broken one makes no difference unless it is chosen. What is asked beside the keyframes is
    answered after looking at them all, so that no answer differs; of several faults another one may
    be the last.

    Args:
        start_ns: stamp of START, nanoseconds.
        pre_roll_ns: how long before START pairs belong to the episode, nanoseconds.
        t: number of keyframes T.
        capacity: of the keyframe buffer.
    """

    def __init__(self, start_ns: int, pre_roll_ns: int, t: int, capacity: int) -> None:
        self.start_ns = start_ns
        self.end_ns: int | None = None
        self.faults: list[str] = []
        """The newest faults of this episode's pictures; bounded."""
        self._from_ns = start_ns - pre_roll_ns
        self._t = t
        self._capacity = capacity
        self._buffer: KeyframeBuffer[Frame] = KeyframeBuffer(t, capacity, origin_ns=self._from_ns)
        # In the order in which they came; None from when one cannot be put off.
        self._put_off: list[Frame] | None = []

    def __len__(self) -> int:
        """Keyframe candidates held."""
        self._look_at_all()
        return len(self._buffer)

    def held(self, recent: Iterable[Frame]) -> int:
        """Number of pairs: the candidates, and those of the ring that belong here."""
        return len(self) + sum(self.holds(frame.stamp_ns) for frame in recent)

    def holds(self, stamp_ns: int) -> bool:
        """Whether a pair of this stamp belongs to the episode (as far as its END is known)."""
        return self._from_ns <= stamp_ns and (self.end_ns is None or stamp_ns <= self.end_ns)

    def note_fault(self, fault: str) -> None:
        """Remember that a picture of this episode was unusable, and why."""
        self._look_at_all()  # their faults came before
        self.faults = [*self.faults[-7:], fault]

    def take(self, frame: Frame) -> None:
        """Keep a pair if it belongs here and may become a keyframe; only then it is looked at."""
        if not self.holds(frame.stamp_ns):
            return
        put_off = self._put_off
        if put_off is not None:
            if frame.can_wait and len(put_off) < self._capacity:
                put_off.append(frame)
                return
            self._look_at_all()
        self._hold(frame)

    def _look_at_all(self) -> None:
        """Look at what was put off, as it would have been at once, and put off nothing more."""
        put_off, self._put_off = self._put_off, None
        for frame in put_off or ():
            self._hold(frame)

    def _hold(self, frame: Frame) -> None:
        if self._buffer.wants(frame.stamp_ns) and not frame.load():
            self.note_fault(frame.fault)
            return
        self._buffer.add(frame.stamp_ns, frame)

    def freeze(self, recent: Iterable[Frame], minimum: int) -> list[Frame]:
        """The T keyframes; unusable pictures are passed over.

        Args:
            recent: pairs that are still in the ring; only the chosen ones are looked at.
            minimum: fewer usable pairs give an empty list.

        Returns:
            T frames, oldest first, some repeated when there are fewer than T pairs; or none.
        """
        recent = [frame for frame in recent if self.holds(frame.stamp_ns)]
        put_off = self._put_off
        if put_off is not None and len(put_off) + len(recent) <= self._capacity:
            chosen = self._choose(_in_order(self.frames(), recent), minimum)
            if chosen:
                return chosen
        self._look_at_all()
        for frame in recent:
            self._buffer.add(frame.stamp_ns, frame)
        return self._choose(self.frames(), minimum)

    def snapshot(self, recent: Iterable[Frame], minimum: int) -> list[Frame]:
        """As `freeze`, of what there is so far."""
        self._look_at_all()
        recent = [frame for frame in recent if self.holds(frame.stamp_ns)]
        return self._choose(_in_order(self.frames(), recent), minimum)

    def _choose(self, candidates: Iterable[Frame], minimum: int) -> list[Frame]:
        while True:
            frames = [frame for frame in candidates if not frame.fault]
            if len(frames) < max(minimum, 1):
                return []
            stamps = [frame.stamp_ns for frame in frames]
            chosen = [frames[i] for i in select_keyframes(stamps, min(self._t, len(frames)))]
            unusable = [frame for frame in chosen if not frame.complete()]
            for frame in unusable:
                self.note_fault(frame.fault)
            if not unusable:
                spread = max(self._t - 1, 1)
                return [
                    chosen[(2 * i * (len(chosen) - 1) + spread) // (2 * spread)]
                    for i in range(self._t)
                ]

    def frames(self) -> list[Frame]:
        """The candidates that lie in the episode; oldest first, but those that were put off."""
        held = (frame for _, frame in self._buffer.items())
        candidates = held if self._put_off is None else self._put_off
        return [frame for frame in candidates if self.holds(frame.stamp_ns)]


def _in_order(candidates: Iterable[Frame], recent: Iterable[Frame]) -> list[Frame]:
    """Oldest first; of two with the same stamp the first that is given."""
    frames: dict[int, Frame] = {}
    for frame in (*candidates, *recent):
        frames.setdefault(frame.stamp_ns, frame)
    return [frames[stamp] for stamp in sorted(frames)]


def to_keyframes(frames: Iterable[Frame]) -> tuple[Keyframe, ...]:
    """Complete frames as the keyframes of an Episode."""
    return tuple(Keyframe(frame.stamp_ns, frame.views) for frame in frames)


class FateCounter:
    """Counts what became of the pairs, each once: pairs = used + decimated + dropped + buffered."""

    def __init__(self) -> None:
        self.used = 0
        self.decimated = 0
        self.dropped: Counter[str] = Counter()

    def count(self, frame: Frame, unneeded: str = DECIMATED) -> None:
        """A pair leaves the ring. `unneeded` is what it counts as if it was never decoded."""
        self._add(frame, unneeded if frame.fate == DECIMATED else frame.fate, 1)

    def recount(self, frames: Iterable[Frame]) -> None:
        """Pairs that may have been counted before have been looked at since."""
        for frame in frames:
            if frame.counted is not None and frame.counted != frame.fate:
                self._add(frame, frame.counted, -1)
                self._add(frame, frame.fate, 1)

    def _add(self, frame: Frame, fate: str, amount: int) -> None:
        frame.counted = fate
        if fate == USED:
            self.used += amount
        elif fate == DECIMATED:
            self.decimated += amount
        else:
            self.dropped[fate] += amount
