"""Whose piece a producing stage makes next.

Those that have made nothing yet come first, in order of arrival, as far as there are places (see `core.places`); then
those that have a place take turns, the one served longest ago first. A request has one piece under way at a time.
"""

from __future__ import annotations

from omni_common.request import RequestKey
from omni_stage.core.places import Places


class TurnQueue(Places[None]):
    """The requests of one producing stage."""

    def __init__(self, *, max_running: int, max_waiting: int) -> None:
        super().__init__(lambda: None, max_running=max_running, max_waiting=max_waiting)
        self._under_way: set[RequestKey] = set()

    def next_turn(self) -> RequestKey | None:
        """Whose piece is under way from now on, until `made`; None when nobody can go on."""
        able = [key for key in self._here if key not in self._under_way and self._may_be_served(key)]
        if not able:
            return None
        key = min(able, key=lambda key: key in self._begun)  # the first of the fresh ones, else of all
        self._begun.add(key)
        self._under_way.add(key)
        return key

    def made(self, key: RequestKey) -> None:
        """Its piece is there: it queues up again at the end."""
        self._under_way.discard(key)
        self._here[key] = self._here.pop(key)

    def is_due(self, key: RequestKey) -> bool:
        return super().is_due(key) and key not in self._under_way

    def end(self, key: RequestKey) -> bool:
        self._under_way.discard(key)
        return super().end(key)
