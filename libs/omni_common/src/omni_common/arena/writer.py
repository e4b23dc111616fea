"""The producer's side of the arena: the slots in the extents granted to it, and the leases on them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from omni.common.v1.tensor_pb2 import ArenaSlot
from omni_common.arena.extents import Extent
from omni_common.arena.holds import SETTLE, Held, HoldTable, HoldTables
from omni_common.arena.layout import SlotHead, slot_size
from omni_common.arena.leases import Granted, Lease
from omni_common.arena.memory import Arena, address_of
from omni_common.clock import Clock
from omni_common.request import RequestKey
from omni_common.tensor import Tensor


class ArenaWriter:
    """One producer's leases in its pod's arena.

    A slot is free again at once when everybody who got a reference has released it and the producer's own views of it
    are gone. Where a release does not come (its request or lease ended, its consumer died), `reclaim` frees the slot
    once nobody in the pod looks at it any more.

    Extents are held in this process's own table, so nobody reuses one while this process lives and may write there,
    whatever else the relay believes of it.

    Not thread-safe: one thread, the event loop's, owns a writer. `put` copies at memory speed (16 MiB in about 2 ms).
    """

    def __init__(self, arena: Arena, holds: HoldTable, tables: HoldTables, clock: Clock = time.monotonic) -> None:
        self._arena = arena
        self._holds = holds
        self._tables = tables
        self._clock = clock
        self._granted: dict[int, Granted] = {}
        self._leases: dict[int, Lease] = {}  # by the offset of their bytes
        self._requests: dict[RequestKey, set[Lease]] = {}
        self._wiped: deque[Lease] = deque()  # in the order of their wiping
        self._dropped: deque[Lease] = deque()  # whose last own view died; filled by finalizers
        self._soonest = float("inf")  # no lease expires before
        self._in_use = 0

    @property
    def extents(self) -> tuple[Extent, ...]:
        return tuple(granted.extent for granted in self._granted.values())

    @property
    def held(self) -> int:
        """Bytes of the extents."""
        return sum(granted.extent.size for granted in self._granted.values())

    @property
    def in_use(self) -> int:
        """Bytes of slots that are not free, heads included."""
        self._notice_dropped()
        return self._in_use

    @property
    def leases(self) -> int:
        """Slots that are not free."""
        self._notice_dropped()
        return len(self._leases)

    def grant(self, extent: Extent) -> bool:
        """From now on this producer allocates there. False if the grant no longer stands. Granting again what is had
        changes nothing."""
        had = self._granted.get(extent.index)
        if had is not None and had.extent == extent:
            return True
        # First the hold, then the check, as with views.
        granted = Granted.hold(extent, self._holds)
        if granted is None:
            return False
        if self._arena.extent_epoch(extent.index) != extent.epoch or extent.end > self._arena.size:
            granted.leave()
            return False
        if had is not None:
            self.revoke(extent.index)
        self._granted[extent.index] = granted
        return True

    def revoke(self, index: int) -> None:
        """The relay has taken the extent away: its references hold no more, nothing new is allocated there."""
        granted = self._granted.pop(index, None)
        if granted is None:
            return
        granted.revoked = True
        self._notice_dropped()
        for lease in [lease for lease in self._leases.values() if lease.granted is granted]:
            lease.uses = 0
            self._free_if_done(lease)
        granted.leave_if_done()

    def take_back(self, *, last: bool = False) -> Extent | None:
        """An extent without leases that is no longer this writer's and may go back to the relay; the only one that it
        has if `last`."""
        self._notice_dropped()
        empty = [granted for granted in self._granted.values() if not granted.leases]
        if not empty or (len(self._granted) == 1 and not last):
            return None
        extent = empty[-1].extent
        self.revoke(extent.index)
        return extent

    def put(self, tensor: Tensor, key: RequestKey | None, expires: float) -> ArenaSlot | None:
        """Copies the tensor into a new slot, leased until `expires` on this writer's clock: one reference, which one
        `release` ends. None: no room in the extents just now."""
        reserved = self.reserve(tensor.nbytes, key, expires)
        if reserved is None:
            return None
        slot, data = reserved
        tensor.copy_to(data)
        return slot

    def reserve(self, length: int, key: RequestKey | None, expires: float) -> tuple[ArenaSlot, memoryview] | None:
        """As `put`, and the caller writes the bytes before anybody hears of the slot: who needs several takes them all
        first and copies only if there is room for all."""
        lease = self._lease(length, key, expires)
        if lease is None:
            return None
        return self._send(lease), self._arena.view[lease.offset : lease.offset + length]

    def allocate(self, length: int, key: RequestKey | None, expires: float) -> memoryview | None:
        """Bytes of a new slot to be written in place; a tensor made on them is sent without a copy (`slot_of`). The
        slot is free again when every view of them is gone and every reference that was sent is released. None: no
        room in the extents just now."""
        lease = self._lease(length, key, expires)
        if lease is None:
            return None
        lease.mine = True
        window = self._arena.memory.window()
        window.then(self._dropped.append, lease)
        return window.part(lease.offset, length)

    def slot_of(self, tensor: Tensor) -> ArenaSlot | None:
        """One more reference, which one `release` ends, to the slot that the tensor was made in; from now on nobody
        writes to it. None for tensors that lie elsewhere, or whose lease is over."""
        data = tensor.data
        lease = self._leases.get(address_of(data) - self._arena.memory.address)
        if lease is None or not lease.mine or lease.length != data.nbytes or not lease.lendable:
            return None
        return self._send(lease)

    def release(self, slot: ArenaSlot) -> bool:
        """Ends one reference. False for one that is not leased: released before, reclaimed, another extent's."""
        return self._end_use(slot, lost=False)

    def lose(self, slot: ArenaSlot) -> bool:
        """Ends one reference whose holder will never say that it looks no more. Once nothing else needs the slot it is
        wiped, and comes back by `reclaim`; references that others hold go on. False as in `release`."""
        return self._end_use(slot, lost=True)

    def release_request(self, key: RequestKey) -> None:
        """Ends a request's leases now: no new view can be made. Views of them may live, so the bytes come back when
        their consumers release them, or by `reclaim`."""
        now = self._clock()
        for lease in self._requests.pop(key, ()):
            self._wipe(lease, now)

    def reclaim(self, now: float) -> int:
        """Ends the leases that have expired, and frees the slots that were wiped SETTLE ago and that nobody looks at;
        says how many it freed."""
        self._notice_dropped()
        self._wipe_expired(now)
        over = []
        while self._wiped and (self._wiped[0].wiped or 0.0) + SETTLE <= now:
            over.append(self._wiped.popleft())
        over = [lease for lease in over if self._is_leased(lease)]
        return self._free_unheld(over, self._tables.look()) if over else 0

    def _end_use(self, slot: ArenaSlot, *, lost: bool) -> bool:
        self._notice_dropped()  # first: after the last use this very lease might be freed by it
        lease = self._leases.get(slot.offset)
        if lease is None or not lease.uses or lease.slot != slot:
            return False
        lease.uses -= 1
        lease.lost = lease.lost or lost
        if not lease.uses:
            self._wipe_head(lease)
            self._free_if_done(lease)
        return True

    def _lease(self, length: int, key: RequestKey | None, expires: float) -> Lease | None:
        self._notice_dropped()
        size = slot_size(length)
        for granted in self._granted.values():
            start = granted.space.take(size)
            if start is not None:
                return self._new(granted, start + SlotHead.SIZE, length, key, expires)
        return None

    def _new(self, granted: Granted, offset: int, length: int, key: RequestKey | None, expires: float) -> Lease:
        granted.generation += 1
        granted.leases += 1
        extent = granted.extent
        slot = ArenaSlot(extent=extent.index, epoch=extent.epoch, offset=offset, generation=granted.generation)
        lease = self._leases[offset] = Lease(granted, slot, length, key, expires)
        if key is not None:
            self._requests.setdefault(key, set()).add(lease)
        self._soonest = min(self._soonest, expires)
        self._in_use += lease.size
        return lease

    def _send(self, lease: Lease) -> ArenaSlot:
        if not lease.uses:
            epoch, generation = lease.granted.extent.epoch, lease.slot.generation
            head = SlotHead.packed(epoch, generation, lease.length, lease.expires)
            self._arena.view[lease.start : lease.offset] = head
        lease.uses += 1
        return lease.slot

    def _wipe_head(self, lease: Lease) -> None:
        self._arena.view[lease.start : lease.offset] = SlotHead.WIPED

    def _wipe(self, lease: Lease, now: float) -> None:
        if lease.lendable:
            self._wipe_head(lease)
            lease.wiped = now
            self._wiped.append(lease)

    def _wipe_expired(self, now: float) -> None:
        if now < self._soonest:
            return
        for lease in self._leases.values():
            if lease.expires <= now:
                self._wipe(lease, now)
        waiting = (lease.expires for lease in self._leases.values() if lease.lendable)
        self._soonest = min(waiting, default=float("inf"))

    def _notice_dropped(self) -> None:
        while self._dropped:
            lease = self._dropped.popleft()
            lease.mine = False
            self._free_if_done(lease)

    def _free_if_done(self, lease: Lease) -> None:
        if lease.uses or lease.mine:
            return
        if lease.lost and not lease.granted.revoked:
            self._wipe(lease, self._clock())
        else:
            self._free(lease)

    def _free_unheld(self, over: Iterable[Lease], held: Held) -> int:
        freed = 0
        for lease in over:
            if lease.mine or held.views(lease.start, lease.start + lease.size):
                self._wiped.append(lease)  # another look next time
            else:
                self._free(lease)
                freed += 1
        return freed

    def _is_leased(self, lease: Lease) -> bool:
        return self._leases.get(lease.offset) is lease

    def _free(self, lease: Lease) -> None:
        granted = lease.granted
        del self._leases[lease.offset]
        if lease.key is not None and (of_request := self._requests.get(lease.key)) is not None:
            of_request.discard(lease)
            if not of_request:
                del self._requests[lease.key]
        self._in_use -= lease.size
        granted.leases -= 1
        granted.space.give(lease.start, lease.size)
        granted.leave_if_done()
