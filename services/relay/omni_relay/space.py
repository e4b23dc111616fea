"""The arena's extents among threads: carries out what the core decides, in the arena's memory, and tells who asked.

One lock guards the core and the table. Nobody is told anything while it is held, so that whoever is told may ask again
from within.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from omni_common.arena.extents import Extent
from omni_common.arena.holds import HoldTables
from omni_common.arena.layout import ALIGNMENT, EXTENTS, SlotHead, slot_size
from omni_common.arena.memory import Arena
from omni_common.clock import Clock, monotonic
from omni_common.telemetry import names
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
from omni_relay.ledger import Ledger
from omni_relay.ports import ArrivedTensor, Grantee

logger = logging.getLogger(__name__)

News = list[Callable[[], None]]


class ArenaSpace:
    """Thread-safe. Grantees are told from whatever thread made it so, and must not block; one who has left may still be
    told what was decided just before. Implements ports.Space for the peers; stages come by `enter`."""

    def __init__(
        self, arena: Arena, ledger: Ledger, bounds: Bounds, tables: HoldTables, clock: Clock = monotonic
    ) -> None:
        """Takes up what the ledger knows. Raises ValueError when that cannot be true."""
        self._arena = arena
        self._ledger = ledger
        self._tables = tables
        self._clock = clock
        self._lock = threading.Lock()
        self._grantees: dict[Holder, Grantee] = {}
        self._metered: set[str] = set()
        self._core = Extents(bounds, lambda: secrets.randbits(64) or 1)
        found = [(e, kind, arena.extent_epoch(e.index) == e.epoch) for e, kind in ledger.grants()]
        self._carry_out(self._core.adopt(found, clock()))

    # ports.Space

    def join(self, peer: str, grantee: Grantee) -> None:
        holder = Holder(Kind.PEER, peer)
        with self._lock:
            self._grantees[holder] = grantee
            self._core.join(holder)

    def want(self, peer: str, size: int) -> None:
        self._want(Holder(Kind.PEER, peer), size)

    def give_back(self, peer: str, extent: int) -> None:
        if not self._give_back(Holder(Kind.PEER, peer), extent):
            logger.warning("a peer gave back what it does not have", extra={"peer": peer, "extent": extent})

    def leave(self, peer: str) -> None:
        self._leave(Holder(Kind.PEER, peer))

    # Stages

    def enter(
        self, stage: str, grantee: Grantee, extents: Iterable[Extent], slots: Sequence[SlotName]
    ) -> tuple[Extent, ...]:
        """The stage says hello, for the first time or again, with what it has; returns the extents that it keeps."""
        holder = Holder(Kind.STAGE, stage)
        with self._lock:
            self._grantees[holder] = grantee
            kept, commands = self._core.enter(stage, extents, slots, self._clock())
            news = self._carry_out(commands)
            for slot in slots:
                arrival = self._arrival(slot, stage)
                if arrival is not None:
                    self._core.resume(arrival)
        _tell(news)
        return kept

    def want_for_stage(self, stage: str, size: int) -> None:
        self._want(Holder(Kind.STAGE, stage), size)

    def give_back_of_stage(self, stage: str, extent: int) -> bool:
        """False: it is not the stage's."""
        return self._give_back(Holder(Kind.STAGE, stage), extent)

    def is_of_stage(self, stage: str, slot: SlotName, length: int) -> bool:
        """Whether `length` bytes of a slot there lie in an extent that is the stage's."""
        with self._lock:
            extent = self._core.extent_of(stage, slot.extent, slot.epoch)
        return extent is not None and extent.offset < slot.offset <= slot.offset + length <= extent.end

    def leave_stage(self, stage: str) -> None:
        self._leave(Holder(Kind.STAGE, stage))

    # Tensors from other pods

    def deliver(self, stage: str, arrived: ArrivedTensor) -> bool:
        """The tensor is the stage's from now on, unless this is False."""
        slot = slot_of(arrived)
        with self._lock:
            arrival = self._arrival(slot, stage)
            return arrival is not None and self._core.deliver(arrival)

    def withdraw(self, slot: SlotName) -> bool:
        """It did not reach the stage after all: the peer may use the slot again without being told. False: it has been
        told."""
        with self._lock:
            commands = self._core.withdraw(slot, self._clock())
            self._carry_out(commands or ())
        return commands is not None

    def release(self, stage: str, slot: SlotName) -> bool:
        """The stage has done with it. False: it was another's."""
        with self._lock:
            commands = self._core.release(stage, slot, self._clock())
            news = self._carry_out(commands or ())
        _tell(news)
        return commands is not None

    # Time

    def tick(self) -> None:
        """Takes back what is nobody's any more and that nobody looks at. One thread calls it, every quarter second."""
        with self._lock:
            news = self._carry_out(self._core.tick(self._clock()))
            places = self._core.settled(self._clock())
        _tell(news)
        if places:
            held = self._tables.look()
            nobodys = [p for p in places if not (held.views if p.slot else held.anything)(p.start, p.end)]
            self._do(lambda now: self._core.regain(nobodys, now))
        self._meter()

    def _want(self, holder: Holder, size: int) -> None:
        self._do(lambda now: self._core.want(holder, size))

    def _give_back(self, holder: Holder, extent: int) -> bool:
        with self._lock:
            commands = self._core.give_back(holder, extent, self._clock())
            news = self._carry_out(commands or ())
        _tell(news)
        return commands is not None

    def _leave(self, holder: Holder) -> None:
        with self._lock:
            news = self._carry_out(self._core.leave(holder, self._clock()))
            self._grantees.pop(holder, None)
        _tell(news)

    def _do(self, decide: Callable[[float], Sequence[Command]]) -> None:
        with self._lock:
            news = self._carry_out(decide(self._clock()))
        _tell(news)

    def _carry_out(self, commands: Iterable[Command]) -> News:
        """What there is to tell, once the lock is free."""
        return [news for command in commands if (news := self._carry_out_one(command)) is not None]

    def _carry_out_one(self, command: Command) -> Callable[[], None] | None:
        match command:
            case Granted(holder, extent):
                self._ledger.note(extent, holder.kind)
                self._arena.set_extent_epoch(extent.index, extent.epoch)
                return partial(self._grantees[holder].granted, extent)
            case Refused(holder, size):
                return partial(self._grantees[holder].refused, size)
            case Revoked(extent):
                self._arena.set_extent_epoch(extent.index, 0)
            case Regained(extent, kind, lost):
                self._ledger.strike(extent.index)
                if lost:
                    names.RELAY_RECLAIMED.labels(_LABELS[kind]).inc(extent.size)
            case Wiped(slot):
                self._arena.view[slot.offset - SlotHead.SIZE : slot.offset] = SlotHead.WIPED
            case Freed(peer, index, offset):
                return partial(self._grantees[Holder(Kind.PEER, peer)].freed, index, offset)
        return None

    def _arrival(self, slot: SlotName, stage: str) -> Arrival | None:
        """A slot that a peer has filled, as its head tells it."""
        if slot.offset % ALIGNMENT or not EXTENTS + SlotHead.SIZE <= slot.offset <= self._arena.size:
            return None
        head = SlotHead.parse(self._arena.view[slot.offset - SlotHead.SIZE : slot.offset])
        if head is None or (head.epoch, head.generation) != (slot.epoch, slot.generation):
            return None
        return Arrival(slot, stage, slot.offset - SlotHead.SIZE + slot_size(head.length), head.expires)

    def _meter(self) -> None:
        with self._lock:
            usage, grants = self._core.usage(), self._core.grants
        held = dict.fromkeys([_LABELS[Kind.PEER], "revoked", "free"], 0) | {"free": usage["free"]}
        for grant in grants:
            stage = grant.holder if grant.kind is Kind.STAGE else _LABELS[Kind.PEER]
            label = "revoked" if grant.revoked is not None or stage is None else stage
            held[label] = held.get(label, 0) + grant.extent.size
        for label in self._metered - held.keys():
            names.RELAY_ARENA_BYTES.remove(label)
        for label, size in held.items():
            names.RELAY_ARENA_BYTES.labels(label).set(size)
        self._metered = set(held)


_LABELS = {Kind.STAGE: "stages", Kind.PEER: "peers"}


def slot_of(arrived: ArrivedTensor) -> SlotName:
    return SlotName(arrived.extent.index, arrived.extent.epoch, arrived.offset, arrived.generation)


def _tell(news: News) -> None:
    for tell in news:
        tell()
