"""UCX between two relays: by TCP anywhere, by RDMA where the machine's own library of UCX knows the device.

Each piece is announced on the connection (LANDED) and follows as a message whose tag counts on from a number that only
the two relays know, straight from one arena into the other. The receiver asks for it when it knows its place, so UCX
puts bytes nowhere else. But UCX has neither a handshake that proves who talks nor encryption, and whoever reaches its
port and speaks its inner protocol writes into this process: it is for networks on which nobody does.

Shared memory is not used, also where it would do: between containers it needs what they lack.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from struct import Struct
from time import monotonic

from omni_relay.peers.carriers.carrier import CarrierFailed
from omni_relay.peers.carriers.details import pack, unpack
from omni_relay.peers.carriers.mailbox import Mailbox, UcxFailed
from omni_relay.peers.carriers.trial import Trial
from omni_relay.wire.record import BadRecord, Head, Kind, Sink, Source

_FIRST_TAG = Struct("<Q")
_TAGS = 2**64


def available(_arena: memoryview | None = None) -> str | None:
    """See carrier."""
    try:
        Mailbox().close()
    except UcxFailed as error:
        return f"{error}."
    return None


class Push:
    """See carrier.PushCarrier."""

    def __init__(self, _arena: memoryview, details: bytes, timeout: float) -> None:
        self._timeout = timeout
        self._trial = Trial()
        self._mailbox = _new_mailbox()
        with _closed_on_failure(self._mailbox):
            content = unpack(self._mailbox.library, details)
            self._tags = count(_FIRST_TAG.unpack_from(content)[0])
            self._mailbox.connect(content[_FIRST_TAG.size :])

    def carry(self, sink: Sink, piece: memoryview, _place: int, *, number: int, offset: int) -> None:
        sink.send(Kind.LANDED, piece, number=number, offset=offset)
        try:
            self._mailbox.send(piece, next(self._tags) % _TAGS, monotonic() + self._timeout)
        except UcxFailed as error:
            raise self._trial.failure(str(error)) from error
        self._trial.passed()

    def close(self) -> None:
        self._mailbox.close()


class Catch:
    """See carrier.CatchCarrier."""

    def __init__(self, _arena: memoryview, timeout: float) -> None:
        self._timeout = timeout
        self._trial = Trial()
        first = secrets.randbits(64)
        self._tags = count(first)
        self._mailbox = _new_mailbox()
        with _closed_on_failure(self._mailbox):
            self.details = pack(self._mailbox.library, _FIRST_TAG.pack(first) + self._mailbox.address)

    def catch(self, source: Source, head: Head, into: memoryview) -> bool:
        if head.kind is not Kind.LANDED:
            raise BadRecord("A piece came by the connection that was to come by UCX.")
        try:
            self._mailbox.receive(into, next(self._tags) % _TAGS, monotonic() + self._timeout, source.fileno())
        except UcxFailed as error:
            raise self._trial.failure(str(error)) from error
        self._trial.passed()
        return head.fits(into)

    def close(self) -> None:
        self._mailbox.close()


def _new_mailbox() -> Mailbox:
    try:
        return Mailbox()
    except UcxFailed as error:
        raise CarrierFailed(f"does not work: {error}") from error


@contextmanager
def _closed_on_failure(mailbox: Mailbox) -> Iterator[None]:
    try:
        yield
    except UcxFailed as error:
        mailbox.close()
        raise CarrierFailed(f"does not work: {error}") from error
    except CarrierFailed:
        mailbox.close()
        raise
