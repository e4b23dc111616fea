"""Whose chunks a streaming stage works on next.

A request takes one of the stage's places (see `core.places`) when it first has something to do: a chunk, or the end
of its input. As long as it has nothing to do it takes none, so that requests which an earlier stage has not begun
cannot lock out those that it has. Requests are served in turn; the one served last goes to the end. A paused request
keeps its chunks; how many these can be is bounded by the credits of its edges.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omni_common.request import RequestKey
from omni_stage.core.places import Places


@dataclass(slots=True)
class _Stream:
    chunks: dict[str, list[object]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one request is served: its chunks by source; `last` when no more can come."""

    key: RequestKey
    chunks: tuple[tuple[str, tuple[object, ...]], ...]
    first: bool
    last: bool


class StreamQueue(Places[_Stream]):
    """The requests of one streaming stage; `sources` is how many streams feed each of them."""

    def __init__(self, *, max_running: int, max_waiting: int, sources: int = 1) -> None:
        super().__init__(_Stream, max_running=max_running, max_waiting=max_waiting)
        if sources < 1:
            raise ValueError("A streaming stage is fed by at least one source.")
        self._sources = sources

    def push(self, key: RequestKey, source: str, chunk: object) -> None:
        self._here[key].chunks.setdefault(source, []).append(chunk)

    def done(self, key: RequestKey, source: str) -> None:
        self._here[key].done.add(source)

    def next_turn(self) -> Turn | None:
        """Takes the chunks of the request whose turn it is; None when nobody can go on."""
        for key, stream in self._here.items():
            if self._has_work(stream) and self._may_be_served(key):
                return self._serve(key, stream)
        return None

    def _serve(self, key: RequestKey, stream: _Stream) -> Turn:
        chunks = tuple((source, tuple(queued)) for source, queued in stream.chunks.items())
        turn = Turn(key, chunks, first=key not in self._begun, last=self._is_complete(stream))
        stream.chunks.clear()
        self._begun.add(key)
        self._here[key] = self._here.pop(key)  # the one served longest ago comes first
        return turn

    def _has_work(self, state: _Stream) -> bool:
        return bool(state.chunks) or self._is_complete(state)

    def _is_complete(self, stream: _Stream) -> bool:
        return len(stream.done) >= self._sources
