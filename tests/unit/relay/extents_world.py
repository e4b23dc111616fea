"""A pod without memory: the core of the extents, and what its commands have done to table, ledger and holders."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from omni_common.arena.extents import Extent
from omni_common.arena.holds import SETTLE
from omni_common.arena.layout import EXTENTS, SlotHead, slot_size
from omni_relay.core.extents import Extents
from omni_relay.core.holders import (
    Arrival,
    Command,
    Freed,
    Granted,
    Holder,
    Kind,
    Refused,
    Regained,
    Revoked,
    SlotName,
    Wiped,
)
from omni_relay.core.shares import Bounds

LEAST = 1024
TICK = 0.25

_epochs = count(1)


def stage(name: str) -> Holder:
    return Holder(Kind.STAGE, name)


def peer(name: str) -> Holder:
    return Holder(Kind.PEER, name)


class World:
    """`held` are the offsets that some process looks at or writes at."""

    def __init__(self, extents: int = 16, *, inbound: float = 0.5) -> None:
        self.bounds = Bounds(EXTENTS + extents * LEAST, LEAST, inbound)
        self.now = 100.0
        self.core = Extents(self.bounds, lambda: next(_epochs))
        self.table: dict[int, int] = {}
        self.revoked: dict[int, float] = {}
        self.ledger: dict[int, tuple[Extent, Kind]] = {}
        self.has: dict[Holder, dict[int, Extent]] = {}
        self.refused: list[Refused] = []
        self.freed: list[Freed] = []
        self.wiped: list[SlotName] = []
        self.lost = 0
        self.held: set[int] = set()
        self._generations = count(1)

    def restart(self) -> None:
        """The relay dies and lives again; table, ledger and what stages have stay."""
        self.core = Extents(self.bounds, lambda: next(_epochs))
        found = [(extent, kind, self.table[i] == extent.epoch) for i, (extent, kind) in self.ledger.items()]
        self.do(self.core.adopt(found, self.now))

    def do(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self._do(command)

    def join(self, holder: Holder) -> None:
        self.has[holder] = {}
        if holder.kind is Kind.STAGE:
            kept, commands = self.core.enter(holder.name, (), (), self.now)
            assert kept == ()
            self.do(commands)
        else:
            self.core.join(holder)

    def come_back(self, name: str, extents: Iterable[Extent], slots: Iterable[SlotName] = ()) -> None:
        """A stage says hello with what it has."""
        kept, commands = self.core.enter(name, extents, slots, self.now)
        self.has[stage(name)] = {extent.index: extent for extent in kept}
        self.do(commands)

    def leave(self, holder: Holder) -> None:
        self.has.pop(holder)
        self.do(self.core.leave(holder, self.now))

    def want(self, holder: Holder, size: int = LEAST) -> Extent | None:
        """What it has got at once."""
        before = set(self.has[holder])
        self.do(self.core.want(holder, size))
        new = set(self.has[holder]) - before
        return self.has[holder][new.pop()] if new else None

    def give_back(self, holder: Holder, extent: Extent) -> None:
        commands = self.core.give_back(holder, extent.index, self.now)
        assert commands is not None
        self.has[holder].pop(extent.index)
        self.do(commands)

    def arrival(self, extent: Extent, offset: int, length: int, consumer: str, lease: float = 1000.0) -> Arrival:
        slot = SlotName(extent.index, extent.epoch, offset, next(self._generations))
        return Arrival(slot, consumer, offset - SlotHead.SIZE + slot_size(length), self.now + lease)

    def deliver(self, extent: Extent, consumer: str, *, length: int = 64, lease: float = 1000.0) -> SlotName:
        """Into the first slot of the extent."""
        arrival = self.arrival(extent, extent.offset + SlotHead.SIZE, length, consumer, lease)
        assert self.core.deliver(arrival)
        return arrival.slot

    def release(self, name: str, slot: SlotName) -> None:
        commands = self.core.release(name, slot, self.now)
        assert commands is not None
        self.do(commands)

    def looked_at(self, extent: Extent) -> bool:
        return any(extent.offset <= offset < extent.end for offset in self.held)

    def tick(self) -> None:
        self.do(self.core.tick(self.now))
        places = self.core.settled(self.now)
        free = [place for place in places if not any(place.start <= offset < place.end for offset in self.held)]
        self.do(self.core.regain(free, self.now))

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += TICK
            self.tick()

    def settle(self) -> None:
        self.wait(SETTLE + TICK)

    def free(self) -> int:
        return self.core.usage()["free"]

    @property
    def room(self) -> int:
        return self.bounds.size - EXTENTS

    def _do(self, command: Command) -> None:
        match command:
            case Granted(holder, extent):
                assert not self.looked_at(extent)
                assert extent.index not in self.ledger
                self.ledger[extent.index] = (extent, holder.kind)
                self.table[extent.index] = extent.epoch
                self.has[holder][extent.index] = extent
            case Revoked(extent):
                self.table[extent.index] = 0
                self.revoked[extent.index] = self.now
            case Regained(extent, kind, lost):
                given_back = kind is Kind.PEER and not lost
                assert given_back or self.revoked[extent.index] + SETTLE <= self.now
                del self.ledger[extent.index]
                self.lost += extent.size * lost
            case Refused():
                self.refused.append(command)
            case Freed():
                self.freed.append(command)
            case Wiped(slot):
                self.wiped.append(slot)
