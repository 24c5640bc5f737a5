"""One detector, many askers: who is judged next, and what becomes of those who cannot be.

No ROS in it: a request brings the function that takes its judgement, which is called exactly once.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ifailsense_ros.core.effects import SECOND
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.fair_queue import FairQueue, Request
from ifailsense_ros.core.verdict import Judgement, Reason
from ifailsense_ros.model.handle import Answer, Died

Reply = Callable[[Judgement], None]

_REMEMBERED = 100
"""Clients whose counts are kept. Their names come from the network."""


class BatchWorker(Protocol):
    """What is used of `DetectorWorker`."""

    def submit_batch(self, requests: Sequence[tuple[int, Episode]]) -> None:
        """Have episodes judged together; an `Answer` will come for each."""

    def restart(self) -> None:
        """Drop what is being judged and load anew; `Ready` will follow."""


@dataclass
class ClientCounts:
    """What became of one client's requests: asked = waiting + being judged + the other counts.

    Attributes:
        counts: asked, judged (whatever the verdict), refused (too many waiting), expired, failed.
        latency_ns: of the last that was judged, from its arrival.
    """

    counts: Counter[str] = field(default_factory=Counter)
    latency_ns: int | None = None


@dataclass(frozen=True, eq=False)
class _Job:
    episode: Episode
    reply: Reply


class Dispatcher:
    """Hands requests to the worker, several at a time, one batch after the other.

    A batch during which the worker dies or hangs is judged again one by one, so that an episode
    that breaks the detector costs nobody else a verdict.

    Args:
        worker: started; `on_ready` says when it is loaded.
        per_client: most requests of one client that may wait.
        batch_size: most episodes in one batch.
        timeout_s: longest time for a batch; then the worker is restarted.
    """

    def __init__(
        self, worker: BatchWorker, per_client: int, batch_size: int, timeout_s: float
    ) -> None:
        self.batch_size = batch_size
        self.timeout_s = timeout_s
        self.batches: Counter[int] = Counter()
        """How many batches there were of each size."""
        self.clients: OrderedDict[str, ClientCounts] = OrderedDict()
        self._worker = worker
        self._queue: FairQueue[_Job] = FairQueue(per_client)
        self._judging: dict[int, Request[_Job]] = {}
        self._began = 0
        self._ready = False
        self._last_id = 0

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def per_client(self) -> int:
        """Most requests of one client that may wait."""
        return self._queue.per_client

    @per_client.setter
    def per_client(self, value: int) -> None:
        self._queue.per_client = value

    def waiting(self, client: str) -> int:
        """Requests of one client that wait."""
        return self._queue.waiting(client)

    def ask(
        self, client: str, episode: Episode, patience_s: float, reply: Reply, now_ns: int
    ) -> None:
        """Have an episode judged. `patience_s`: see JudgeEpisode.srv."""
        # What is no time to wait for is for ever; a NaN, too.
        limited = 0 < patience_s < 1e9
        until = now_ns + round(patience_s * SECOND) if limited else None
        request = Request(client, _Job(episode, reply), now_ns, until)
        self._of(client).counts["asked"] += 1
        if not self._queue.put(request):
            text = f"{self.per_client} episodes of {client} wait for the detector already"
            self._settle(request, "refused", Judgement.unknown(Reason.QUEUE_FULL, text))
        self._dispatch(now_ns)

    def on_ready(self, now_ns: int) -> None:
        """The worker is loaded and idle."""
        self._ready = True
        self._dispatch(now_ns)

    def on_answer(self, event: Answer, now_ns: int) -> None:
        """The worker has judged one of the batch."""
        request = self._judging.pop(event.request_id, None)
        if request is not None:
            self._of(request.client).latency_ns = now_ns - request.came_at
            self._settle(request, "judged", event.judgement)
        self._dispatch(now_ns)

    def on_died(self, event: Died) -> None:
        """The worker has ended by itself; it is started again."""
        self._lose(Judgement.unknown(Reason.DETECTOR_ERROR, event.detail))

    def work(self, now_ns: int) -> bool:
        """What falls due; whether the worker hung and was restarted."""
        for request in self._queue.take_expired(now_ns):
            text = "the shared detector was busy with other episodes for too long"
            self._settle(request, "expired", Judgement.unknown(Reason.DETECTOR_TIMEOUT, text))
        hangs = bool(self._judging) and now_ns >= self._began + round(self.timeout_s * SECOND)
        if hangs:
            text = f"no judgement within {self.timeout_s:g} s; the shared detector is restarted"
            self._lose(Judgement.unknown(Reason.DETECTOR_TIMEOUT, text))
        return hangs

    def settle_all(self, judgement: Judgement) -> None:
        """Everything that waits or is being judged gets this."""
        requests = [*self._judging.values(), *self._queue.take_all()]
        self._judging.clear()
        for request in requests:
            self._settle(request, "failed", judgement)

    def _dispatch(self, now_ns: int) -> None:
        if not self._ready or self._judging:
            return
        batch = self._queue.take(self.batch_size)
        if not batch:
            return
        for request in batch:
            self._last_id += 1
            self._judging[self._last_id] = request
        self._began = now_ns
        self.batches[len(batch)] += 1
        self._worker.submit_batch([(id, r.item.episode) for id, r in self._judging.items()])

    def _lose(self, judgement: Judgement) -> None:
        self._ready = False
        lost = list(self._judging.values())
        self._judging.clear()
        if len(lost) == 1:
            self._settle(lost[0], "failed", judgement)
        else:
            self._queue.put_back(lost)
        self._worker.restart()

    def _settle(self, request: Request[_Job], what: str, judgement: Judgement) -> None:
        self._of(request.client).counts[what] += 1
        request.item.reply(judgement)

    def _of(self, client: str) -> ClientCounts:
        counts = self.clients.setdefault(client, ClientCounts())
        self.clients.move_to_end(client)
        if len(self.clients) > _REMEMBERED:
            self.clients.popitem(last=False)
        return counts
