"""What the core of the extents knows of the world, and what it asks of its shell."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from omni_common.arena.extents import Extent


class Kind(StrEnum):
    """Who allocates in an extent."""

    STAGE = "stage"
    """A stage of this pod, by its replica's name."""
    PEER = "peer"
    """A relay of another pod, by its connection's name."""


@dataclass(frozen=True, slots=True)
class Holder:
    kind: Kind
    name: str


@dataclass(frozen=True, slots=True)
class SlotName:
    """What a reference to a slot says: offsets are of its bytes, after its head."""

    extent: int
    epoch: int
    offset: int
    generation: int


@dataclass(slots=True)
class Arrival:
    """A slot that a peer filled and a stage of this pod has been handed. `end` is where its bytes end, `expires` the
    end of its lease, `wiped` when its head was wiped."""

    slot: SlotName
    consumer: str
    end: int
    expires: float
    wiped: float | None = None


@dataclass(slots=True)
class Grant:
    """An extent that is not free. `holder` is None when nobody allocates in it any more: after a peer has left, or
    after a restart of the relay until its stage has come back. `revoked` is when its word in the table was zeroed,
    `lost` whether its owner went without giving it back, `claimable` whether somebody may still come and say that it or
    a tensor in it, is his."""

    extent: Extent
    kind: Kind
    holder: str | None
    arrivals: dict[int, Arrival] = field(default_factory=dict)
    revoked: float | None = None
    lost: bool = False
    claimable: bool = False

    def is_of(self, holder: Holder) -> bool:
        """Whether the holder may allocate in it."""
        return self.holder == holder.name and self.kind is holder.kind and self.revoked is None

    @property
    def stretch(self) -> tuple[int, int]:
        return self.extent.offset, self.extent.size


# Commands, in the order in which they must be carried out.


@dataclass(frozen=True, slots=True)
class Granted:
    """The extent is the holder's: note it, put its epoch into the table, tell the holder."""

    holder: Holder
    extent: Extent


@dataclass(frozen=True, slots=True)
class Refused:
    """There can never be `size` bytes in one piece for the holder: tell it."""

    holder: Holder
    size: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """No reference into the extent holds from now on: zero its word in the table."""

    extent: Extent


@dataclass(frozen=True, slots=True)
class Regained:
    """The extent's bytes are free and may be granted again: strike it out. `lost` says whether its owner died."""

    extent: Extent
    kind: Kind
    lost: bool


@dataclass(frozen=True, slots=True)
class Wiped:
    """No reference to the slot holds from now on: zero its head."""

    slot: SlotName


@dataclass(frozen=True, slots=True)
class Freed:
    """The peer may allocate the slot's bytes again: tell it."""

    peer: str
    extent: int
    offset: int


Command = Granted | Refused | Revoked | Regained | Wiped | Freed


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes `[start, end)` that may be reused unless somebody still views them: a revoked extent, or one slot of it."""

    start: int
    end: int
    extent: Extent
    slot: SlotName | None = None
