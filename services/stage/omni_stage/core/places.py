"""Who is in a stage: the requests that wait, and those that hold one of its places.

A request takes one of `max_running` places when it is first served and keeps it until it ends, because from then on
it holds memory. More than `max_running + max_waiting` requests are refused. A paused request is not served; it keeps
its place if it has one, and takes none as long as it has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from omni_common.request import RequestKey

State = TypeVar("State")


class Places(Generic[State]):
    """The requests of one stage. A queue built on it adds what it knows of each (`State`) and whose turn it is."""

    def __init__(self, fresh: Callable[[], State], *, max_running: int, max_waiting: int) -> None:
        if max_running < 1:
            raise ValueError("A stage runs at least one request.")
        self._fresh = fresh
        self._max_running = max_running
        self._capacity = max_running + max_waiting
        self._here: dict[RequestKey, State] = {}  # in order of arrival, unless the queue moves them
        self._begun: set[RequestKey] = set()
        self._paused: set[RequestKey] = set()

    def __contains__(self, key: RequestKey) -> bool:
        return key in self._here

    @property
    def keys(self) -> tuple[RequestKey, ...]:
        return tuple(self._here)

    @property
    def running(self) -> int:
        return len(self._begun)

    @property
    def waiting(self) -> int:
        return len(self._here) - len(self._begun)

    def admit(self, key: RequestKey) -> bool:
        """Takes the request in, or answers False when there is no room for it."""
        if len(self._here) >= self._capacity:
            return False
        self._here[key] = self._fresh()
        return True

    def pause(self, key: RequestKey) -> None:
        self._paused.add(key)

    def resume(self, key: RequestKey) -> None:
        self._paused.discard(key)

    def is_due(self, key: RequestKey) -> bool:
        """Whether it has something to do, and nothing but a place or its turn can hold that up."""
        return key in self._here and key not in self._paused and self._has_work(self._here[key])

    def end(self, key: RequestKey) -> bool:
        """Forgets the request; False when it is not here (any more)."""
        if key not in self._here:
            return False
        del self._here[key]
        self._begun.discard(key)
        self._paused.discard(key)
        return True

    def _has_work(self, state: State) -> bool:
        return True

    def _may_be_served(self, key: RequestKey) -> bool:
        """Whether it has a place or can take one, and its way out is not full."""
        has_place = key in self._begun or len(self._begun) < self._max_running
        return has_place and key not in self._paused
