"""The part that schedulers share whose loop never computes: their work runs in a pool of threads.

So refusals, and drops of requests that are not being computed, are answered while the model works. What a thread made
comes back to the loop, which answers for it. A request that is aborted, or fails, while it is being computed is
answered when that ends: until then its state is in use, and what was made for it is thrown away.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from omni_common.errors import OmniError
from omni_common.request import RequestKey
from omni_stage.scheduler.contract import Dropped, Failed, Outgoing
from omni_stage.scheduler.meter import Meter
from omni_stage.scheduler.worker import Worker

Value = TypeVar("Value")


class PoolWorker(Worker):
    """A scheduler that computes in `threads` threads of its own."""

    def __init__(self, *, stage: str, threads: int = 1, meter: Meter | None = None) -> None:
        super().__init__(stage=stage, meter=meter)
        self._threads = threads
        self._busy = 0
        self._under_way: dict[RequestKey, float] = {}  # being computed, since when
        self._last_words: dict[RequestKey, Dropped | Failed] = {}  # of those that ended while being computed
        self._oldest: float | None = None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"{stage}-compute")

    @abstractmethod
    def _forget(self, key: RequestKey) -> None:
        """Frees what the request, which may be unknown, holds; it is not being computed."""

    def last_step(self) -> float:
        """A computation that does not end holds the heartbeat back."""
        oldest = self._oldest
        return super().last_step() if oldest is None else oldest

    def _compute(
        self,
        keys: Sequence[RequestKey],
        work: Callable[[], Value],
        answer: Callable[[Value | OmniError, float], Sequence[Outgoing]],
    ) -> None:
        """Runs `work` for these requests (each once) in the pool; the loop then answers for what it gave, or raised,
        and the seconds it took."""
        self._busy += 1
        self._meter.begin(keys)
        self._under_way.update(dict.fromkeys(keys, time.monotonic()))
        self._oldest = min(self._under_way.values())
        self._pool.submit(self._run_work, keys, work, answer)

    def _run_work(
        self,
        keys: Sequence[RequestKey],
        work: Callable[[], Value],
        answer: Callable[[Value | OmniError, float], Sequence[Outgoing]],
    ) -> None:
        """Runs in a thread of the pool."""
        begun = time.monotonic()
        made = self._attempt(keys, work)
        seconds = time.monotonic() - begun
        self._put(lambda: self._come_back(keys, lambda: answer(made, seconds)))

    def _come_back(self, keys: Sequence[RequestKey], answer: Callable[[], Sequence[Outgoing]]) -> Sequence[Outgoing]:
        self._busy -= 1
        for key in keys:
            del self._under_way[key]
        self._oldest = min(self._under_way.values(), default=None)
        answers = answer()
        last = {key: self._last_words.pop(key) for key in keys if key in self._last_words}
        for key in last:
            self._forget(key)
        return (*(answer for answer in answers if answer.key not in last), *last.values())

    def _drop(self, key: RequestKey) -> Sequence[Outgoing]:
        return self._end(Dropped(key))

    def _end(self, last: Dropped | Failed) -> Sequence[Outgoing]:
        """Ends the request now or, if it is being computed, when that ends."""
        if last.key in self._under_way:
            self._last_words[last.key] = last
            return ()
        self._forget(last.key)
        return (last,)

    def _close(self) -> None:
        self._pool.shutdown(wait=True)


def one_each(values: Sequence[Value], count: int) -> Sequence[Value]:
    """The values that the model's code gave for a batch of so many."""
    if len(values) != count:
        raise ValueError(f"A batch of {count} gave {len(values)} values.")
    return values
