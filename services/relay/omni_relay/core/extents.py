"""Who has which part of the arena: what stages and peers ask for, get, give back and leave behind.

Every method takes what happened and returns the commands that carry it out. Nothing is free until its bytes are in no
grant, so what is free needs no books of its own and cannot be lost.

An extent's life: granted → revoked (given back, or its owner went) → regained. A revoked extent's word in the table is
zero, so nobody can begin to look into it; it is regained SETTLE later or when the last hold in it is gone, whichever is
later, whatever its owner said. What a peer gives back is regained at once: all that happened in it is known here.

A peer's extent in which stages still have tensors is *parked* while the peer is gone, and revoked when the last of them
is released. Slots of a stage that went, and slots whose lease is over, go the same way within their extent: wiped, and
free SETTLE later or after the last hold.

Memory that lived on after a crash is taken up with `adopt`: each stage claims what it has when it comes back, and what
nobody has claimed after CLAIM_TIME is revoked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from omni_common.arena.extents import Extent
from omni_common.arena.holds import SETTLE
from omni_common.arena.layout import EXTENTS, MAX_EXTENTS, SlotHead
from omni_relay.core.holders import (
    Arrival,
    Command,
    Freed,
    Grant,
    Granted,
    Holder,
    Kind,
    Place,
    Refused,
    Regained,
    Revoked,
    SlotName,
    Wiped,
)
from omni_relay.core.placing import Stretch, gaps
from omni_relay.core.shares import Bounds, Shares
from omni_relay.core.waiting import Waiter, WaitingLine

# Seconds that stages have to come back after a restart of the relay. They notice its end at once and dial every second.
CLAIM_TIME = 4.0


class Extents:
    """`new_epoch` gives a secret that was never used before; times are seconds of one monotonic clock."""

    def __init__(self, bounds: Bounds, new_epoch: Callable[[], int]) -> None:
        self._bounds = bounds
        self._new_epoch = new_epoch
        self._grants: dict[int, Grant] = {}
        self._joined: dict[Kind, set[str]] = {kind: set() for kind in Kind}
        self._lines = {kind: WaitingLine() for kind in Kind}
        self._claims_end: float | None = None
        self._shares = Shares(bounds, self._grants, self._joined)

    # Who is there

    def adopt(self, found: Iterable[tuple[Extent, Kind, bool]], now: float) -> list[Command]:
        """Takes up what a former life granted; the flag says whether the table has its word still. Raises ValueError
        when it cannot be true, and changes nothing then."""
        grants = [
            Grant(extent, kind, None, revoked=None if stands else now, lost=True, claimable=True)
            for extent, kind, stands in found
        ]
        by_index = {grant.extent.index: grant for grant in grants}
        if len(by_index) < len(grants):
            raise ValueError("two grants have one place in the table")
        gaps(EXTENTS, self._bounds.size, [grant.stretch for grant in grants])
        self._grants.update(by_index)
        self._claims_end = now + CLAIM_TIME
        return [Revoked(grant.extent) for grant in grants if grant.revoked is not None]

    def join(self, holder: Holder) -> None:
        """From now on it may want. A stage comes by `enter`."""
        self._joined[holder.kind].add(holder.name)

    def enter(
        self, stage: str, extents: Iterable[Extent], slots: Iterable[SlotName], now: float
    ) -> tuple[tuple[Extent, ...], list[Command]]:
        """A stage says hello, for the first time or again, and names what it has. Returns the extents that are its
        own; what it had and does not name is taken back, and it waits for nothing any more."""
        self._joined[Kind.STAGE].add(stage)
        self._lines[Kind.STAGE].remove(stage)
        claimed, named = set(extents), set(slots)
        for grant in self._grants.values():
            if grant.extent in claimed and grant.kind is Kind.STAGE and grant.revoked is None and grant.holder is None:
                grant.holder, grant.lost, grant.claimable = stage, False, False
        kept = tuple(g.extent for g in self._held_by(Holder(Kind.STAGE, stage)) if g.extent in claimed)
        commands = self._take_back(Holder(Kind.STAGE, stage), now, keep=set(kept))
        commands += self._drop_arrivals(stage, now, keep=named)
        return kept, commands + self._serve()

    def resume(self, arrival: Arrival) -> bool:
        """A slot that a stage names after a restart, and whose head has been checked: in an extent that nobody has,
        and nobody else's."""
        grant = self._standing(arrival.slot)
        fits = grant is not None and grant.kind is Kind.PEER and grant.holder is None and _inside(arrival, grant.extent)
        if grant is None or not fits or arrival.slot.offset in grant.arrivals:
            return False
        grant.arrivals[arrival.slot.offset] = arrival
        return True

    def leave(self, holder: Holder, now: float) -> list[Command]:
        """It is gone: its want, its extents, and what had arrived for it."""
        self._joined[holder.kind].discard(holder.name)
        self._lines[holder.kind].remove(holder.name)
        commands = self._take_back(holder, now, keep=set())
        if holder.kind is Kind.STAGE:
            commands += self._drop_arrivals(holder.name, now, keep=set())
        return commands + self._serve()

    # Extents

    def want(self, holder: Holder, size: int) -> list[Command]:
        """`size` bytes in one piece. Of one who has not joined, nothing comes."""
        if holder.name not in self._joined[holder.kind]:
            return []
        self._lines[holder.kind].add(holder.name, max(1, size))
        return self._serve()

    def give_back(self, holder: Holder, index: int, now: float) -> list[Command] | None:
        """None: it is not the holder's, or tensors are in it."""
        grant = self._grants.get(index)
        if grant is None or not grant.is_of(holder) or grant.arrivals:
            return None
        revoked = self._revoke(grant, now)
        if holder.kind is Kind.STAGE:
            return [revoked]
        # Every tensor in it has been released by its consumer's word, or taken back as slots are: nobody looks.
        del self._grants[index]
        return [revoked, Regained(grant.extent, grant.kind, grant.lost), *self._serve()]

    def extent_of(self, stage: str, index: int, epoch: int) -> Extent | None:
        """The extent, if that very grant is the stage's."""
        grant = self._grants.get(index)
        if grant is None or grant.extent.epoch != epoch or not grant.is_of(Holder(Kind.STAGE, stage)):
            return None
        return grant.extent

    # What has arrived from other pods

    def deliver(self, arrival: Arrival) -> bool:
        """A tensor for a stage. False: the stage is gone, or the extent is no longer the peer's; nothing is noted."""
        grant = self._standing(arrival.slot)
        if grant is None or grant.kind is not Kind.PEER or grant.holder is None:
            return False
        known = arrival.consumer in self._joined[Kind.STAGE]
        if not known or not _inside(arrival, grant.extent) or arrival.slot.offset in grant.arrivals:
            return False
        grant.arrivals[arrival.slot.offset] = arrival
        return True

    def withdraw(self, slot: SlotName, now: float) -> list[Command] | None:
        """It could not be handed over: the slot is the peer's again. None: it has been freed meanwhile, and the peer
        told."""
        found = self._arrival(slot)
        if found is None:
            return None
        grant, _ = found
        del grant.arrivals[slot.offset]
        return self._revoke_if_empty(grant, now)

    def release(self, stage: str, slot: SlotName, now: float) -> list[Command] | None:
        """The stage has done with it. One that is over already changes nothing; None: it is another stage's."""
        found = self._arrival(slot)
        if found is None:
            return []
        grant, arrival = found
        if arrival.consumer != stage:
            return None
        return [Wiped(slot), *self._free(grant, arrival, now)]

    # Time

    def tick(self, now: float) -> list[Command]:
        """Revokes what nobody has claimed, and wipes slots whose lease is over."""
        commands: list[Command] = []
        if self._claims_end is not None and now >= self._claims_end:
            self._claims_end = None
            unclaimed = [grant for grant in self._standing_grants() if grant.claimable]
            for grant in unclaimed:
                grant.claimable = False
                commands += self._revoke_if_empty(grant, now)
        arrivals = [arrival for grant in self._standing_grants() for arrival in grant.arrivals.values()]
        return commands + [_wipe(a, now) for a in arrivals if a.wiped is None and a.expires <= now]

    def settled(self, now: float) -> list[Place]:
        """What may be regained, unless a hold lies in it."""
        places = []
        for grant in self._grants.values():
            if grant.revoked is not None and grant.revoked + SETTLE <= now:
                places.append(Place(grant.extent.offset, grant.extent.end, grant.extent))
            places += [
                Place(arrival.slot.offset - SlotHead.SIZE, arrival.end, grant.extent, arrival.slot)
                for arrival in grant.arrivals.values()
                if arrival.wiped is not None and arrival.wiped + SETTLE <= now
            ]
        return places

    def regain(self, places: Sequence[Place], now: float) -> list[Command]:
        """No hold lies in any of these, which `settled` named."""
        commands: list[Command] = []
        for regained in places:
            if regained.slot is None:
                grant = self._grants.pop(regained.extent.index)
                commands.append(Regained(grant.extent, grant.kind, grant.lost))
            elif (found := self._arrival(regained.slot)) is not None:  # it may have been released meanwhile
                commands += self._free(*found, now)
        return commands + self._serve()

    def usage(self) -> dict[str, int]:
        """Bytes by who has them: `stage`, `peer`, `parked`, `revoked`, `free`."""
        bytes_of = dict.fromkeys((*Kind, "parked", "revoked"), 0)
        for grant in self._grants.values():
            state = "revoked" if grant.revoked is not None else grant.kind if grant.holder else "parked"
            bytes_of[state] += grant.extent.size
        return bytes_of | {"free": self._bounds.size - EXTENTS - sum(bytes_of.values())}

    @property
    def grants(self) -> Sequence[Grant]:
        """To look at."""
        return tuple(self._grants.values())

    # Inside

    def _standing_grants(self) -> list[Grant]:
        return [grant for grant in self._grants.values() if grant.revoked is None]

    def _held_by(self, holder: Holder) -> list[Grant]:
        return [grant for grant in self._grants.values() if grant.is_of(holder)]

    def _standing(self, slot: SlotName) -> Grant | None:
        grant = self._grants.get(slot.extent)
        return grant if grant is not None and grant.extent.epoch == slot.epoch and grant.revoked is None else None

    def _arrival(self, slot: SlotName) -> tuple[Grant, Arrival] | None:
        grant = self._standing(slot)
        arrival = None if grant is None else grant.arrivals.get(slot.offset)
        return None if grant is None or arrival is None or arrival.slot != slot else (grant, arrival)

    def _take_back(self, holder: Holder, now: float, *, keep: set[Extent]) -> list[Command]:
        commands: list[Command] = []
        for grant in self._held_by(holder):
            if grant.extent in keep:
                continue
            grant.holder, grant.lost = None, True
            if not grant.arrivals:
                commands.append(self._revoke(grant, now))
        return commands

    def _drop_arrivals(self, stage: str, now: float, *, keep: set[SlotName]) -> list[Command]:
        theirs = [a for grant in self._standing_grants() for a in grant.arrivals.values() if a.consumer == stage]
        return [_wipe(arrival, now) for arrival in theirs if arrival.slot not in keep and arrival.wiped is None]

    def _free(self, grant: Grant, arrival: Arrival, now: float) -> list[Command]:
        del grant.arrivals[arrival.slot.offset]
        if grant.holder is None:
            return self._revoke_if_empty(grant, now)
        return [Freed(grant.holder, grant.extent.index, arrival.slot.offset)]

    def _revoke_if_empty(self, grant: Grant, now: float) -> list[Command]:
        parked = grant.holder is None and not grant.arrivals and not grant.claimable
        return [self._revoke(grant, now)] if parked else []

    def _revoke(self, grant: Grant, now: float) -> Revoked:
        grant.revoked = now
        return Revoked(grant.extent)

    def _serve(self) -> list[Command]:
        """Everybody who waits and can be served now, or never."""
        commands: list[Command] = []
        for kind, line in self._lines.items():
            commands += [Refused(Holder(kind, w.name), w.size) for w in line.remove_if(partial(self._too_large, kind))]
            while (granted := self._serve_one(kind, line)) is not None:
                commands.append(granted)
        return commands

    def _too_large(self, kind: Kind, waiter: Waiter) -> bool:
        return waiter.size > self._shares.largest(Holder(kind, waiter.name))

    def _serve_one(self, kind: Kind, line: WaitingLine) -> Granted | None:
        found: list[Stretch] = []

        def fits(waiter: Waiter) -> bool:
            found[:] = filter(None, [self._shares.place(Holder(kind, waiter.name), waiter.size)])
            return bool(found)

        waiter = line.serve(fits, lambda waiter: self._shares.modest(Holder(kind, waiter.name), waiter.size))
        if waiter is None:
            return None
        index = next(index for index in range(MAX_EXTENTS) if index not in self._grants)
        extent = Extent(index, self._new_epoch(), *found[0])
        self._grants[index] = Grant(extent, kind, waiter.name)
        return Granted(Holder(kind, waiter.name), extent)


def _inside(arrival: Arrival, extent: Extent) -> bool:
    return extent.offset + SlotHead.SIZE <= arrival.slot.offset and arrival.end <= extent.end


def _wipe(arrival: Arrival, now: float) -> Wiped:
    arrival.wiped = now
    return Wiped(arrival.slot)
