"""What a way of carrying pieces must do. A carrier's module has three names:

`available(arena) -> str | None`: None where it can be used in this process, else why not, in a sentence.
`Catch(arena, timeout)`: the receiver's end of one connection, made when that relay chooses the carrier.
`Push(arena, details, timeout)`: the pusher's end, made from the `details` of the other one's Catch.

Both constructors raise CarrierFailed; so may `carry` and `catch`, which ends the connection, and the next one does
without that carrier for a while. `timeout` is in seconds: a piece that takes longer raises ChannelLost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from omni_relay.wire.record import Head, Sink, Source


class CarrierFailed(Exception):
    """This carrier does not work between these two relays, while another one may. Completes "the carrier …"."""


class PushCarrier(Protocol):
    """The pusher's end. One thread at a time carries; `close` may come from any."""

    def carry(self, sink: Sink, piece: memoryview, place: int, *, number: int, offset: int) -> None:
        """Moves the piece at `offset` of the transfer `number` to `place` of the receiver's arena. `piece` is not read
        any more when this returns or raises. Raises ChannelLost, CarrierFailed."""

    def close(self) -> None:
        """When it returns, nothing reads this arena for the connection any more. Idempotent."""


class CatchCarrier(Protocol):
    """The receiver's end. One thread catches; `close` may come from any."""

    @property
    def details(self) -> bytes:
        """What the pusher needs to know of this end."""

    def catch(self, source: Source, head: Head, into: memoryview) -> bool:
        """Brings the piece that `head` announces into its place; False if it came damaged. `into` is not written any
        more when this returns or raises. Raises ChannelLost, BadRecord, CarrierFailed."""

    def close(self) -> None:
        """When it returns, nothing writes to this arena for the connection any more. Idempotent."""
