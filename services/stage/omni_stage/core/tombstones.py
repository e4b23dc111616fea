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
        self._lanes: set[str] = set()

    def bury(self, key: RequestKey, now: float) -> None:
        self._buried.pop(key, None)
        self._buried[key] = now
        self._lanes.add(key.lane)
        self._evict(now)

    def has_lane(self, lane: str) -> bool:
        """As `in`, for what names the lane."""
        return lane in self._lanes

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
            self._lanes.discard(key.lane)
