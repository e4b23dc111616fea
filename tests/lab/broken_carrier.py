"""A carrier that seems to work until it is used."""

from __future__ import annotations

from omni_relay.peers.carriers.carrier import CarrierFailed
from omni_relay.wire.record import Head, Sink, Source


def available(_arena: memoryview | None = None) -> str | None:
    return None


class Catch:
    """See carrier.CatchCarrier."""

    details = b""

    def __init__(self, _arena: memoryview, _timeout: float) -> None:
        pass

    def catch(self, _source: Source, _head: Head, _into: memoryview) -> bool:
        raise CarrierFailed("is broken")

    def close(self) -> None:
        pass


class Push:
    """See carrier.PushCarrier."""

    def __init__(self, _arena: memoryview, _details: bytes, _timeout: float) -> None:
        pass

    def carry(self, _sink: Sink, _piece: memoryview, _place: int, *, number: int, offset: int) -> None:
        raise CarrierFailed(f"broke at {offset} of {number}")

    def close(self) -> None:
        pass
