"""An outbox that a test can wait on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from omni_common.request import RequestKey
from omni_stage.scheduler.contract import Dropped, Emit, Failed, Outgoing, Result

ENOUGH = 20.0  # seconds: far more than any answer takes on a busy machine; a test that waits so long has failed


class Answers:
    """Collects what a scheduler says, in order. The waits raise TimeoutError with what has been said so far."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._said: list[Outgoing] = []
        self._calls: list[tuple[Outgoing, ...]] = []

    def __call__(self, answers: Sequence[Outgoing]) -> None:
        with self._changed:
            self._calls.append(tuple(answers))
            self._said += answers
            self._changed.notify_all()

    @property
    def calls(self) -> tuple[tuple[Outgoing, ...], ...]:
        """What was said, one call of the outbox each."""
        with self._changed:
            return tuple(self._calls)

    def about(self, key: RequestKey) -> tuple[Outgoing, ...]:
        with self._changed:
            return tuple(answer for answer in self._said if answer.key == key)

    def chunks(self, key: RequestKey) -> tuple[object, ...]:
        return tuple(answer.chunk for answer in self.about(key) if isinstance(answer, Emit))

    def wait_for(self, holds: Callable[[Sequence[Outgoing]], bool]) -> None:
        """Until what has been said satisfies `holds`."""
        with self._changed:
            if not self._changed.wait_for(lambda: holds(self._said), ENOUGH):
                raise TimeoutError(f"The scheduler has only said {self._said}.")

    def end_of(self, key: RequestKey) -> Result | Failed | Dropped:
        """The answer that ends the request, once it is there."""
        ends: list[Result | Failed | Dropped] = []

        def has_ended(said: Sequence[Outgoing]) -> bool:
            ends[:] = [a for a in said if a.key == key and isinstance(a, Result | Failed | Dropped)]
            return bool(ends)

        self.wait_for(has_ended)
        return ends[0]
