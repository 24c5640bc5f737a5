"""Approximate-time pairing of camera streams, as a pure function of their stamps.

Does what message_filters' ApproximateTimeSynchronizer does, where that is not installed and for
bags. Differences: the pairs depend on the stamps of each stream only, not on how the streams
interleave on arrival; pairs come out in stamp order; every message that finds no partner is
counted with its reason; and after a jump back in time `reset` makes it start anew.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

UNMATCHED = "unmatched"
OUT_OF_ORDER = "out_of_order"
DUPLICATE = "duplicate"
QUEUE_FULL = "queue_full"
CLOCK_JUMP = "clock_jump"
DROP_REASONS = (UNMATCHED, OUT_OF_ORDER, DUPLICATE, QUEUE_FULL, CLOCK_JUMP)
"""Why a message was left without a partner."""

# Shared by the node's parameters and the offline path.
DEFAULT_SLOP_NS = 50_000_000
DEFAULT_QUEUE_SIZE = 10


class Pair(NamedTuple):
    """Messages of all streams that belong to one time step.

    Attributes:
        stamp_ns: stamp of the first stream's message (the exocentric camera), nanoseconds.
        stamps_ns: stamps in the order of the streams.
        messages: messages in the order of the streams.
    """

    stamp_ns: int
    stamps_ns: tuple[int, ...]
    messages: tuple[Any, ...]


@dataclass
class _Stream:
    queue: deque[tuple[int, Any]] = field(default_factory=deque)
    passed_ns: int | None = None
    """Newest stamp that was paired or given up; older ones come too late."""
    dropped: Counter[str] = field(default_factory=Counter)


class ApproximatePairing:
    """Pairs N streams whose stamps differ by at most `slop_ns`.

    The oldest waiting messages of all streams are compared: if they lie within the slop they are a
    pair; otherwise the oldest of them can have no partner any more and is dropped. One stream
    passes through (out of order and duplicate messages are still dropped).

    Cameras that are triggered together want a slop below half their period: then each message has
    only one possible partner. Those that run freely need more than half, or nothing pairs while
    they are half a period apart.

    Args:
        streams: names of the streams, in the order wanted in the pairs.
        slop_ns: largest difference of stamps in a pair, nanoseconds, >= 0.
        queue_size: most messages kept waiting per stream, >= 1.
    """

    def __init__(
        self, streams: Sequence[Hashable], slop_ns: int, queue_size: int = DEFAULT_QUEUE_SIZE
    ) -> None:
        if not streams or len(set(streams)) != len(streams):
            raise ValueError(f"streams need distinct names, at least one, not {streams!r}")
        if slop_ns < 0:
            raise ValueError(f"slop_ns must not be negative, not {slop_ns}")
        if queue_size < 1:
            raise ValueError(f"queue_size must be at least 1, not {queue_size}")
        self._slop_ns = slop_ns
        self._queue_size = queue_size
        self._streams = {name: _Stream() for name in streams}
        self._states = list(self._streams.values())
        self._queues = [state.queue for state in self._states]

    def dropped(self, stream: Hashable) -> dict[str, int]:
        """How many messages of a stream found no partner, by reason."""
        return dict(self._streams[stream].dropped)

    def waiting(self, stream: Hashable) -> int:
        """How many messages of a stream still wait for a partner."""
        return len(self._streams[stream].queue)

    def add(self, stream: Hashable, stamp_ns: int, message: Any) -> list[Pair]:
        """Take a message; returns the pairs that it completes, in stamp order."""
        state = self._streams[stream]
        if state.passed_ns is not None and stamp_ns <= state.passed_ns:
            same = stamp_ns == state.passed_ns
            state.dropped[DUPLICATE if same else OUT_OF_ORDER] += 1
            return []
        queue = state.queue
        if not queue or stamp_ns > queue[-1][0]:
            queue.append((stamp_ns, message))
        elif any(waiting == stamp_ns for waiting, _ in queue):
            state.dropped[DUPLICATE] += 1
            return []
        else:
            insort(queue, (stamp_ns, message), key=lambda item: item[0])
        pairs = self._match() if all(self._queues) else []
        while len(queue) > self._queue_size:
            self._drop_oldest(state, QUEUE_FULL)
        return pairs

    def reset(self, reason: str = CLOCK_JUMP) -> None:
        """Forget what waits and what was passed: time has jumped, stamps start anew."""
        for state in self._streams.values():
            while state.queue:
                self._drop_oldest(state, reason)
            state.passed_ns = None

    def give_up_waiting(self) -> None:
        """Drop what waits as unmatched: the streams have gone silent."""
        for state in self._streams.values():
            while state.queue:
                self._drop_oldest(state, UNMATCHED)

    def _match(self) -> list[Pair]:
        states, queues, pairs = self._states, self._queues, []
        while all(queues):
            stamps, messages = zip(*[queue[0] for queue in queues], strict=True)
            oldest = min(stamps)
            if max(stamps) - oldest <= self._slop_ns:
                for state in states:
                    state.passed_ns = state.queue.popleft()[0]
                pairs.append(Pair(stamps[0], stamps, messages))
            else:
                self._drop_oldest(states[stamps.index(oldest)], UNMATCHED)
        return pairs

    @staticmethod
    def _drop_oldest(state: _Stream, reason: str) -> None:
        state.passed_ns = state.queue.popleft()[0]
        state.dropped[reason] += 1
