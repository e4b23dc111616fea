"""The scheduler for stages that turn streams of chunks into streams of chunks and compute the chunks of many requests
in one batch: a synthesiser of sentences, a recogniser of windows.

Which chunks make up a batch says `core.stream_batch_queue`. A step opens the sessions of the requests that are new in
it, computes the batch and finishes the sessions that are complete with it, all in one thread of its own (see
`scheduler.pool`), so that no session and no model is touched from two threads at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from omni_common.errors import OmniError
from omni_common.request import RequestKey
from omni_stage.core.stream_batch_queue import BatchItem, BatchStep, StreamBatchLimits, StreamBatchQueue
from omni_stage.scheduler.contract import (
    Chunk,
    Consumed,
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
from omni_stage.scheduler.pool import PoolWorker, one_each
from omni_stage.scheduler.streaming import Finishing, finished
from omni_stage.scheduler.worker import Wait


class BatchSession(Finishing, Protocol):
    """One request's state. OmniError fails the request; so does anything else, as StageFailed.

    It is finished when all sources are done and all items computed.
    """

    def close(self) -> None:
        """Frees what the session holds. Called once, however the request ends, and never while it is computed."""


Session = TypeVar("Session", bound=BatchSession)


@dataclass(frozen=True, slots=True)
class Item(Generic[Session]):
    """One chunk in a batch, the `index`-th of its request. Those of one request are in order, not always adjacent."""

    session: Session
    chunk: object
    index: int


@dataclass(slots=True)
class _Member(Generic[Session]):
    """One request; its session is touched by the pool's thread, and by the loop between two steps."""

    request: NewRequest
    session: Session | None = None


class StreamBatchScheduler(PoolWorker, Generic[Session]):
    """Computes batches of items: for each the chunks to emit, or the error of that one request, in their order.

    What `compute` raises fails all requests of the batch as StageFailed: nobody can be blamed for it. `cost` puts a
    size to a chunk for `limits`, 0 to one that the model has nothing to do for; it is called in the loop, when the
    chunk arrives. `sources` is how many streams feed a request; it is over when all are done. With `one_per_request` a
    batch holds no two items of one request.
    """

    def __init__(
        self,
        open_session: Callable[[NewRequest], Session],
        compute: Callable[[Sequence[Item[Session]]], Sequence[Sequence[object] | OmniError]],
        *,
        stage: str,
        max_running: int,
        max_waiting: int,
        limits: StreamBatchLimits,
        cost: Callable[[object], float],
        sources: int = 1,
        one_per_request: bool = False,
        meter: Meter | None = None,
    ) -> None:
        super().__init__(stage=stage, meter=meter)
        self._open_session = open_session
        self._compute_batch = compute
        self._cost = cost
        self._queue = StreamBatchQueue(
            limits, max_running=max_running, max_waiting=max_waiting, sources=sources, one_per_request=one_per_request
        )
        self._members: dict[RequestKey, _Member[Session]] = {}

    def _take(self, item: Incoming) -> Sequence[Outgoing]:
        is_late = isinstance(item, NewRequest) != (item.key not in self._queue)
        if is_late or item.key in self._last_words:
            self._meter.late()
            return ()
        match item:
            case NewRequest(key):
                if not self._queue.admit(key):
                    return self._refuse(key, self._queue.waiting)
                self._members[key] = _Member(item)
            case Chunk():
                return self._push(item)
            case Done(key, source):
                self._queue.done(key, source)
            case Pause(key):
                self._queue.pause(key)
            case Resume(key):
                self._queue.resume(key)
        return ()

    def _push(self, item: Chunk) -> Sequence[Outgoing]:
        cost = self._attempt((item.key,), lambda: self._cost(item.chunk))
        if isinstance(cost, OmniError):
            return self._end(Failed(item.key, cost))
        self._queue.push(item.key, item.source, item.chunk, cost)
        return ()

    def _step(self) -> tuple[Sequence[Outgoing], Wait]:
        step = None if self._busy else self._queue.next_step()
        if step is None:
            return (), None  # a batch that ends is something that arrives
        members = {key: self._members[key] for key in step.keys}
        self._compute(step.keys, partial(self._run_step, step, members), partial(self._answer, step))
        return [Consumed(item.key, item.source) for item in step.items], None

    def _run_step(self, step: BatchStep, members: dict[RequestKey, _Member[Session]]) -> Sequence[Outgoing]:
        """Runs in the pool's thread. The answer that ends a request is the last about it."""
        errors: dict[RequestKey, OmniError] = {}
        for key, member in members.items():
            if member.session is None:
                opened = self._attempt((key,), partial(self._open_session, member.request))
                if isinstance(opened, OmniError):
                    errors[key] = opened
                else:
                    member.session = opened
        sessions = {key: member.session for key, member in members.items() if member.session is not None}
        items = [item for item in step.items if item.key in sessions]
        answers: list[Outgoing] = []
        for item, made in zip(items, self._computed(items, sessions), strict=True):
            if isinstance(made, OmniError):
                errors.setdefault(item.key, made)
            elif item.key not in errors:
                answers += [Emit(item.key, chunk) for chunk in made]
        for key in step.ending:
            if key not in errors:
                answers += self._finish(key, sessions[key])
        return [*answers, *(Failed(key, error) for key, error in errors.items())]

    def _computed(
        self, items: Sequence[BatchItem], sessions: Mapping[RequestKey, Session]
    ) -> Sequence[Sequence[object] | OmniError]:
        if not items:
            return ()
        batch = [Item(sessions[item.key], item.chunk, item.index) for item in items]
        made = self._attempt([item.key for item in items], lambda: _made(self._compute_batch, batch))
        return [made] * len(items) if isinstance(made, OmniError) else made

    def _finish(self, key: RequestKey, session: Session) -> Sequence[Outgoing]:
        ended = self._attempt((key,), lambda: finished(session))
        if isinstance(ended, OmniError):
            return (Failed(key, ended),)
        chunks, value = ended
        return (*(Emit(key, chunk) for chunk in chunks), Result(key, value))

    def _answer(self, step: BatchStep, made: Sequence[Outgoing] | OmniError, seconds: float) -> Sequence[Outgoing]:
        if step.work:
            self._meter.step([item.key for item in step.work], seconds)
        answers = [Failed(key, made) for key in step.keys] if isinstance(made, OmniError) else made
        for answer in answers:
            if isinstance(answer, Result | Failed):
                self._forget(answer.key)
        return answers

    def _forget(self, key: RequestKey) -> None:
        self._queue.end(key)
        member = self._members.pop(key, None)
        if member is not None and member.session is not None:
            self._attempt((key,), member.session.close)

    def _is_due(self, key: RequestKey) -> bool:
        return self._queue.is_due(key)

    def _current_load(self) -> Load:
        return Load(running=self._queue.running, waiting=self._queue.waiting)

    def _close(self) -> None:
        super()._close()
        for key in self._queue.keys:
            self._forget(key)


# Made whole here, where its exceptions are caught. An error that is raised names no request of the batch as its cause.
def _made(
    compute: Callable[[Sequence[Item[Session]]], Sequence[Sequence[object] | OmniError]], batch: Sequence[Item[Session]]
) -> Sequence[Sequence[object] | OmniError]:
    try:
        made = one_each(compute(batch), len(batch))
        return [chunks if isinstance(chunks, OmniError) else tuple(chunks) for chunks in made]
    except OmniError as error:
        raise RuntimeError("An error was raised for a whole batch.") from error
