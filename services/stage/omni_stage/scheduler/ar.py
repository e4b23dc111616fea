"""The scheduler for autoregressive stages: continuous batching over a model runner (see `core.ar_queue`).

A request is opened at the runner when it is admitted and its chunks are fed as they arrive, so a bad prompt fails at
once and `runner.ready` can tell when the request may start; the cache comes with its first step. Each step is one
`runner.execute`. What the runner says about requests that are not here (any more) is thrown away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from omni_common.errors import OmniError
from omni_common.request import RequestKey
from omni_stage.core.ar_queue import ArQueue
from omni_stage.scheduler.ar_contract import Batch, ModelRunner
from omni_stage.scheduler.contract import (
    Chunk,
    Done,
    Dropped,
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


class ArScheduler(Worker):
    """Steps the sequences of one model runner. `max_resident` bounds the caches, twice the batch by default."""

    def __init__(
        self,
        runner: ModelRunner,
        *,
        stage: str,
        max_running: int,
        max_waiting: int,
        max_resident: int | None = None,
        max_prefill: int = 1,
        meter: Meter | None = None,
    ) -> None:
        super().__init__(stage=stage, meter=meter)
        self._runner = runner
        self._queue = ArQueue(
            max_running=max_running, max_waiting=max_waiting, max_resident=max_resident, max_prefill=max_prefill
        )
        self._broken: dict[RequestKey, OmniError] = {}

    def _take(self, item: Incoming) -> Sequence[Outgoing]:
        if isinstance(item, NewRequest) != (item.key not in self._queue):
            self._meter.late()
            return ()
        match item:
            case NewRequest(key):
                return self._admit(item)
            case Chunk(key, source, chunk):
                return self._tell_runner(key, lambda: self._runner.feed(key, source, chunk))
            case Done(key, source):
                return self._tell_runner(key, lambda: self._runner.close_input(key, source))
            case Pause(key):
                self._queue.pause(key)
            case Resume(key):
                self._queue.resume(key)
        return ()

    def _admit(self, request: NewRequest) -> Sequence[Outgoing]:
        if not self._queue.admit(request.key):
            return self._refuse(request.key, self._queue.waiting)
        return self._tell_runner(request.key, lambda: self._runner.open(request))

    def _tell_runner(self, key: RequestKey, call: Callable[[], None]) -> Sequence[Outgoing]:
        failure = self._attempt((key,), call)
        return self._fail(key, failure) if failure is not None else ()

    def _drop(self, key: RequestKey) -> Sequence[Outgoing]:
        self._end(key)
        return (Dropped(key),)

    def _step(self) -> tuple[Sequence[Outgoing], Wait]:
        batch = self._queue.next_batch(self._is_ready)
        answers: list[Outgoing] = []
        if batch is not None:
            answers += self._execute(batch)
        while self._broken:
            answers += self._fail(*self._broken.popitem())
        self._meter.caches(self._runner.cache_use(), self._queue.usage)
        return answers, 0.0 if answers or batch is not None else None

    def _is_ready(self, key: RequestKey) -> bool:
        ready = self._attempt((key,), lambda: bool(self._runner.ready(key)))
        if isinstance(ready, OmniError):
            self._broken[key] = ready
            return False
        return ready

    def _execute(self, batch: Batch) -> Sequence[Outgoing]:
        keys = (*batch.prefill, *batch.decode)
        self._meter.begin(keys)
        begun = time.monotonic()
        made = self._attempt(keys, lambda: tuple(self._runner.execute(batch)))
        self._meter.step(keys, time.monotonic() - begun)
        self._meter.prompt(self._runner.prompt_tokens, self._runner.reused_tokens)
        self._queue.stepped(batch)
        if isinstance(made, OmniError):
            return [answer for key in keys for answer in self._fail(key, made)]
        return [answer for answer in made if self._holds(answer)]

    def _holds(self, answer: Outgoing) -> bool:
        """Whether the answer is about a request that is here; the answer that ends a request is its last."""
        if isinstance(answer, Result | Failed):
            return self._end(answer.key)
        return answer.key in self._queue

    def _fail(self, key: RequestKey, error: OmniError) -> Sequence[Outgoing]:
        return (Failed(key, error),) if self._end(key) else ()

    def _end(self, key: RequestKey) -> bool:
        known = self._queue.end(key)
        if known:
            self._attempt((key,), lambda: self._runner.close(key))
        return known

    def _is_due(self, key: RequestKey) -> bool:
        return self._queue.may_step(key) and self._is_ready(key)

    def _current_load(self) -> Load:
        return Load(running=self._queue.resident, waiting=self._queue.waiting)

    def _close(self) -> None:
        for key in self._queue.keys:
            self._end(key)
