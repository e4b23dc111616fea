"""The loop that all schedulers share: one thread that takes from an inbox, steps, and answers through the outbox.

`submit` and `abort` only append to the inbox. The thread, named after the stage, goes round: take in everything that
has arrived, answer it (refusals, drops), run one step, answer that; each answer is one call of the outbox. When a
step says that nothing can run, the thread sleeps on a condition until something arrives or, where a batch is filling,
until that batch is due. All of a scheduler's state belongs to this thread alone.

An abort takes effect between two steps. From the moment `abort` is called nothing more is said about the request but
Dropped: what the step under way makes for it is thrown away. Nothing here catches a fault of the scheduler itself:
its thread ends, its heartbeat stands still, and liveness restarts the process.

The inbox has no capacity of its own. What it may hold is bounded by its senders: requests by the admission of the
coordinator, chunks by the credits of their edge, aborts by the requests.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from omni_common.errors import OmniError, Overloaded, StageFailed
from omni_common.request import RequestKey
from omni_stage.scheduler.contract import (
    Dropped,
    Failed,
    Incoming,
    Load,
    NewRequest,
    Outbox,
    Outgoing,
    Result,
)
from omni_stage.scheduler.meter import Meter, StageMeter

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

_NAMED = 16  # requests of a batch, in a line of the log


@dataclass(frozen=True, slots=True)
class Abort:
    key: RequestKey


Continuation = Callable[[], Sequence[Outgoing]]
"""Work of a helper thread that comes back to be finished in the scheduler's own thread."""

Wait = float | None
"""How long the loop may sleep after a step: 0 not at all, None until something arrives."""


class Worker(ABC):
    """A scheduler's thread, inbox and heartbeat; a subclass says what to do. Its hooks run in that thread only."""

    def __init__(self, *, stage: str, meter: Meter | None = None) -> None:
        self.stage = stage
        self._meter = StageMeter(stage) if meter is None else meter
        self._changed = threading.Condition()
        self._inbox: list[Incoming | Abort | Continuation] = []
        self._aborting: set[RequestKey] = set()
        self._stopping = False
        self._sleeping = False
        self._round = time.monotonic()
        self._load = Load(0, 0)
        self._thread: threading.Thread | None = None
        self._outbox: Outbox | None = None

    @abstractmethod
    def _take(self, item: Incoming) -> Sequence[Outgoing]:
        """Takes up one item; late ones are ignored."""

    @abstractmethod
    def _drop(self, key: RequestKey) -> Sequence[Outgoing]:
        """Forgets the request, which may be unknown; Dropped comes now or when nothing of it is left."""

    @abstractmethod
    def _step(self) -> tuple[Sequence[Outgoing], Wait]:
        """Runs what can run now, once."""

    def _is_due(self, key: RequestKey) -> bool:
        """Whether the request, which may be unknown, has something to do that only this stage's load can hold up."""
        return False

    @abstractmethod
    def _current_load(self) -> Load: ...

    @abstractmethod
    def _close(self) -> None:
        """Frees what the requests still alive hold; the loop has ended."""

    def start(self, outbox: Outbox) -> None:
        if self._thread is not None:
            raise RuntimeError(f"The scheduler of stage '{self.stage}' was started before.")
        self._outbox = outbox
        self._thread = threading.Thread(target=self._run, name=self.stage, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def submit(self, item: Incoming) -> None:
        self._put(item)

    def abort(self, key: RequestKey) -> None:
        with self._changed:
            if key not in self._aborting:
                self._aborting.add(key)
                self._inbox.append(Abort(key))
                self._changed.notify()

    def load(self) -> Load:
        return self._load

    def last_step(self) -> float:
        """Now, while the loop sleeps because nothing can run: it is alive. Never, once a fault has ended it."""
        if self._thread is not None and not self._thread.is_alive() and not self._stopping:
            return float("-inf")
        with self._changed:
            return time.monotonic() if self._sleeping and not self._inbox else self._round

    def _put(self, item: Incoming | Continuation) -> None:
        with self._changed:
            self._inbox.append(item)
            self._changed.notify()

    def _run(self) -> None:
        wait: Wait = None
        while (items := self._receive(wait)) is not None:
            wait = self._go_round(items)
            # The loop may now sleep for long, and what it was given holds leases on shared memory.
            del items
        self._close()

    def _go_round(self, items: Sequence[Incoming | Abort | Continuation]) -> Wait:
        self._post(self._take_in(items))
        answers, wait = self._step()
        self._post(answers)
        return wait

    def _receive(self, wait: Wait) -> Sequence[Incoming | Abort | Continuation] | None:
        """What has arrived, after sleeping for at most `wait` if nothing has; None when it is time to stop."""
        with self._changed:
            if wait != 0.0:
                self._sleeping = True
                self._changed.wait_for(lambda: self._inbox or self._stopping, wait)
                self._sleeping = False
            self._round = time.monotonic()
            if self._stopping:
                return None
            items, self._inbox = self._inbox, []
            return items

    def _take_in(self, items: Sequence[Incoming | Abort | Continuation]) -> Sequence[Outgoing]:
        answers: list[Outgoing] = []
        for item in items:
            if isinstance(item, Abort):
                with self._changed:
                    self._aborting.discard(item.key)
                answers = [a for a in answers if a.key != item.key or isinstance(a, Dropped)]
                answers += self._drop(item.key)
            elif callable(item):
                answers += item()
            else:
                if isinstance(item, NewRequest):
                    self._meter.arrived(item.key)
                answers += self._take(item)
                self._meter.due(item.key, self._is_due(item.key))
        return answers

    def _post(self, answers: Sequence[Outgoing]) -> None:
        load = self._current_load()
        if load != self._load:
            self._load = load  # before the answers: who has the last Result finds the load without its request
            self._meter.load(load)
        with self._changed:
            kept = [a for a in answers if a.key not in self._aborting or isinstance(a, Dropped)]
        for answer in kept:
            if isinstance(answer, Result | Failed | Dropped):
                self._meter.ended(answer.key)
        if kept and self._outbox is not None:
            self._outbox(kept)

    def _refuse(self, key: RequestKey, waiting: int) -> Sequence[Outgoing]:
        message = f"Stage '{self.stage}' has {waiting} requests waiting."
        return (Failed(key, Overloaded(message, stage=self.stage)),)

    def _attempt(self, keys: Sequence[RequestKey], call: Callable[[], Value]) -> Value | OmniError:
        """Runs other people's code for these requests: what it raises fails requests, never the loop."""
        try:
            return call()
        except OmniError as error:
            return error
        except Exception:
            # The edge of the model's code: anything may come out of it, and it fails only who was being served.
            requests = [key.request_id for key in keys[:_NAMED]]
            logger.exception("the model's code raised", extra={"stage": self.stage, "request_ids": requests})
            return StageFailed(self.stage)
