"""Requests that are over here, remembered for a while so that what comes late for them is dropped."""

from __future__ import annotations

from collections import OrderedDict

from omni_common.request import RequestKey

# Longer than any event can be under way: streams between stages break after 10 s without an answer.
KEEP_SECONDS = 60.0


class Tombstones:
    """Bounded by age, never by count: forgetting one early would let a dead request live again."""

    def __init__(self) -> None:
        self._buried: OrderedDict[RequestKey, float] = OrderedDict()
        self._latest: dict[str, RequestKey] = {}

    def bury(self, key: RequestKey, now: float) -> None:
        self._buried.pop(key, None)
        self._buried[key] = now
        self._latest[key.request_id] = key
        self._evict(now)

    def has_request(self, request_id: str) -> bool:
        """Whether any attempt at the request is over here."""
        return request_id in self._latest

    def __contains__(self, key: RequestKey) -> bool:
        return key in self._buried

    def __len__(self) -> int:
        return len(self._buried)

    def _evict(self, now: float) -> None:
        while self._buried:
            key, since = next(iter(self._buried.items()))
            if now - since < KEEP_SECONDS:
                return
            del self._buried[key]
            if self._latest.get(key.request_id) == key:
                del self._latest[key.request_id]
