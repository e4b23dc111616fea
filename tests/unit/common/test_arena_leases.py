"""Puts, tensors made in place, views, releases, aborts, expiry, deaths, lost extents and passing time in any mixture.

Readers see whole tensors or nothing, bytes under a view never change, nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.common.arena_refs import Pod, never, noise, octets, ref_to

from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef
from omni_common.arena import ArenaReader, ArenaWriter, Extent, HoldTable, HoldTables
from omni_common.arena.holds import SETTLE
from omni_common.arena.layout import SlotHead, slot_size
from omni_common.arena.memory import address_of
from omni_common.errors import LeaseLost
from omni_common.request import RequestKey
from omni_common.tensor import Tensor
from omni_common.testing.clock import ManualClock

SMALL = 8 * 1024  # an extent's size here: full after a few tensors
T = TypeVar("T")
KEYS = st.builds(RequestKey, st.sampled_from("ab"), st.integers(0, 1))


@dataclass
class Producer:
    """A process that writes, as the test believes it to be."""

    writer: ArenaWriter
    table: HoldTable
    sent: list[Sent] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    lost: list[Sent] = field(default_factory=list)


@dataclass(eq=False)
class Sent:
    """A reference that is on its way or released, and what its bytes are."""

    ref: DataRef
    data: bytes
    key: RequestKey
    expires: float
    over: bool = False
    """No new view can be made."""
    unreleased: int = 1
    views: int = 0


@dataclass(eq=False)
class Place:
    """Bytes that a producer writes in place."""

    memory: memoryview
    extent: Extent
    data: bytes
    key: RequestKey
    expires: float
    over: bool = False
    sent: Sent | None = None


@dataclass
class Consumer:
    reader: ArenaReader
    table: HoldTable
    views: list[tuple[Sent, Tensor]] = field(default_factory=list)


class ArenaMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.clock = ManualClock()
        self.pod = Pod(Path(self.folder.name), self.clock)
        self.producers = [self._producer() for _ in range(2)]
        self.consumers = [self._consumer() for _ in range(2)]
        self.free = set(range(4))
        self.revoked: list[tuple[Extent, float]] = []
        self.released: list[ArenaSlot] = []
        self.over: list[Sent] = []
        self.seed = 0

    # The relay

    @precondition(lambda self: self.free)
    @rule(which=st.integers(0, 1))
    def grant(self, which: int) -> None:
        index = min(self.free)
        assert self.producers[which].writer.grant(self.pod.grant(index, SMALL))
        self.free.remove(index)

    @rule(which=st.integers(0, 1))
    def take_back(self, which: int) -> None:
        producer = self.producers[which]
        extent = producer.writer.take_back()
        if extent is None:
            return
        assert not [sent for sent in producer.sent if sent.ref.arena.epoch == extent.epoch and self._holds(sent)]
        assert not [place for place in producer.places if place.extent == extent]
        self._revoke(extent)

    @rule(which=st.integers(0, 1), told=st.booleans())
    def lose_an_extent(self, which: int, told: bool) -> None:
        """The relay believes that the producer is gone; the producer hears of it now, or when it next asks."""
        producer = self.producers[which]
        if not producer.writer.extents:
            return
        extent = producer.writer.extents[0]
        self._revoke(extent)
        if told:
            producer.writer.revoke(extent.index)

    @rule(which=st.integers(0, 1))
    def hear_of_lost_extents(self, which: int) -> None:
        for extent in self.producers[which].writer.extents:
            if not self._stands(extent):
                self.producers[which].writer.revoke(extent.index)

    @rule()
    def free_what_nobody_uses(self) -> None:
        for extent, since in tuple(self.revoked):
            if since + SETTLE <= self.clock() and not self.pod.tables.held(extent.offset, extent.end):
                self.revoked.remove((extent, since))
                self.free.add(extent.index)

    # Producers

    @rule(which=st.integers(0, 1), size=st.integers(0, 3000), key=KEYS, life=st.integers(1, 30))
    def put(self, which: int, size: int, key: RequestKey, life: int) -> None:
        producer, data, expires = self.producers[which], self._noise(size), self.clock() + life
        slot = producer.writer.put(octets(data), key, expires)
        if slot is not None:
            producer.sent.append(Sent(ref_to(octets(data), slot), data, key, expires))

    @rule(which=st.integers(0, 1), size=st.integers(0, 3000), key=KEYS, life=st.integers(1, 30))
    def make_in_place(self, which: int, size: int, key: RequestKey, life: int) -> None:
        producer, data, expires = self.producers[which], self._noise(size), self.clock() + life
        memory = producer.writer.allocate(size, key, expires)
        if memory is not None:
            memory[:] = data
            producer.places.append(Place(memory, self._extent_of(producer, memory), data, key, expires))

    @precondition(lambda self: self._places())
    @rule(data=st.data())
    def write_on(self, data: st.DataObject) -> None:
        _, place = _one_of(self._places(), data)
        if place.sent is None:
            place.data = self._noise(len(place.data))
            place.memory[:] = place.data

    @precondition(lambda self: self._places())
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        producer, place = _one_of(self._places(), data)
        tensor = octets(place.memory.toreadonly())
        slot = producer.writer.slot_of(tensor)
        if slot is None:
            assert place.over or place.expires <= self.clock() or not self._stands(place.extent)
        elif place.sent is None:
            place.sent = Sent(ref_to(tensor, slot), place.data, place.key, place.expires, over=place.over)
            producer.sent.append(place.sent)
        else:
            assert slot == place.sent.ref.arena
            place.sent.unreleased += 1

    @precondition(lambda self: self._places())
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        producer, place = _one_of(self._places(), data)
        producer.places.remove(place)
        if place.sent is not None and not place.sent.unreleased:
            self._bury(place.sent)

    @rule(which=st.integers(0, 1), key=KEYS)
    def abort(self, which: int, key: RequestKey) -> None:
        producer = self.producers[which]
        producer.writer.release_request(key)
        ended: list[Sent | Place] = [*producer.sent, *producer.places]
        for one in ended:
            one.over |= one.key == key

    @rule(which=st.integers(0, 1))
    def die_while_producing(self, which: int) -> None:
        producer = self.producers[which]
        producer.table.disown()
        for extent in producer.writer.extents:
            if self._stands(extent):
                self._revoke(extent)
        self.over += producer.sent
        self.producers[which] = self._producer()

    # Consumers

    @precondition(lambda self: self._sent_refs())
    @rule(which=st.integers(0, 1), data=st.data())
    def view(self, which: int, data: st.DataObject) -> None:
        sent = _one_of(self._sent_refs(), data)
        if not self._holds(sent) or sent.views >= sent.unreleased:
            return
        consumer = self.consumers[which]
        consumer.views.append((sent, consumer.reader.view(sent.ref, self.released.append)))
        sent.views += 1

    @precondition(lambda self: any(consumer.views for consumer in self.consumers))
    @rule(which=st.integers(0, 1), data=st.data(), tell=st.booleans())
    def drop_a_view(self, which: int, data: st.DataObject, tell: bool) -> None:
        """The release reaches the producer, or is lost."""
        views = self.consumers[which].views
        if not views:
            return
        sent = views.pop(data.draw(st.integers(0, len(views) - 1)))[0]
        assert self.released.pop() == sent.ref.arena
        sent.views -= 1
        if tell:
            self._release(sent)

    @precondition(lambda self: self._sent_refs())
    @rule(data=st.data())
    def release_unseen(self, data: st.DataObject) -> None:
        sent = _one_of(self._sent_refs(), data)
        if sent.views < sent.unreleased:
            self._release(sent)

    @precondition(lambda self: self._sent_refs())
    @rule(data=st.data())
    def lose_a_consumer(self, data: st.DataObject) -> None:
        """Nothing more is heard of who had the reference, who may look on."""
        sent = _one_of(self._sent_refs(), data)
        for producer in self.producers:
            if sent in producer.sent and sent.unreleased:
                producer.writer.lose(sent.ref.arena)
                producer.lost.append(sent)
                self._one_less(sent)

    @precondition(lambda self: self.over)
    @rule(which=st.integers(0, 1), data=st.data())
    def release_what_is_over(self, which: int, data: st.DataObject) -> None:
        assert not self.producers[which].writer.release(_one_of(self.over, data).ref.arena)

    @rule(which=st.integers(0, 1))
    def die_while_consuming(self, which: int) -> None:
        consumer = self.consumers[which]
        consumer.table.disown()
        for sent, _ in consumer.views:
            sent.views -= 1
        consumer.views.clear()
        self.released.clear()
        self.consumers[which] = self._consumer()

    # Time

    @rule(seconds=st.sampled_from([SETTLE / 2, SETTLE, 1.0, 10.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for producer in self.producers:
            producer.writer.reclaim(self.clock())

    # What holds at all times

    @invariant()
    def bytes_under_views_never_change(self) -> None:
        for consumer in self.consumers:
            for sent, tensor in consumer.views:
                assert tensor.data == sent.data

    @invariant()
    def bytes_made_in_place_never_change_but_by_their_maker(self) -> None:
        for _, place in self._places():
            assert place.memory == place.data

    @invariant()
    def references_hold_until_their_end_and_never_again(self) -> None:
        reader = self.consumers[0].reader
        for sent in self._sent_refs():
            if not self._holds(sent):
                self._refused(reader, sent)
            else:
                assert reader.view(sent.ref, lambda slot: None).data == sent.data
        for sent in self.over[-20:]:
            self._refused(reader, sent)

    @invariant()
    def what_is_in_use_is_what_was_taken_and_has_not_come_back(self) -> None:
        for producer in self.producers:
            unsent = sum(slot_size(len(place.data)) for place in producer.places if place.sent is None)
            leased = sum(slot_size(len(sent.data)) for sent in producer.sent if self._holds(sent))
            taken = sum(slot_size(len(sent.data)) for sent in {*producer.sent, *producer.lost})
            assert leased + unsent <= producer.writer.in_use <= taken + unsent

    def teardown(self) -> None:
        for consumer in self.consumers:
            consumer.views.clear()
        for producer in self.producers:
            producer.places.clear()
        self.hear_of_lost_extents(0)
        self.hear_of_lost_extents(1)
        for _ in range(3):
            self.let_time_pass(40.0)
        for producer in self.producers:
            writer = producer.writer
            assert (writer.leases, writer.in_use) == (0, 0)
            whole = octets(bytes(SMALL - SlotHead.SIZE))
            assert all(writer.put(whole, None, 1e9) is not None for _ in writer.extents)
        assert self.pod.tables.look().slots == []
        self.pod.tables.remove_dead()
        assert len(list((self.pod.folder / "holds").iterdir())) == 4
        self.folder.cleanup()

    def _producer(self) -> Producer:
        table = self.pod.table("producer")
        arena = self.pod.arena
        return Producer(ArenaWriter(arena, table, HoldTables(self.pod.folder), self.clock), table)

    def _consumer(self) -> Consumer:
        table = self.pod.table("consumer")
        return Consumer(self.pod.reader(table), table)

    def _noise(self, size: int) -> bytes:
        self.seed += 1
        return noise(size, self.seed)

    def _sent_refs(self) -> list[Sent]:
        return [sent for producer in self.producers for sent in producer.sent]

    def _places(self) -> list[tuple[Producer, Place]]:
        return [(producer, place) for producer in self.producers for place in producer.places]

    def _release(self, sent: Sent) -> None:
        producer = next((p for p in self.producers if sent in p.sent), None)
        if producer is None:
            return
        producer.writer.release(sent.ref.arena)
        self._one_less(sent)

    def _one_less(self, sent: Sent) -> None:
        sent.unreleased -= 1
        if not sent.unreleased and all(place.sent is not sent for _, place in self._places()):
            self._bury(sent)

    def _bury(self, sent: Sent) -> None:
        for producer in self.producers:
            if sent in producer.sent:
                producer.sent.remove(sent)
        self.over.append(sent)

    def _holds(self, sent: Sent) -> bool:
        """Whether a view can be made."""
        ended = sent.over or sent.expires <= self.clock() or not sent.unreleased
        return not ended and self._stands(sent.ref.arena)

    def _stands(self, grant: ArenaSlot | Extent) -> bool:
        index = grant.extent if isinstance(grant, ArenaSlot) else grant.index
        return self.pod.arena.extent_epoch(index) == grant.epoch

    def _extent_of(self, producer: Producer, memory: memoryview) -> Extent:
        offset = address_of(memory) - self.pod.arena.memory.address
        return next(extent for extent in producer.writer.extents if extent.offset <= offset <= extent.end)

    def _revoke(self, extent: Extent) -> None:
        self.pod.revoke(extent)
        self.revoked.append((extent, self.clock()))

    def _refused(self, reader: ArenaReader, sent: Sent) -> None:
        with pytest.raises(LeaseLost):
            reader.view(sent.ref, never())


def _one_of(items: list[T], data: st.DataObject) -> T:
    """By its number, so that hypothesis keeps nothing alive."""
    return items[data.draw(st.integers(0, len(items) - 1))]


TestArena = ArenaMachine.TestCase
TestArena.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
