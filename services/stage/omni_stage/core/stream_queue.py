"""Whose chunks a streaming stage works on next.

A request takes one of `max_running` places when it first has something to do (a chunk, or the end of its input) and
keeps it until it ends: a session holds state. As long as it has nothing to do it takes none, so that requests which
an earlier stage has not begun cannot lock out those that it has. Requests are served in turn; the one served last
goes to the end. A paused request keeps its chunks; how many these can be is bounded by the credits of its edges.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omni_common.request import RequestKey


@dataclass(slots=True)
class _Stream:
    chunks: dict[str, list[object]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    paused: bool = False
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """What one request is served: its chunks by source; `last` when no more can come."""

    key: RequestKey
    chunks: tuple[tuple[str, tuple[object, ...]], ...]
    first: bool
    last: bool


class StreamQueue:
    """The requests of one streaming stage; `sources` is how many streams feed each of them."""

    def __init__(self, *, max_running: int, max_waiting: int, sources: int = 1) -> None:
        if min(max_running, sources) < 1:
            raise ValueError("A streaming stage runs at least one request from at least one source.")
        self._max_running = max_running
        self._capacity = max_running + max_waiting
        self._sources = sources
        self._streams: dict[RequestKey, _Stream] = {}  # the one served longest ago comes first
        self._running = 0

    def __contains__(self, key: RequestKey) -> bool:
        return key in self._streams

    @property
    def running(self) -> int:
        return self._running

    @property
    def waiting(self) -> int:
        return len(self._streams) - self._running

    def admit(self, key: RequestKey) -> bool:
        """Takes the request in, or answers False when there is no room for it."""
        if len(self._streams) >= self._capacity:
            return False
        self._streams[key] = _Stream()
        return True

    def push(self, key: RequestKey, source: str, chunk: object) -> None:
        self._streams[key].chunks.setdefault(source, []).append(chunk)

    def done(self, key: RequestKey, source: str) -> None:
        self._streams[key].done.add(source)

    def pause(self, key: RequestKey) -> None:
        self._streams[key].paused = True

    def resume(self, key: RequestKey) -> None:
        self._streams[key].paused = False

    def end(self, key: RequestKey) -> bool:
        """Forgets the request; False when it is not here (any more)."""
        stream = self._streams.pop(key, None)
        if stream is None:
            return False
        self._running -= stream.begun
        return True

    def next_turn(self) -> Turn | None:
        """Takes the chunks of the request whose turn it is; None when nobody can go on."""
        for key, stream in self._streams.items():
            if self._can_go_on(stream):
                return self._serve(key, stream)
        return None

    def _can_go_on(self, stream: _Stream) -> bool:
        has_work = bool(stream.chunks) or self._is_complete(stream)
        has_place = stream.begun or self._running < self._max_running
        return has_work and has_place and not stream.paused

    def _serve(self, key: RequestKey, stream: _Stream) -> Turn:
        chunks = tuple((source, tuple(queued)) for source, queued in stream.chunks.items())
        turn = Turn(key, chunks, first=not stream.begun, last=self._is_complete(stream))
        stream.chunks.clear()
        self._running += not stream.begun
        stream.begun = True
        self._streams[key] = self._streams.pop(key)
        return turn

    def _is_complete(self, stream: _Stream) -> bool:
        return len(stream.done) >= self._sources
