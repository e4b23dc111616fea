"""The extents under everything that can happen to them, in any order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.relay.extents_world import LEAST, World, peer, stage

from omni_common.arena.holds import SETTLE
from omni_common.arena.layout import EXTENTS, SlotHead
from omni_relay.core.extents import CLAIM_TIME
from omni_relay.core.holders import Holder, Kind, SlotName

STAGES = [stage(name) for name in ("a", "b", "c")]
PEERS = [peer(name) for name in ("1", "2")]
HOLDERS = [*STAGES, *PEERS]


class ExtentsMachine(RuleBasedStateMachine):
    """`handed` are the slots that stages have been handed and have not released; a dead peer's name comes again, which
    no real one's does."""

    @initialize(extents=st.integers(2, 16), rest=st.integers(0, 15), inbound=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    def begin(self, extents: int, rest: int, inbound: float) -> None:
        self.world = World(extents, inbound=inbound)
        self.handed: dict[SlotName, str] = {}
        self.restarted = False

    # What holders do

    @rule(holder=st.sampled_from(HOLDERS))
    def come(self, holder: Holder) -> None:
        if holder not in self.world.has:
            self.world.join(holder)

    @rule(holder=st.sampled_from(HOLDERS))
    def go(self, holder: Holder) -> None:
        if holder in self.world.has:
            self.forget(holder)
            self.world.leave(holder)

    @rule(holder=st.sampled_from(HOLDERS), size=st.integers(1, 6 * LEAST))
    def want(self, holder: Holder, size: int) -> None:
        if holder in self.world.has:
            self.world.want(holder, size)

    @rule(holder=st.sampled_from(HOLDERS), data=st.data())
    def give_back(self, holder: Holder, data: st.DataObject) -> None:
        """A peer only what nobody looks at: all that came for somebody has been released."""
        used = {slot.extent for slot in self.handed}
        extents = [e for e in self.world.has.get(holder, {}).values() if e.index not in used]
        if holder.kind is Kind.PEER:
            extents = [extent for extent in extents if not self.world.looked_at(extent)]
        if extents:
            self.world.give_back(holder, data.draw(st.sampled_from(extents)))

    @rule(holder=st.sampled_from(STAGES), data=st.data())
    def come_again(self, holder: Holder, data: st.DataObject) -> None:
        """With a part of what it has, and something that it has not."""
        theirs = [extent for extents in self.world.has.values() for extent in extents.values()]
        mine = [*self.world.has.get(holder, {}).values()]
        claimed = data.draw(st.lists(st.sampled_from(mine), unique=True)) if mine else []
        false = data.draw(st.lists(st.sampled_from(theirs))) if theirs else []
        slots = [slot for slot, name in self.handed.items() if name == holder.name]
        kept = data.draw(st.lists(st.sampled_from(slots), unique=True)) if slots else []
        self.world.come_back(holder.name, [*false, *claimed], kept)
        assert set(claimed) <= set(self.world.has[holder].values()) <= set(mine)
        self.handed = {s: name for s, name in self.handed.items() if name != holder.name or s in kept}

    # Tensors from other pods

    @rule(holder=st.sampled_from(PEERS), consumer=st.sampled_from(STAGES), data=st.data())
    def deliver(self, holder: Holder, consumer: Holder, data: st.DataObject) -> None:
        if not (extents := [*self.world.has.get(holder, {}).values()]):
            return
        extent = data.draw(st.sampled_from(extents))
        place = data.draw(st.integers(0, extent.size // 128 - 1))
        offset = extent.offset + place * 128 + SlotHead.SIZE
        arrival = self.world.arrival(extent, offset, 64, consumer.name, data.draw(st.sampled_from([1.0, 1000.0])))
        if self.world.core.deliver(arrival):
            assert consumer in self.world.has
            self.handed[arrival.slot] = consumer.name

    @precondition(lambda self: self.handed)
    @rule(data=st.data(), stranger=st.sampled_from(STAGES))
    def release(self, data: st.DataObject, stranger: Holder) -> None:
        slot = data.draw(st.sampled_from([*self.handed]))
        if stranger.name != self.handed[slot] and slot not in self.world.wiped:
            assert self.world.core.release(stranger.name, slot, self.world.now) is None
        self.world.release(self.handed.pop(slot), slot)

    # Processes that look or write

    @rule(offset=st.integers(0, 16 * LEAST // 64))
    def hold(self, offset: int) -> None:
        """What is wiped or free cannot be held any more: the hold would be taken back at once."""
        place = EXTENTS + 64 * offset
        standing = [e for e, _ in self.world.ledger.values() if self.world.table[e.index] == e.epoch]
        if any(extent.offset <= place < extent.end for extent in standing):
            self.world.held.add(place)

    @precondition(lambda self: self.world.held)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        self.world.held.remove(data.draw(st.sampled_from(sorted(self.world.held))))

    # Time

    @rule(ticks=st.integers(1, 30))
    def wait(self, ticks: int) -> None:
        self.world.wait(ticks * 0.25)

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        """The relay is killed. Peers are gone with it; some of the stages come back with what they have."""
        before = {holder: extents for holder, extents in self.world.has.items() if holder.kind is Kind.STAGE}
        self.world.has = {}
        self.world.restart()
        self.restarted = True
        wiped = set(self.world.wiped)
        back = data.draw(st.sets(st.sampled_from(sorted(h.name for h in before)))) if before else set()
        for name in sorted(back):
            slots = [slot for slot, consumer in self.handed.items() if consumer == name and slot not in wiped]
            self.world.come_back(name, before[stage(name)].values(), slots)
            assert self.world.has[stage(name)] == before[stage(name)]
            for slot in slots:
                extent = self.world.ledger[slot.extent][0]
                arrival = self.world.arrival(extent, slot.offset, 64, name)
                arrival.slot = slot
                assert self.world.core.resume(arrival)
        self.handed = {slot: name for slot, name in self.handed.items() if name in back and slot not in wiped}

    # What always holds

    @invariant()
    def no_two_overlap_and_none_reaches_outside(self) -> None:
        if not hasattr(self, "world"):
            return
        taken = sorted((extent.offset, extent.end) for extent, _ in self.world.ledger.values())
        edges = [EXTENTS, *(edge for stretch in taken for edge in stretch), self.world.bounds.size]
        assert edges == sorted(edges)
        assert all(offset % 64 == 0 for offset, _ in taken)

    @invariant()
    def every_byte_is_somebodys_or_free(self) -> None:
        if not hasattr(self, "world"):
            return
        usage = self.world.core.usage()
        assert sum(usage.values()) == self.world.room
        assert usage["free"] == self.world.room - sum(extent.size for extent, _ in self.world.ledger.values())

    @invariant()
    def the_table_says_who_stands(self) -> None:
        if not hasattr(self, "world"):
            return
        standing = {g.extent.index: g.extent.epoch for g in self.world.core.grants if g.revoked is None}
        assert {index: epoch for index, epoch in self.world.table.items() if epoch} == standing
        mine = [extent for extents in self.world.has.values() for extent in extents.values()]
        assert len(mine) == len(set(mine))
        assert all(standing[extent.index] == extent.epoch for extent in mine)

    @invariant()
    def nobody_has_more_than_the_share_of_its_kind(self) -> None:
        if not hasattr(self, "world"):
            return
        for kind in Kind:
            held = sum(extent.size for extent, owner in self.world.ledger.values() if owner is kind)
            assert held <= self.world.bounds.share(kind)

    # How it ends

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.everybody_is_served_when_all_give_back()
        for holder in [*self.world.has]:
            self.forget(holder)
            self.world.leave(holder)
        self.world.held.clear()
        self.world.wait(CLAIM_TIME + 2 * SETTLE if self.restarted else 5.0)
        assert self.world.free() == self.world.room

    def everybody_is_served_when_all_give_back(self) -> None:
        """Whoever wants what is not refused gets it in its turn if the others give back what they have, stages all but
        a last small extent."""
        world = self.world
        world.held.clear()
        for slot, name in [*self.handed.items()]:
            world.release(name, slot)
        self.handed.clear()
        world.wait(CLAIM_TIME + 1)
        refused = len(world.refused)
        wants = {holder: LEAST * (1 + number) for number, holder in enumerate(world.has)}
        waiting = {holder for holder, size in wants.items() if world.want(holder, size) is None}
        for _ in HOLDERS:
            before = {extent for extents in world.has.values() for extent in extents.values()}
            self.all_give_back(waiting)
            waiting -= {holder for holder, extents in world.has.items() if set(extents.values()) - before}
        assert waiting <= {refusal.holder for refusal in world.refused[refused:]}

    def all_give_back(self, waiting: set[Holder]) -> None:
        had = {holder: dict(extents) for holder, extents in self.world.has.items()}
        for holder, extents in had.items():
            keeps = holder.kind is Kind.STAGE and holder not in waiting
            small = [extent for extent in extents.values() if keeps and extent.size <= LEAST]
            for extent in set(extents.values()) - set(small[:1]):
                self.world.give_back(holder, extent)
        self.world.settle()

    def forget(self, holder: Holder) -> None:
        self.handed = {slot: name for slot, name in self.handed.items() if name != holder.name}


TestExtents = ExtentsMachine.TestCase
TestExtents.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
