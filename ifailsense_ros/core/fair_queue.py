"""Requests of several clients that wait for one detector: clients take turns, each in its order.

Pure: the caller brings the steady time. Whoever asks most, or has stopped listening, costs the
others no more than its turn.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(eq=False)
class Request(Generic[Item]):
    """One thing to be done.

    Attributes:
        client: whose turn it takes.
        item: what is to be done.
        came_at: steady time, nanoseconds.
        until: steady time after which nobody waits for it; None: for ever.
        alone: it must not share a batch.
    """

    client: str
    item: Item
    came_at: int
    until: int | None = None
    alone: bool = field(default=False, init=False)


class FairQueue(Generic[Item]):
    """See above.

    Args:
        per_client: most requests of one client that may wait.
    """

    def __init__(self, per_client: int) -> None:
        self.per_client = per_client
        # In the order of their turns; a client without requests is not kept.
        self._clients: OrderedDict[str, deque[Request[Item]]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._clients.values()))

    def waiting(self, client: str) -> int:
        """Requests of one client."""
        return len(self._clients.get(client, ()))

    def put(self, request: Request[Item]) -> bool:
        """Take a request; False, and it is not taken, if its client has too many waiting."""
        if self.waiting(request.client) >= self.per_client:
            return False
        self._clients.setdefault(request.client, deque()).append(request)
        return True

    def put_back(self, requests: list[Request[Item]]) -> None:
        """Requests of the last batch were not done through a fault of one of them, and nobody knows
        of which: each is to be done again by itself, before anything else of its client.
        """
        for request in reversed(requests):
            request.alone = True
            self._clients.setdefault(request.client, deque()).appendleft(request)
            self._clients.move_to_end(request.client, last=False)

    def take_expired(self, now: int) -> list[Request[Item]]:
        """Those that nobody waits for any more; they leave."""
        expired = []
        for client, requests in list(self._clients.items()):
            late = [r for r in requests if r.until is not None and now >= r.until]
            if late:
                expired += late
                self._keep(client, deque(r for r in requests if r not in late))
        return expired

    def take_all(self) -> list[Request[Item]]:
        """Everything; it leaves."""
        everything = [request for requests in self._clients.values() for request in requests]
        self._clients.clear()
        return everything

    def take(self, limit: int) -> list[Request[Item]]:
        """The next batch, at most `limit`: one of each client, then a second of each, and so on.

        The next call begins with the client after the last. A request that must be alone is.
        """
        batch: list[Request[Item]] = []
        while self._clients and len(batch) < limit:
            client, requests = next(iter(self._clients.items()))
            if batch and requests[0].alone:
                break
            batch.append(requests.popleft())
            self._clients.move_to_end(client)
            self._keep(client, requests)
            if batch[0].alone:
                break
        return batch

    def _keep(self, client: str, requests: deque[Request[Item]]) -> None:
        if requests:
            self._clients[client] = requests
        else:
            del self._clients[client]
