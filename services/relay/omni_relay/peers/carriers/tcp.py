"""The carrier that is always there: pieces travel in the records of the connection itself, straight from one arena
to the other."""

from __future__ import annotations

from omni_relay.wire.record import BadRecord, BodyDamaged, Head, Kind, Sink, Source


def available(_arena: memoryview | None = None) -> str | None:
    return None


class Push:
    """See carrier.PushCarrier."""

    def __init__(self, _arena: memoryview, _details: bytes, _timeout: float) -> None:
        pass

    def carry(self, sink: Sink, piece: memoryview, _place: int, *, number: int, offset: int) -> None:
        sink.send(Kind.PIECE, piece, number=number, offset=offset)

    def close(self) -> None:
        """Nothing reads but `carry` itself."""


class Catch:
    """See carrier.CatchCarrier."""

    details = b""

    def __init__(self, _arena: memoryview, _timeout: float) -> None:
        pass

    def catch(self, source: Source, head: Head, into: memoryview) -> bool:
        if head.kind is not Kind.PIECE:
            raise BadRecord("A piece was announced that another carrier would bring.")
        try:
            source.receive_body(into)
        except BodyDamaged:
            return False
        return True

    def close(self) -> None:
        """Nothing writes but `catch` itself."""
