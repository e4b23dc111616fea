"""The ways out of a stage for one request: what may leave now, and what waits for credit."""

from __future__ import annotations

from collections import deque

from omni_stage.core.events import SendChunk

# A scheduler hears Pause at the first chunk that has to wait; what still comes is what its step under way made, at
# most what its input credits allow. Far above that a scheduler has ignored the Pause.
BACKLOG_LIMIT = 8192


class BacklogOverflow(Exception):
    """A scheduler went on producing although it was told to pause."""


class Outflow:
    """One stream edge of one request, on the sending side."""

    def __init__(self, target: str, credits: int) -> None:
        self._target = target
        self._credits = credits
        self._backlog: deque[object] = deque()
        self.sent = 0

    @property
    def blocked(self) -> bool:
        return bool(self._backlog)

    def offer(self, chunk: object) -> list[SendChunk]:
        """The chunk, if it may leave now; else it waits."""
        if len(self._backlog) >= BACKLOG_LIMIT:
            raise BacklogOverflow
        self._backlog.append(chunk)
        return self._release()

    def grant(self, chunks: int) -> list[SendChunk]:
        """What may leave with that much more credit."""
        self._credits += chunks
        return self._release()

    def _release(self) -> list[SendChunk]:
        leaving = []
        while self._backlog and self._credits:
            leaving.append(SendChunk(self._target, self.sent, self._backlog.popleft()))
            self._credits -= 1
            self.sent += 1
        return leaving
