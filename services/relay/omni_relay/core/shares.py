"""How much each may have, and where it lies.

Stages and peers have a share of the arena each; stages are placed from the low end, peers from the high end, so that
they do not cut up each other's space. Within a share whoever has nothing finds room for one extent of the least size:
others get a further one, or a larger one, only if that much is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from omni_common.arena.layout import ALIGNMENT, EXTENTS, MAX_EXTENTS
from omni_relay.core.holders import Grant, Holder, Kind
from omni_relay.core.placing import Stretch, gaps, padded, place, rooms


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of the arena: `size` is the whole file's, `least` that of an extent; `inbound` the part that peers may hold,
    between 0 and 1."""

    size: int
    least: int
    inbound: float

    def share(self, kind: Kind) -> int:
        peers = int((self.size - EXTENTS) * self.inbound)
        return peers if kind is Kind.PEER else self.size - EXTENTS - peers


class Shares:
    """Looks at the grants that there are, and at who could want one."""

    def __init__(self, bounds: Bounds, grants: Mapping[int, Grant], joined: Mapping[Kind, Set[str]]) -> None:
        self._bounds = bounds
        self._grants = grants
        self._joined = joined

    def largest(self, holder: Holder) -> int:
        """Bytes that it may have in one piece when nobody else has more than one extent: each keeps its last one."""
        share, least = self._bounds.share(holder.kind), self._bounds.least
        others = len(self._joined[Kind.STAGE] - {holder.name}) if holder.kind is Kind.STAGE else 1
        return max(share - others * least, min(share, least))

    def modest(self, holder: Holder, size: int) -> bool:
        """Whether it asks for no more than what is reserved for those who have nothing."""
        return size <= self._bounds.least and not self._held(holder)

    def place(self, holder: Holder, size: int) -> Stretch | None:
        """Where the holder gets room for `size` bytes now: a multiple of an extent's least size, or what there is of
        it. None: it has to wait."""
        if len(self._grants) == MAX_EXTENTS:
            return None
        needed, least = padded(size), self._bounds.least
        most = min(-(-needed // least) * least, self._left(holder.kind) // ALIGNMENT * ALIGNMENT)
        if needed > most:
            return None
        chosen = place(self._gaps(), needed, most, from_top=holder.kind is Kind.PEER)
        if chosen is None or not (self.modest(holder, size) or self._leaves_enough(holder, chosen)):
            return None
        return chosen

    def _leaves_enough(self, holder: Holder, chosen: Stretch) -> bool:
        least = self._bounds.least
        reserved = self._without(holder.kind, holder.name)
        other = Kind.PEER if holder.kind is Kind.STAGE else Kind.STAGE
        reserved_other = min(self._without(other), self._left(other) // least)
        left = self._left(holder.kind) - chosen[1]
        return left >= reserved * least and rooms(self._gaps(chosen), least) >= reserved + reserved_other

    def _without(self, kind: Kind, but: str = "") -> int:
        """How many others have nothing: of the stages all that are there, of other pods the next that comes."""
        if kind is Kind.PEER:
            return 1
        return sum(not self._held(Holder(kind, name)) for name in self._joined[kind] if name != but)

    def _held(self, holder: Holder) -> int:
        return sum(grant.extent.size for grant in self._grants.values() if grant.is_of(holder))

    def _left(self, kind: Kind) -> int:
        """Bytes of its share that are in no grant."""
        return self._bounds.share(kind) - sum(g.extent.size for g in self._grants.values() if g.kind is kind)

    def _gaps(self, *more: Stretch) -> list[Stretch]:
        return gaps(EXTENTS, self._bounds.size, [*(grant.stretch for grant in self._grants.values()), *more])
