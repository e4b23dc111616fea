"""The caller of one Generate RPC: a mailbox that cannot overflow, since the stages send only what they have credit for.

Credit goes back when the caller comes for the next notice, which is when the write of the one before has completed:
a slow reader slows the request down and costs no memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

import anyio

from omni_common.errors import OmniError
from omni_common.request import Output, modality_of
from omni_coordinator.coordinator import Coordinator
from omni_coordinator.core.events import CallerGone, Finished, OutputRead
from omni_coordinator.live import LiveRequest
from omni_coordinator.submission import Submission

OUTPUT_CREDITS = 32
"""Outputs of each kind under way to a caller: two seconds of speech at 80 ms a piece, and room for a round trip."""

_KINDS = 2  # text and audio


@dataclass(frozen=True, slots=True)
class Admitted:
    request_id: str


@dataclass(frozen=True, slots=True)
class Piece:
    index: int
    output: Output


Notice = Admitted | Piece | Finished


class Mailbox:
    """A Caller on one side, an asynchronous iterator of notices on the other; a failure is raised from it."""

    def __init__(self) -> None:
        room = _KINDS * OUTPUT_CREDITS + 2  # and Admitted, and the end
        self._in, self._out = anyio.create_memory_object_stream[Notice | OmniError](room)
        self._live: LiveRequest | None = None
        self._read = OutputRead()
        self._over = False

    def admitted(self, live: LiveRequest) -> None:
        self._live = live
        self._in.send_nowait(Admitted(live.key.request_id))

    def output(self, index: int, output: Output) -> None:
        self._in.send_nowait(Piece(index, output))

    def finished(self, finished: Finished) -> None:
        self._in.send_nowait(finished)

    def failed(self, error: OmniError) -> None:
        self._in.send_nowait(error)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notice:
        if self._over:
            raise StopAsyncIteration
        self._return_credit()
        notice = await self._out.receive()  # the request's own deadline ends the wait
        match notice:
            case OmniError():
                raise notice
            case Piece(_, output):
                self._read = OutputRead(**{modality_of(output): 1})
            case Finished():
                self._over = True
        return notice

    def close(self) -> None:
        """The caller is gone, or has heard the end."""
        if self._live is not None:
            self._live.feed(CallerGone())
        self._in.close()
        self._out.close()

    def _return_credit(self) -> None:
        read, self._read = self._read, OutputRead()
        if self._live is not None:
            self._live.feed(read)


@asynccontextmanager
async def generating(coordinator: Coordinator, submission: Submission) -> AsyncIterator[AsyncIterator[Notice]]:
    """Submits the request; leaving early aborts it. Raises OmniError when it is refused."""
    mailbox = Mailbox()
    try:
        coordinator.submit(submission, mailbox)
        yield mailbox
    finally:
        mailbox.close()
