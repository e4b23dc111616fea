"""What waits per request, in order: events that cannot leave yet, or that came before their tensors.

Later events of a request wait behind it; other requests go on. What waits is bounded by who makes it: chunks by the
credits of their edge, payloads and ends of streams by their nature, all of it by the admission of requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from omni_common.request import RequestKey

Item = TypeVar("Item")


class Waiting(Generic[Item]):
    """One queue a request."""

    def __init__(self) -> None:
        self._queues: dict[RequestKey, deque[Item]] = {}

    def __contains__(self, key: RequestKey) -> bool:
        return key in self._queues

    def __bool__(self) -> bool:
        return bool(self._queues)

    @property
    def keys(self) -> tuple[RequestKey, ...]:
        """Requests of which something waits, whoever began to wait first coming first."""
        return tuple(self._queues)

    def put(self, key: RequestKey, item: Item) -> None:
        self._queues.setdefault(key, deque()).append(item)

    def first(self, key: RequestKey) -> Item | None:
        queue = self._queues.get(key)
        return queue[0] if queue else None

    def pop(self, key: RequestKey) -> None:
        """The first one waits no more. Nothing changes if the request has been dropped meanwhile."""
        if queue := self._queues.get(key):
            queue.popleft()
            if not queue:
                del self._queues[key]

    def drop(self, key: RequestKey) -> Sequence[Item]:
        """The request is over: what waited of it."""
        return self._queues.pop(key, ())
