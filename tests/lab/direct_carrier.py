"""A carrier between pods of one process: it writes straight into the other arena, as hardware does between machines,
and announces what it has written."""

from __future__ import annotations

import itertools

from omni_relay.peers.carriers.carrier import CarrierFailed
from omni_relay.wire.record import BadRecord, Head, Kind, Sink, Source

_arenas: dict[bytes, memoryview] = {}
_names = itertools.count(1)


def available(_arena: memoryview | None = None) -> str | None:
    return None


class Catch:
    """See carrier.CatchCarrier."""

    def __init__(self, arena: memoryview, _timeout: float) -> None:
        self.details = str(next(_names)).encode()
        _arenas[self.details] = arena

    def catch(self, _source: Source, head: Head, into: memoryview) -> bool:
        if head.kind is not Kind.LANDED:
            raise BadRecord("A piece came in the connection's records.")
        return head.fits(into)

    def close(self) -> None:
        _arenas.pop(self.details, None)


class Push:
    """See carrier.PushCarrier."""

    def __init__(self, _arena: memoryview, details: bytes, _timeout: float) -> None:
        if details not in _arenas:
            raise CarrierFailed("is not in this process")
        self._details = details

    def carry(self, sink: Sink, piece: memoryview, place: int, *, number: int, offset: int) -> None:
        arena = _arenas.get(self._details)
        if arena is None:
            raise CarrierFailed("was closed at its other end")
        arena[place : place + len(piece)] = piece
        sink.send(Kind.LANDED, piece, number=number, offset=offset)

    def close(self) -> None:
        """Nothing reads but `carry` itself."""
