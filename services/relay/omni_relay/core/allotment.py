"""What a pushing relay allocates in the extents that another relay has granted to it, and who waits for room there.

Waiting transfers are served in the order in which they came, with two exceptions that keep a gigabyte which waits for
room from holding up another request's 100 KB:

- One that fits now goes ahead of those that do not, if it is of another request. Each time, the oldest waiting one is
  *overtaken* by its bytes; when that is more than its own size (and PATIENCE), it is *owed*: what it could lie in is
  kept for it from then on, so it cannot starve.
- What is larger than LARGE is asked for apart from what is smaller: two wants may be under way at a time, one of each
  kind, and the one that takes long to be granted does not stand before the other.

An extent in which nothing lies goes back after IDLE seconds, or at once while a want is under way that is large or
takes long to be answered: the other relay may need its bytes to make the extent that is waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from math import inf

from omni_common.arena.extents import Extent
from omni_common.arena.layout import SlotHead, slot_size
from omni_common.arena.space import FreeSpace
from omni_common.request import RequestKey
from omni_relay.core.misbehaviour import Misbehaved

# Bytes above which a want counts as large. Part of the contract: the granting relay takes one want of each kind.
LARGE = 16 << 20
# Bytes by which the oldest may be overtaken at least; a few tensors, so that small ones do not take strict turns.
PATIENCE = 16 << 20
# Seconds: longer than the pauses within a busy request, shorter than anybody's patience elsewhere.
IDLE = 5.0
# Seconds after which a want has taken long: what there is room for is granted within a round trip.
PROMPT = 0.02


@dataclass(frozen=True, slots=True)
class Place:
    """Where a transfer's bytes lie in the other arena; the slot's head is before them."""

    extent: int
    offset: int


@dataclass(slots=True)
class _Held:
    extent: Extent
    space: FreeSpace = field(default_factory=FreeSpace)
    taken: int = 0
    empty_since: float | None = None

    @property
    def widest(self) -> int:
        return max((size for _, size in self.space.extents), default=0)


@dataclass(slots=True)
class _Waiting:
    key: RequestKey
    size: int
    overtaken: int = 0

    @property
    def owed(self) -> bool:
        return self.overtaken > max(self.size, PATIENCE)


@dataclass(frozen=True, slots=True)
class _Want:
    size: int
    since: float


class Allotment:
    """The extents that one connection was granted. Pure: it neither waits nor sends."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._taken: dict[Place, int] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._wants: dict[bool, _Want] = {}  # by whether it is large

    @property
    def taken(self) -> int:
        """Bytes in use, slot heads included."""
        return sum(self._taken.values())

    @property
    def held(self) -> int:
        """Bytes of all extents."""
        return sum(held.extent.size for held in self._held.values())

    @property
    def waiting(self) -> Collection[int]:
        """The transfers that have no place yet, the oldest first."""
        return self._waiting.keys()

    def ask(self, transfer: int, key: RequestKey, length: int) -> None:
        """Queues a transfer of `length` bytes for a place."""
        self._waiting[transfer] = _Waiting(key, slot_size(length))

    def withdraw(self, transfer: int) -> None:
        """It needs no place any more. Unknown ones are ignored."""
        self._waiting.pop(transfer, None)

    def place(self) -> list[tuple[int, Place]]:
        """Gives places to those who can have one now."""
        placed: list[tuple[int, Place]] = []
        widest = self._widest() if len(self._waiting) > 1 else inf
        oldest: _Waiting | None = None
        passed_by: set[RequestKey] = set()
        for transfer, waiting in list(self._waiting.items()):
            fits = waiting.size <= widest and waiting.key not in passed_by
            place = self._take(waiting.size, self._open_to(oldest)) if fits else None
            if place is None:
                oldest = oldest or waiting
                passed_by.add(waiting.key)
                continue
            del self._waiting[transfer]
            placed.append((transfer, place))
            if oldest is not None:
                oldest.overtaken += waiting.size
        return placed

    def wants(self, now: float) -> list[int]:
        """Sizes of the extents to ask for now; from here on they are asked for."""
        sizes = []
        for size in self._needs():
            if (large := size > LARGE) not in self._wants:
                self._wants[large] = _Want(size, now)
                sizes.append(size)
            if len(self._wants) == 2:
                break
        return sizes

    def grant(self, extent: Extent) -> None:
        """The answer to a want. Raises Misbehaved when nothing was wanted or the extent is held already."""
        if extent.index in self._held:
            raise Misbehaved(f"granted extent {extent.index} twice")
        self._answered(extent.size)
        held = self._held[extent.index] = _Held(extent)
        held.space.give(extent.offset, extent.size)

    def refuse(self, size: int) -> list[int]:
        """There can never be an extent of `size`: gives up on the transfers that would need one, and names them."""
        want = self._wants.get(size > LARGE)
        if want is None or want.size != size:
            raise Misbehaved("refused an extent that nobody wanted")
        del self._wants[size > LARGE]
        hopeless = [transfer for transfer, waiting in self._waiting.items() if waiting.size >= size]
        for transfer in hopeless:
            del self._waiting[transfer]
        return hopeless

    def free(self, place: Place) -> None:
        """What lay there is gone. Raises Misbehaved when nothing did."""
        size = self._taken.pop(place, None)
        if size is None:
            raise Misbehaved("freed space that was not in use")
        held = self._held[place.extent]
        held.space.give(place.offset - SlotHead.SIZE, size)
        held.taken -= 1

    def give_back(self, now: float) -> list[int]:
        """The extents that go back: they are no longer held. To be called after `place`, and every second or so."""
        hurry = any(large or now - want.since >= PROMPT for large, want in self._wants.items())
        leaving = [index for index, held in self._held.items() if self._is_idle(held, now, hurry=hurry)]
        for index in leaving:
            del self._held[index]
        return leaving

    def _is_idle(self, held: _Held, now: float, *, hurry: bool) -> bool:
        if held.taken:
            held.empty_since = None
            return False
        if held.empty_since is None:
            held.empty_since = now
        return hurry or now - held.empty_since >= IDLE

    def _take(self, size: int, among: Iterable[_Held]) -> Place | None:
        for held in among:
            if (start := held.space.take(size)) is not None:
                held.taken += 1
                held.empty_since = None
                place = Place(held.extent.index, start + SlotHead.SIZE)
                self._taken[place] = size
                return place
        return None

    def _widest(self) -> int:
        """The longest free stretch: saves those who are many and large the search for theirs."""
        return max((held.widest for held in self._held.values()), default=0)

    def _open_to(self, oldest: _Waiting | None) -> Iterable[_Held]:
        """The extents that those behind `oldest` may use, the first granted first: the later ones become empty."""
        everything = self._held.values()
        if oldest is None or not oldest.owed:
            return everything
        able = [held for held in everything if held.extent.size >= oldest.size]
        if not able:
            return ()  # all of them must go back before it can have one that is large enough
        kept = max(able, key=lambda held: held.space.free)
        return [held for held in everything if held is not kept]

    def _needs(self) -> Iterable[int]:
        """The sizes that are waited for, each request's oldest only: the others may fit beside it."""
        seen: set[RequestKey] = set()
        for waiting in self._waiting.values():
            if waiting.key not in seen:
                seen.add(waiting.key)
                yield waiting.size

    def _answered(self, size: int) -> None:
        large = self._wants.get(True)
        kind = large is not None and size >= large.size
        if kind not in self._wants:
            raise Misbehaved("granted an extent that nobody wanted")
        if size < self._wants[kind].size:
            raise Misbehaved("granted an extent that is too small")
        del self._wants[kind]
