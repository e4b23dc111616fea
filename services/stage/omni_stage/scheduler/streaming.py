"""The scheduler for stages that turn streams of chunks into streams of chunks: detokeniser, vocoder.

Each request has a session, opened when its first chunk (or the end of its input) is there. A session is handed all
chunks that have queued up since its last turn, so that a stage which falls behind works in larger pieces. Requests
are served in turn (see `core.stream_queue`); a step goes on to the next request until its time budget is spent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from omni_common.errors import OmniError
from omni_common.request import RequestKey
from omni_stage.core.stream_queue import StreamQueue, Turn
from omni_stage.scheduler.contract import (
    Chunk,
    Consumed,
    Done,
    Dropped,
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
from omni_stage.scheduler.worker import Wait, Worker

# Cheap turns (text) of many requests share one answer, a costly one (audio) is answered at once: 2 ms is several
# times what an answer costs on its way out and less than anyone waiting for sound can hear.
STEP_BUDGET = 0.002


class Finishing(Protocol):
    """The end of a session."""

    def finish(self) -> tuple[Sequence[object], object]:
        """All sources are done: the last chunks to emit, and the request's result."""


class Session(Finishing, Protocol):
    """One request's state in a streaming stage. OmniError fails the request; so does anything else, as StageFailed."""

    def push(self, source: str, chunks: Sequence[object]) -> Sequence[object]:
        """Takes all chunks that have queued up from one source; what it returns is emitted."""

    def close(self) -> None:
        """Frees what the session holds. Called once, however the request ends."""


class StreamScheduler(Worker):
    """Runs one session a request. `sources` is how many streams feed a request; it is over when all are done."""

    def __init__(
        self,
        open_session: Callable[[NewRequest], Session],
        *,
        stage: str,
        max_running: int,
        max_waiting: int,
        sources: int = 1,
        meter: Meter | None = None,
    ) -> None:
        super().__init__(stage=stage, meter=meter)
        self._open_session = open_session
        self._queue = StreamQueue(max_running=max_running, max_waiting=max_waiting, sources=sources)
        self._requests: dict[RequestKey, NewRequest] = {}  # admitted, not begun
        self._sessions: dict[RequestKey, Session] = {}

    def _take(self, item: Incoming) -> Sequence[Outgoing]:
        if isinstance(item, NewRequest) != (item.key not in self._queue):
            self._meter.late()
            return ()
        match item:
            case NewRequest(key):
                if not self._queue.admit(key):
                    return self._refuse(key, self._queue.waiting)
                self._requests[key] = item
            case Chunk(key, source, chunk):
                self._queue.push(key, source, chunk)
            case Done(key, source):
                self._queue.done(key, source)
            case Pause(key):
                self._queue.pause(key)
            case Resume(key):
                self._queue.resume(key)
        return ()

    def _drop(self, key: RequestKey) -> Sequence[Outgoing]:
        self._end(key)
        return (Dropped(key),)

    def _step(self) -> tuple[Sequence[Outgoing], Wait]:
        answers: list[Outgoing] = []
        begun = now = time.monotonic()
        served: list[RequestKey] = []
        while now - begun < STEP_BUDGET:
            turn = self._queue.next_turn()
            if turn is None:
                break
            self._meter.begin((turn.key,))
            answers += self._serve(turn)
            served.append(turn.key)
            now = time.monotonic()
        if served:
            self._meter.step(served, now - begun)
        return answers, 0.0 if served else None

    def _serve(self, turn: Turn) -> Sequence[Outgoing]:
        """One request's turn. The credits of its chunks go back even if it fails."""
        answers: list[Outgoing] = [Consumed(turn.key, source, len(chunks)) for source, chunks in turn.chunks]
        failure = self._begin(turn.key) if turn.first else None
        if failure is None:
            made, failure = self._push(turn)
            answers += made
        if failure is not None:
            self._end(turn.key)
            answers.append(Failed(turn.key, failure))
        elif turn.last:
            answers += self._finish(turn.key)
        return answers

    def _push(self, turn: Turn) -> tuple[Sequence[Outgoing], OmniError | None]:
        session = self._sessions[turn.key]
        answers: list[Outgoing] = []
        for source, chunks in turn.chunks:
            made = self._attempt((turn.key,), partial(_pushed, session, source, chunks))
            if isinstance(made, OmniError):
                return answers, made
            answers += [Emit(turn.key, chunk) for chunk in made]
        return answers, None

    def _begin(self, key: RequestKey) -> OmniError | None:
        request = self._requests.pop(key)
        session = self._attempt((key,), lambda: self._open_session(request))
        if isinstance(session, OmniError):
            return session
        self._sessions[key] = session
        return None

    def _finish(self, key: RequestKey) -> Sequence[Outgoing]:
        ended = self._attempt((key,), partial(finished, self._sessions[key]))
        self._end(key)
        if isinstance(ended, OmniError):
            return (Failed(key, ended),)
        chunks, value = ended
        return (*(Emit(key, chunk) for chunk in chunks), Result(key, value))

    def _end(self, key: RequestKey) -> None:
        self._queue.end(key)
        self._requests.pop(key, None)
        session = self._sessions.pop(key, None)
        if session is not None:
            self._attempt((key,), session.close)

    def _is_due(self, key: RequestKey) -> bool:
        return self._queue.is_due(key)

    def _current_load(self) -> Load:
        return Load(running=self._queue.running, waiting=self._queue.waiting)

    def _close(self) -> None:
        for key in (*self._sessions, *self._requests):
            self._end(key)


# Made whole here, where their exceptions are caught: a session may well return a generator.
def _pushed(session: Session, source: str, chunks: Sequence[object]) -> tuple[object, ...]:
    return tuple(session.push(source, chunks))


def finished(session: Finishing) -> tuple[tuple[object, ...], object]:
    chunks, value = session.finish()
    return tuple(chunks), value
