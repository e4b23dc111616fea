"""A reply that is written while it is made.

It begins only when there is something to answer with, so whatever fails before that keeps its own HTTP status. From
then on it always ends in the open: whole, or with a failure that the caller can tell from an end.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping

from omni_common.errors import Internal, OmniError
from omni_gateway.call import Call, Finished
from omni_gateway.http.sending import Sender, SlowCaller
from omni_gateway.http.sse import PING, SSE_HEADERS, sse
from omni_gateway.replies import error_body
from omni_gateway.tally import Batch, Tally

logger = logging.getLogger(__name__)


class StreamedReply(ABC):
    """What an endpoint says about its own stream; the rest is the same for all."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally

    @property
    @abstractmethod
    def headers(self) -> Mapping[str, str]: ...

    @abstractmethod
    async def head(self) -> bytes:
        """What comes before the first output."""

    @abstractmethod
    async def render(self, batch: Batch) -> bytes:
        """Some outputs; may be empty."""

    @abstractmethod
    async def tail(self, finished: Finished) -> bytes:
        """What comes after the last one."""

    @abstractmethod
    async def end_badly(self, sender: Sender, error: OmniError) -> None:
        """Ends a reply that has begun so that nobody takes it for whole."""

    @abstractmethod
    async def keep_alive(self, sender: Sender) -> None:
        """Called in a silence."""

    def nothing(self) -> OmniError | None:
        """The failure that an answer is which ended before any bytes were made of it; None where it may be one."""
        return None

    async def run(self, call: Call, sender: Sender, *, ping: float) -> None:
        """`ping` is after how many seconds of silence `keep_alive` is called.

        Raises OmniError as long as nothing was sent, and SlowCaller at any time. A later failure ends the reply badly
        and is raised again, so that it is counted.
        """
        first = await self._first(call)
        await sender.start(200, self.headers)
        try:
            await sender.write(await self.head() + first)
            await self._body(call, sender, ping)
            await sender.write(await self.tail(self._finished))
            await sender.end()
        except SlowCaller:
            raise
        except OmniError as error:
            await self.end_badly(sender, error)
            raise
        except Exception as error:  # the edge of the process: a stream must not end without a word
            logger.exception("stream failed")
            await self.end_badly(sender, Internal())
            raise Internal from error

    async def _first(self, call: Call) -> bytes:
        """The first bytes of the body that outputs made; empty when none did to the end."""
        first = b""
        while not first and self.tally.finished is None:
            first = await self.render(self.tally.see(await call.read()))
        if not first and (failure := self.nothing()) is not None:
            raise failure
        return first

    async def _body(self, call: Call, sender: Sender, ping: float) -> None:
        while self.tally.finished is None:
            events = await call.read(within=ping)
            if events:
                await sender.write(await self.render(self.tally.see(events)))
            else:
                await self.keep_alive(sender)

    @property
    def _finished(self) -> Finished:
        assert self.tally.finished is not None  # noqa: S101  # `_body` returns only then
        return self.tally.finished


class EventStream(StreamedReply):
    """A stream of server-sent events; comments fill its silences, and a failure is its last event."""

    @property
    def headers(self) -> Mapping[str, str]:
        return SSE_HEADERS

    async def keep_alive(self, sender: Sender) -> None:
        await sender.write(PING)

    async def end_badly(self, sender: Sender, error: OmniError) -> None:
        await sender.write(sse(error_body(error)))
        await sender.end()
