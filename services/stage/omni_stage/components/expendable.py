"""Calls into libraries that may never return, such as a communicator whose peer is gone."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any, Generic, TypeVar

from omni_common.deadline import Deadline

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds between two looks at whether a call still makes sense.
LOOK = 0.05
# Seconds that a call has for returning once it was interrupted.
GRACE = 1.0
# Threads that may be left behind. Each holds what its call holds, memory of a device included, until the process ends.
MAX_LEFT = 8


class Expected(Exception):
    """What a call may raise by rights. Anything else ends its thread, and is said by `threading.excepthook`."""


class Stuck(Exception):
    """A call did not come back in time, or its thread died. Completes "the pair …"."""


class Expendable:
    """Runs calls one after the other in a thread of its own, and leaves the thread behind if one does not come back:
    the next call has a new thread. No thread of it holds up the end of the process.

    Owned by one thread.
    """

    def __init__(self, name: str, prepare: Callable[[], None] = lambda: None, *, grace: float = GRACE) -> None:
        """`prepare` is called first in each thread."""
        self._name = name
        self._grace = grace
        self._prepare = prepare
        self._worker: _Worker | None = None
        self._left: list[_Job[Any]] = []

    def call(
        self,
        function: Callable[[], T],
        deadline: Deadline,
        *,
        is_vain: Callable[[], bool] = lambda: False,
        interrupt: Callable[[], None] = lambda: None,
    ) -> T:
        """What the function returns, or the Expected that it raises. At the deadline, or when the call is in vain, it
        is interrupted, and left behind soon after. Raises Stuck."""
        self._left = [job for job in self._left if not job.future.done()]
        if len(self._left) >= MAX_LEFT:
            raise Stuck(f"is stuck {MAX_LEFT} times over, and given up")
        worker = self._worker = self._worker or _Worker(self._name, self._prepare)
        job = _Job(function)
        worker.jobs.put(job)
        while not deadline.passed and not is_vain():
            if self._has_ended(job, min(LOOK, deadline.remaining)):
                return job.future.result()
        interrupt()
        if self._has_ended(job, self._grace):
            return job.future.result()
        self._left.append(job)
        self.close()
        logger.warning("a call did not come back, and its thread was left behind", extra={"of": self._name})
        raise Stuck("got stuck")

    def close(self) -> None:
        """The thread ends once its last call has."""
        if self._worker is not None:
            self._worker.jobs.put(None)
            self._worker = None

    def _has_ended(self, job: _Job[T], seconds: float) -> bool:
        try:
            job.future.exception(seconds)
        except NotYet:
            if self._worker is not None and not self._worker.thread.is_alive():
                self._worker = None
                raise Stuck("died of an unexpected error") from None
            return False
        return True


class _Job(Generic[T]):
    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function
        self.future: Future[T] = Future()

    def run(self) -> None:
        try:
            result = self.function()
        except Expected as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class _Worker:
    def __init__(self, name: str, prepare: Callable[[], None]) -> None:
        self.jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._prepare = prepare
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self._prepare()
        while (job := self.jobs.get()) is not None:
            job.run()
            del job  # and what its call held
