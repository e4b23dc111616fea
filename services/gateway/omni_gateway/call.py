"""One request under way in the mesh, as the gateway sees it: events in order, credits back as they are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from omni_common.deadline import Deadline
from omni_common.errors import Cancelled, DeadlineExceeded, Internal, OmniError
from omni_common.request import (
    AudioOutput,
    FinishReason,
    Modality,
    Segment,
    StageReport,
    TextOutput,
    Usage,
    modality_of,
)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A coordinator owns the request now, under this identifier."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a request that ended well."""

    finish_reason: FinishReason
    usage: Usage
    reports: tuple[StageReport, ...] = ()


Event = Admitted | TextOutput | AudioOutput | Segment | Finished


class Call:
    """What arrives is bounded by the credits: the coordinator may send no more than the reader has taken.

    `give_credit(text, audio)` is how read outputs are reported; the link calls `arrive` and `fail`.
    """

    def __init__(
        self, ticket: int, *, deadline: Deadline, credits: int, give_credit: Callable[[int, int], None]
    ) -> None:
        self.ticket = ticket
        self.deadline = deadline
        self.over = False
        # It failed on this side only: the coordinator still has to be told.
        self.cut = False
        self._credits = credits
        self._give_credit = give_credit
        # Outputs that were sent on the credit given so far, and those of them that the reader has taken.
        self._held = {Modality.TEXT: 0, Modality.AUDIO: 0}
        self._taken = {Modality.TEXT: 0, Modality.AUDIO: 0}
        self._arrived: deque[Event] = deque()
        self._failure: OmniError | None = None
        self._news = anyio.Event()

    async def read(self, within: float | None = None) -> list[Event]:
        """Everything that has arrived. Waits for one event, at most `within` seconds: then the list is empty.

        Coming back for more is what says that the events read before are dealt with, and returns their credit.
        Raises the failure that ended the request, after every event before it; DeadlineExceeded on its own account.
        """
        self._return_credit()
        if not self._arrived and self._failure is None:
            left = self.deadline.remaining
            with anyio.move_on_after(left if within is None else min(left, within)):
                self._news = anyio.Event()
                await self._news.wait()
        if self._arrived:
            events = list(self._arrived)
            self._arrived.clear()
            self._count_taken(events)
            return events
        if self._failure is not None:
            raise self._failure
        if self.deadline.passed:
            raise DeadlineExceeded
        return []

    def arrive(self, event: Event) -> None:
        """The next event from the coordinator. A coordinator that ignores the credits fails the request."""
        if self.over:
            return
        if isinstance(event, TextOutput | AudioOutput | Segment):
            self._held[modality_of(event)] += 1
            if self._held[modality_of(event)] > self._credits:
                self.cut_off(Internal("The coordinator sent more than it may."))
                return
        self._arrived.append(event)
        if isinstance(event, Finished):
            self.over = True
        self._news.set()

    def fail(self, error: OmniError) -> None:
        """Ends the request badly, unless it is over."""
        if self.over:
            return
        self.over = True
        self._failure = error
        self._news.set()

    def cut_off(self, error: OmniError) -> None:
        """Ends it badly from this side."""
        self.cut = self.cut or not self.over
        self.fail(error)

    def leave(self) -> None:
        """The reader has gone: late events change nothing."""
        self.fail(Cancelled())
        self._arrived.clear()

    def _count_taken(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, TextOutput | AudioOutput | Segment):
                self._taken[modality_of(event)] += 1

    def _return_credit(self) -> None:
        # In quarters of the window: one message for several outputs, and the sender never waits for the last of them.
        least = max(1, self._credits // 4)
        given = {kind: taken for kind, taken in self._taken.items() if taken >= least}
        if not given or self.over:
            return
        for kind, taken in given.items():
            self._held[kind] -= taken
            self._taken[kind] = 0
        self._give_credit(given.get(Modality.TEXT, 0), given.get(Modality.AUDIO, 0))
