"""NIXL between two relays: the pusher writes into the receiver's arena (WRITE), by RDMA where there is some, else by
TCP, which NIXL's own UCX speaks.

Each piece is announced on the connection (LANDED), then written, then told of by NIXL itself. In between the receiver
looks again and again: without RDMA its memory is written by itself, and NIXL has nothing that could be waited on.

The pusher may write anywhere in the receiver's arena, and whoever reaches its port and speaks the inner protocol of UCX
anywhere in its process: NIXL knows neither a handshake that proves who talks nor encryption. It is for networks on
which nobody does, and relays that trust each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from struct import Struct
from time import monotonic

from omni_common.arena.memory import address_of
from omni_relay.peers.carriers.agent import Agent, NixlFailed
from omni_relay.peers.carriers.carrier import CarrierFailed
from omni_relay.peers.carriers.details import pack, unpack
from omni_relay.peers.carriers.trial import Trial
from omni_relay.wire.record import BadRecord, Head, Kind, Sink, Source

_ADDRESS = Struct("<Q")
"""Of the receiver's arena: what comes before its agent's metadata."""


def available(arena: memoryview) -> str | None:
    """See carrier."""
    try:
        Agent(arena).close()
    except NixlFailed as error:
        return f"{error}."
    return None


class Push:
    """See carrier.PushCarrier."""

    def __init__(self, arena: memoryview, details: bytes, timeout: float) -> None:
        self._timeout = timeout
        self._trial = Trial()
        self._agent = _new_agent(arena)
        with _closed_on_failure(self._agent):
            content = unpack(self._agent.library, details)
            (self._there,) = _ADDRESS.unpack_from(content)
            self._agent.connect(content[_ADDRESS.size :])

    def carry(self, sink: Sink, piece: memoryview, place: int, *, number: int, offset: int) -> None:
        sink.send(Kind.LANDED, piece, number=number, offset=offset)
        try:
            self._agent.write(piece, self._there + place, monotonic() + self._timeout)
        except NixlFailed as error:
            raise self._trial.failure(str(error)) from error
        self._trial.passed()

    def close(self) -> None:
        self._agent.close()


class Catch:
    """See carrier.CatchCarrier."""

    def __init__(self, arena: memoryview, timeout: float) -> None:
        self._timeout = timeout
        self._trial = Trial()
        self._begin = address_of(arena)
        self._end = self._begin + len(arena)
        self._agent = _new_agent(arena)
        with _closed_on_failure(self._agent):
            self.details = pack(self._agent.library, _ADDRESS.pack(self._begin) + self._agent.metadata)

    def catch(self, source: Source, head: Head, into: memoryview) -> bool:
        if head.kind is not Kind.LANDED:
            raise BadRecord("A piece came by the connection that was to come by NIXL.")
        try:
            self._agent.wait(monotonic() + self._timeout, source.fileno())
        except NixlFailed as error:
            raise self._trial.failure(str(error)) from error
        self._trial.passed()
        return not self._begin <= address_of(into) < self._end or head.fits(into)

    def close(self) -> None:
        self._agent.close()


def _new_agent(arena: memoryview) -> Agent:
    try:
        return Agent(arena)
    except NixlFailed as error:
        raise CarrierFailed(f"does not work: {error}") from error


@contextmanager
def _closed_on_failure(agent: Agent) -> Iterator[None]:
    try:
        yield
    except NixlFailed as error:
        agent.close()
        raise CarrierFailed(f"does not work: {error}") from error
    except CarrierFailed:
        agent.close()
        raise
