"""The way to a downstream replica of this very process: it gets the value itself, with no encoding and no copy.

In all else it is as if a stream lay between: events come in the order in which they left, from the event loop and never
from within the other stage's work; the same credits bound them, the same envelope introduces their request, and what
comes too late is dropped and counted. The stream cannot break: both ends live and die together.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from omni_common.errors import Internal, OmniError
from omni_common.payload import PayloadCodec
from omni_common.request import RequestKey
from omni_common.telemetry.names import Transport
from omni_common.transfer import Sent, Why
from omni_stage.core.waiting import Waiting
from omni_stage.departure import Departure, Sender
from omni_stage.edges import EdgeMeter
from omni_stage.neighbours import Neighbour


class LocalLink:
    """As `PeerLink`; for the other stage it is the upstream, too. Values are shared from now on: nobody writes to
    them."""

    def __init__(self, codec: PayloadCodec, neighbour: Neighbour, sender: Sender, meter: EdgeMeter) -> None:
        self._codec = codec
        self._neighbour = neighbour
        self._sender = sender
        self._meter = meter
        self._introduced: set[RequestKey] = set()
        self._leaving: Waiting[Departure] = Waiting()
        self._closing = False
        self._ended = anyio.Event()

    async def run(self) -> None:
        """Until it is closed and the other stage has all that was sent. No deadline: that is one turn of the loop."""
        try:
            await self._ended.wait()
        finally:
            self._meter.close()

    def close(self) -> None:
        self._closing = True
        self._end_if_done()

    # What the stage sends.

    def offer(self, departure: Departure) -> bool:
        """True: it leaves by itself. Raises Internal where another process would refuse the value's type."""
        if departure.value is not None:
            for tensor in self._codec.tensors(departure.value[0]):
                self._meter.sent(Sent(Transport.OBJECT, tensor.nbytes, Why.SAME_PROCESS))
        self._leaving.put(departure.key, departure)
        self._neighbour.loop.call(self._next, departure.key)
        return True

    @property
    def waiting(self) -> Sequence[tuple[float, RequestKey]]:
        """Nothing waits for room here."""
        return ()

    def retry(self, key: RequestKey) -> None:
        """Nothing waits for room here."""

    def busy(self, key: RequestKey) -> bool:
        """Whether the other stage does not have all that was sent yet."""
        return key in self._leaving

    def forget(self, key: RequestKey) -> None:
        self._introduced.discard(key)

    def abandon(self, key: RequestKey) -> None:
        """The request was aborted: what has not been handed over is dropped."""
        self._leaving.drop(key)
        self._end_if_done()

    # At the other end.

    def credit(self, key: RequestKey, chunks: int) -> None:
        """The other stage has consumed them."""
        self._neighbour.loop.call(self._sender.grant, key, self._neighbour.stage.identity.stage, chunks)

    def _next(self, key: RequestKey) -> None:
        """Hands over the first event of the request that is left, if it was not aborted meanwhile."""
        departure = self._leaving.first(key)
        if departure is None:
            return
        self._hand_over(departure)
        self._leaving.pop(key)
        if key not in self._leaving:
            self._sender.delivered(key)
        self._end_if_done()

    def _hand_over(self, departure: Departure) -> None:
        stage, key = self._neighbour.stage, departure.key
        if key not in self._introduced:
            self._introduce(departure)
        if not stage.knows(key):
            stage.note_late_event()
            return
        try:
            departure.hand_over(stage, self)
        except OmniError as error:
            stage.fail(key, error)

    def _introduce(self, departure: Departure) -> None:
        stage, key = self._neighbour.stage, departure.key
        self._introduced.add(key)
        if stage.introduce(departure.envelope) is None and not stage.is_over(key):
            error = Internal(f"Stage '{stage.identity.stage}' does not know the coordinator.")
            self._neighbour.loop.call(self._sender.fail, key, error)

    def _end_if_done(self) -> None:
        if self._closing and not self._leaving:
            self._ended.set()
