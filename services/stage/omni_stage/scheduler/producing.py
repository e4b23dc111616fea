"""The scheduler for stages that turn one payload into a stream of chunks, piece by piece: the sentences of a text, the
windows of a long recording.

A turn takes one piece from one request's iterator, in a thread of the pool (see `scheduler.pool`); the iterator is
opened there too, with its first piece. Whose turn it is says `core.turn_queue`. A paused request is not advanced, so a
request holds no more than its iterator does, however long its stream is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from omni_common.errors import OmniError
from omni_common.request import RequestKey
from omni_stage.core.turn_queue import TurnQueue
from omni_stage.scheduler.contract import (
    Chunk,
    Done,
    Emit,
    Failed,
    Incoming,
    Load,
    NewRequest,
    Outgoing,
    Pause,
    Result,
    Resume,
)
from omni_stage.scheduler.meter import Meter
from omni_stage.scheduler.pool import PoolWorker
from omni_stage.scheduler.worker import Wait

OpenPieces = Callable[[NewRequest], Iterator[object]]


@runtime_checkable
class Closable(Protocol):
    """An iterator that holds something, such as a generator."""

    def close(self) -> object: ...


@dataclass(slots=True)
class _Production:
    """One request; its iterator is touched by the thread that makes its piece, and by the loop between two pieces."""

    request: NewRequest
    pieces: Iterator[object] | None = None


class ProducingScheduler(PoolWorker):
    """Emits each piece as it is made; the value that a generator returns is the request's result.

    `open_pieces` and the iterator fail their request: with an OmniError as it is, with anything else as StageFailed.
    An iterator that can be closed is closed once, however its request ends.
    """

    def __init__(
        self,
        open_pieces: OpenPieces,
        *,
        stage: str,
        max_running: int,
        max_waiting: int,
        threads: int = 1,
        meter: Meter | None = None,
    ) -> None:
        super().__init__(stage=stage, threads=threads, meter=meter)
        self._open_pieces = open_pieces
        self._queue = TurnQueue(max_running=max_running, max_waiting=max_waiting)
        self._productions: dict[RequestKey, _Production] = {}

    def _take(self, item: Incoming) -> Sequence[Outgoing]:
        if isinstance(item, NewRequest) != (item.key not in self._queue):
            self._meter.late()
            return ()
        match item:
            case NewRequest(key):
                if not self._queue.admit(key):
                    return self._refuse(key, self._queue.waiting)
                self._productions[key] = _Production(item)
            case Pause(key):
                self._queue.pause(key)
            case Resume(key):
                self._queue.resume(key)
            case Chunk() | Done():  # such a stage has no streams in
                self._meter.late()
        return ()

    def _step(self) -> tuple[Sequence[Outgoing], Wait]:
        while self._busy < self._threads and (key := self._queue.next_turn()) is not None:
            self._compute((key,), partial(self._advance, self._productions[key]), partial(self._answer, key))
        return (), None  # a piece that is made is something that arrives

    def _advance(self, production: _Production) -> Emit | Result:
        """Runs in a thread of the pool."""
        key = production.request.key
        if production.pieces is None:
            production.pieces = self._open_pieces(production.request)
        try:
            return Emit(key, next(production.pieces))
        except StopIteration as end:
            return Result(key, end.value)

    def _answer(self, key: RequestKey, made: Emit | Result | OmniError, seconds: float) -> Sequence[Outgoing]:
        self._meter.step((key,), seconds)
        if isinstance(made, Emit):
            self._queue.made(key)
            return (made,)
        self._forget(key)
        return (Failed(key, made) if isinstance(made, OmniError) else made,)

    def _forget(self, key: RequestKey) -> None:
        self._queue.end(key)
        production = self._productions.pop(key, None)
        if production is not None and isinstance(production.pieces, Closable):
            self._attempt((key,), production.pieces.close)

    def _is_due(self, key: RequestKey) -> bool:
        return self._queue.is_due(key)

    def _current_load(self) -> Load:
        return Load(running=self._queue.running, waiting=self._queue.waiting)

    def _close(self) -> None:
        super()._close()
        for key in self._queue.keys:
            self._forget(key)
