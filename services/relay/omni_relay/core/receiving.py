"""What a receiving relay believes of a pushing one: nothing that it has not checked.

A transfer is begun in an extent that was granted to this very connection, where nothing else lies; its pieces come in
order and stay inside of it; a damaged one may be sent once more; and it is complete when every byte is there and has
been verified. Whatever breaks these rules raises Misbehaved, upon which the connection is cut. Pieces of a transfer
that has ended are late, not wrong: they were on their way.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

from omni_common.arena.extents import Extent
from omni_common.arena.layout import ALIGNMENT, SlotHead, slot_size
from omni_common.request import RequestKey
from omni_relay.core.misbehaviour import Misbehaved

# Slots in use at a time, of one connection: what is known of each costs memory here, beside its bytes in the arena.
MAX_SLOTS = 1 << 16


@dataclass(frozen=True, slots=True)
class Begin:
    """A transfer as it is announced. `offset` is where its bytes go in the arena, `expires` on this relay's clock."""

    number: int
    source: int
    source_number: int
    consumer: str
    key: RequestKey
    expires: float
    extent: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A complete transfer's place, leased to its consumer."""

    begin: Begin
    extent: Extent
    generation: int


@dataclass(frozen=True, slots=True)
class Resend:
    """Ask for a piece again."""

    number: int
    offset: int
    length: int


@dataclass(slots=True)
class _Granted:
    extent: Extent
    starts: list[int] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)
    generation: int = 0

    def take(self, start: int, size: int) -> None:
        """Raises Misbehaved unless it lies inside and nothing else does there."""
        end = start + size
        if start < self.extent.offset or end > self.extent.end:
            raise Misbehaved("began a transfer outside of its extent")
        after = bisect_left(self.starts, start)
        if after < len(self.starts) and self.starts[after] < end:
            raise Misbehaved("began a transfer where another one lies")
        if after and self.starts[after - 1] + self.sizes[self.starts[after - 1]] > start:
            raise Misbehaved("began a transfer where another one lies")
        insort(self.starts, start)
        self.sizes[start] = size

    def free(self, start: int) -> bool:
        if self.sizes.pop(start, None) is None:
            return False
        del self.starts[bisect_left(self.starts, start)]
        return True


@dataclass(slots=True)
class _Transfer:
    begin: Begin
    next: int = 0
    damaged: tuple[int, int] | None = None
    resent: bool = False
    """It has had its second chance."""


class Receiving:
    """The transfers that come over one connection, and the extents that they may go to. Pure."""

    def __init__(self) -> None:
        self._granted: dict[int, _Granted] = {}
        self._transfers: dict[int, _Transfer] = {}
        self._last = 0
        self._slots = 0

    @property
    def unfinished(self) -> int:
        """Transfers begun and not ended."""
        return len(self._transfers)

    def grant(self, extent: Extent) -> None:
        """The peer may push into it from now on."""
        self._granted[extent.index] = _Granted(extent)

    def give_back(self, index: int) -> None:
        """The peer returns an extent. Raises Misbehaved when it is not its own or something lies in it."""
        granted = self._granted.get(index)
        if granted is None or granted.starts:
            raise Misbehaved("returned an extent that it does not hold or that is in use")
        del self._granted[index]

    def begin(self, begin: Begin) -> bool:
        """A transfer is announced. False when there are too many slots to take another: it has ended then."""
        if begin.number != self._last + 1:
            raise Misbehaved(f"numbered a transfer {begin.number} after {self._last}")
        self._last = begin.number
        granted = self._granted.get(begin.extent)
        if granted is None:
            raise Misbehaved("began a transfer in an extent that was not granted to it")
        if begin.offset % ALIGNMENT:
            raise Misbehaved("began a transfer beside a line of the arena")
        if self._slots >= MAX_SLOTS:
            return False
        granted.take(begin.offset - SlotHead.SIZE, slot_size(begin.length))
        self._slots += 1
        self._transfers[begin.number] = _Transfer(begin)
        return True

    def piece(self, number: int, offset: int, length: int) -> int | None:
        """Where in the arena a piece goes; None when its transfer has ended and its bytes are to be dropped."""
        transfer = self._transfers.get(number)
        if transfer is None:
            if not 0 < number <= self._last:
                raise Misbehaved(f"sent a piece of transfer {number}, which has not begun")
            return None
        if not length:
            raise Misbehaved("sent a piece without bytes")
        if transfer.damaged == (offset, length):
            return transfer.begin.offset + offset
        if offset != transfer.next or offset + length > transfer.begin.length:
            raise Misbehaved("sent a piece that is not the next one of its transfer")
        return transfer.begin.offset + offset

    def sound(self, number: int, offset: int, length: int) -> None:
        """The piece lies in its place and is what was sent. Unknown transfers are ignored."""
        if (transfer := self._transfers.get(number)) is not None:
            if offset == transfer.next:
                transfer.next += length
            else:
                transfer.damaged = None

    def spoilt(self, number: int, offset: int, length: int) -> Resend | None:
        """The piece came damaged. None when it was the second one: the transfer is to be failed."""
        transfer = self._transfers.get(number)
        if transfer is None or transfer.resent:
            return None
        transfer.resent = True
        transfer.damaged = (offset, length)
        transfer.next += length
        return Resend(number, offset, length)

    def complete(self, number: int) -> Slot | None:
        """The transfer's slot if all of it is there and verified: it is a transfer no more, its space stays taken."""
        transfer = self._transfers.get(number)
        if transfer is None or transfer.damaged is not None or transfer.next < transfer.begin.length:
            return None
        del self._transfers[number]
        granted = self._granted[transfer.begin.extent]
        granted.generation += 1
        return Slot(transfer.begin, granted.extent, granted.generation)

    def cancel(self, number: int) -> bool:
        """Ends a transfer and frees its space; False when it has ended before."""
        if not 0 < number <= self._last:
            raise Misbehaved(f"gave up transfer {number}, which has not begun")
        transfer = self._transfers.pop(number, None)
        if transfer is None:
            return False
        self.free(transfer.begin.extent, transfer.begin.offset)
        return True

    def free(self, index: int, offset: int) -> bool:
        """The slot whose bytes begin at `offset` is free; False when there is none."""
        granted = self._granted.get(index)
        if granted is None or not granted.free(offset - SlotHead.SIZE):
            return False
        self._slots -= 1
        return True
