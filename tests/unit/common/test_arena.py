"""Writer and reader of one arena: leases, their ends, and references that do not hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from tests.unit.common.arena_refs import EXTENT, KEY, Pod, never, noise, octets, put, ref_to

from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef
from omni_common.arena import ArenaReader, ArenaWriter, Extent
from omni_common.arena.holds import ENTRIES, SETTLE
from omni_common.arena.layout import EXTENTS, MAX_EXTENTS, ArenaHead, SlotHead, slot_size
from omni_common.arena.reader import LOOK
from omni_common.errors import Internal, LeaseLost
from omni_common.request import RequestKey
from omni_common.testing.clock import ManualClock

DATA = noise(200)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def pod(tmp_path: Path, clock: ManualClock) -> Pod:
    return Pod(tmp_path, clock)


@pytest.fixture
def writer(pod: Pod) -> ArenaWriter:
    return pod.writer()


@pytest.fixture
def reader(pod: Pod) -> ArenaReader:
    return pod.reader()


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 4000])
def test_a_view_holds_what_was_put(writer: ArenaWriter, reader: ArenaReader, size: int) -> None:
    data = noise(size)
    released: list[ArenaSlot] = []
    view = reader.view(put(writer, data), released.append)
    assert bytes(view.data) == data
    assert view.data.readonly
    assert released == []


def test_a_slot_is_held_before_it_is_checked(pod: Pod, writer: ArenaWriter) -> None:
    held: list[list[int]] = []

    def clock() -> float:  # asked during the check, whether the lease has expired
        held.append(pod.tables.look().slots)
        return 0.0

    ref = put(writer, DATA)
    ArenaReader(pod.arena, pod.table("consumer"), clock).view(ref, lambda slot: None)
    assert held == [[ref.arena.offset - SlotHead.SIZE]]


def test_bytes_are_lent_without_a_tensor_too(writer: ArenaWriter, reader: ArenaReader) -> None:
    released: list[ArenaSlot] = []
    slot = put(writer, DATA).arena
    data = reader.lend(slot, len(DATA), released.append)
    assert (bytes(data), data.readonly) == (DATA, True)
    del data
    assert released == [slot]
    with pytest.raises(LeaseLost):
        reader.lend(slot, len(DATA) + 1, never())


def test_slots_lie_on_cache_lines_and_many_share_an_extent(writer: ArenaWriter) -> None:
    refs = [put(writer, bytes(size)) for size in (1, 100, 64, 0, 7)]
    assert [ref.arena.offset % 64 for ref in refs] == [0] * 5
    assert writer.in_use == sum(map(slot_size, (1, 100, 64, 0, 7)))


# Room


def test_a_full_extent_takes_nothing_until_a_slot_comes_back(writer: ArenaWriter) -> None:
    largest = octets(bytes(EXTENT - SlotHead.SIZE))
    slot = writer.put(largest, KEY, 1.0)
    assert slot is not None
    assert writer.put(octets(b""), KEY, 1.0) is None
    assert writer.allocate(0, KEY, 1.0) is None
    assert writer.release(slot)
    assert writer.in_use == 0
    assert writer.put(largest, KEY, 1.0) is not None


def test_another_extent_is_more_room_and_the_first_is_filled_first(pod: Pod, writer: ArenaWriter) -> None:
    large = bytes(EXTENT - 1024)
    put(writer, large)
    assert writer.put(octets(large), KEY, 1.0) is None
    assert writer.grant(pod.grant(1))
    assert put(writer, large).arena.extent == 1
    assert put(writer, DATA).arena.extent == 0
    assert writer.held == 2 * EXTENT


def test_a_grant_is_taken_once_and_only_while_it_stands(pod: Pod, writer: ArenaWriter) -> None:
    ref = put(writer, DATA)
    (extent,) = writer.extents
    assert writer.grant(extent)
    assert writer.leases == 1
    late = pod.grant(1)
    pod.revoke(late)
    assert not writer.grant(late)
    beyond = Extent(2, pod.grant(2).epoch, EXTENTS, 1 << 40)
    assert not writer.grant(beyond)
    assert writer.extents == (extent,)
    assert not pod.tables.held(late.offset, late.end)
    assert writer.release(ref.arena)


def test_extents_without_leases_go_back_but_for_the_last(pod: Pod) -> None:
    writer = pod.writer(pod.grant(0), pod.grant(1), pod.grant(2))
    first = put(writer, bytes(EXTENT - SlotHead.SIZE))
    second = put(writer, DATA)
    assert writer.take_back() == Extent(2, first.arena.epoch + 2, EXTENTS + 2 * EXTENT, EXTENT)
    assert writer.take_back() is None
    writer.release(first.arena)
    writer.release(second.arena)
    assert writer.take_back() is not None
    assert writer.take_back() is None
    assert len(writer.extents) == 1


def test_a_process_holds_the_extents_in_which_it_writes(pod: Pod, writer: ArenaWriter) -> None:
    (first,) = writer.extents
    second = pod.grant(1)
    writer.grant(second)
    for extent in (first, second):
        assert pod.tables.held(extent.offset, extent.end)
    assert writer.take_back() == second
    assert not pod.tables.held(second.offset, second.end)
    assert pod.tables.held(first.offset, first.end)


def test_nothing_of_a_revoked_extent_can_be_viewed_or_comes_back(
    pod: Pod, writer: ArenaWriter, reader: ArenaReader
) -> None:
    old = put(writer, DATA)
    released: list[ArenaSlot] = []
    view = reader.view(old, released.append)
    (extent,) = writer.extents
    pod.revoke(extent)
    with pytest.raises(LeaseLost, match="producer"):
        reader.view(old, never())
    writer.revoke(extent.index)
    writer.revoke(extent.index)
    assert (writer.extents, writer.leases, writer.in_use) == ((), 0, 0)
    assert writer.put(octets(DATA), KEY, 1.0) is None
    assert not writer.release(old.arena)
    assert pod.tables.held(extent.offset, extent.end), "its view lives"
    assert bytes(view.data) == DATA
    del view
    assert not pod.tables.held(extent.offset, extent.end)


def test_a_new_grant_of_the_same_place_takes_the_place_of_the_old(
    pod: Pod, writer: ArenaWriter, reader: ArenaReader
) -> None:
    old = put(writer, DATA)
    assert writer.grant(pod.grant(0))
    new = put(writer, DATA)
    assert (new.arena.offset, new.arena.generation) == (old.arena.offset, old.arena.generation)
    assert writer.leases == 1
    with pytest.raises(LeaseLost):
        reader.view(old, never())
    assert not writer.release(old.arena)
    assert bytes(reader.view(new, lambda slot: None).data) == DATA


# The ends of leases


def test_a_released_slot_cannot_be_viewed_even_when_another_tensor_lies_there(
    writer: ArenaWriter, reader: ArenaReader
) -> None:
    old = put(writer, DATA)
    assert writer.release(old.arena)
    with pytest.raises(LeaseLost):
        reader.view(old, never())
    new = put(writer, DATA)
    assert new.arena.offset == old.arena.offset
    with pytest.raises(LeaseLost):
        reader.view(old, never())
    assert not writer.release(old.arena)
    assert bytes(reader.view(new, lambda slot: None).data) == DATA


@pytest.mark.parametrize("name", ["epoch", "offset", "generation", "extent"])
def test_a_release_of_what_is_not_leased_changes_nothing(writer: ArenaWriter, name: str) -> None:
    slot = put(writer, DATA).arena
    setattr(slot, name, getattr(slot, name) + 1)
    assert not writer.release(slot)
    assert writer.leases == 1


def test_an_expired_slot_comes_back_when_it_has_settled_and_nobody_looks_at_it(
    writer: ArenaWriter, reader: ArenaReader, clock: ManualClock
) -> None:
    ref = put(writer, DATA, expires=5.0)
    view = reader.view(ref, lambda slot: None)
    put(writer, DATA, expires=50.0)
    clock.advance(5.0)
    with pytest.raises(LeaseLost, match="expired"):
        reader.view(ref, never())
    assert writer.reclaim(clock()) == 0
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 0, "somebody looks at it"
    clock.advance(1000.0)
    writer.reclaim(clock())
    assert bytes(view.data) == DATA
    del view
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 2
    assert writer.in_use == 0


def test_the_end_of_a_request_leaves_its_views_whole_and_other_requests_alone(
    writer: ArenaWriter, reader: ArenaReader, clock: ManualClock
) -> None:
    a, b = RequestKey("a", 1), RequestKey("a", 2)
    mine, late, other, nobodys = (put(writer, DATA, key) for key in (a, a, b, None))
    view = reader.view(mine, lambda slot: None)
    writer.release_request(a)
    writer.release_request(a)
    for ref in (mine, late):
        with pytest.raises(LeaseLost, match="no longer leased"):
            reader.view(ref, never())
    clock.advance(SETTLE / 2)
    assert writer.reclaim(clock()) == 0, "a view may be in the making"
    clock.advance(SETTLE / 2)
    assert writer.reclaim(clock()) == 1
    put(writer, bytes(200))
    assert bytes(view.data) == DATA
    for ref in (other, nobodys):
        assert bytes(reader.view(ref, lambda slot: None).data) == DATA
    del view
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 1
    assert writer.leases == 3


def test_a_release_after_the_end_of_its_request_frees_at_once(writer: ArenaWriter, clock: ManualClock) -> None:
    slot = put(writer, DATA).arena
    writer.release_request(KEY)
    assert writer.release(slot)
    assert writer.in_use == 0
    new = put(writer, DATA)
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 0
    assert writer.release(new.arena)


def test_a_process_looks_at_its_own_slots_like_any_other(pod: Pod, clock: ManualClock) -> None:
    writer = pod.writer()
    table = pod.table("both")
    view = pod.reader(table).view(put(writer, DATA), lambda slot: None)
    writer.release_request(KEY)
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 0
    del view
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 1


def test_what_was_held_by_a_process_that_died_comes_back(pod: Pod, writer: ArenaWriter, clock: ManualClock) -> None:
    table = pod.table("dying")
    view = pod.reader(table).view(put(writer, DATA), lambda slot: None)
    writer.release_request(KEY)
    table.disown()  # leaves it as a killed process does
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 1
    del view


def test_ten_thousand_aborted_leases_leave_nothing(pod: Pod, writer: ArenaWriter, clock: ManualClock) -> None:
    reader = pod.reader()
    for n in range(10_000):
        key = RequestKey(str(n))
        ref = put(writer, b"x", key)
        view = reader.view(ref, lambda slot: None) if n % 3 else None
        writer.release_request(key)
        del view
        if n % 100 == 99:
            clock.advance(SETTLE)
            writer.reclaim(clock())
    assert (writer.leases, writer.in_use) == (0, 0)
    assert pod.tables.look().slots == []
    assert writer.put(octets(bytes(EXTENT - SlotHead.SIZE)), KEY, 1.0) is not None


def test_a_reference_whose_holder_is_lost_comes_back_when_nobody_looks_at_it(
    writer: ArenaWriter, reader: ArenaReader, clock: ManualClock
) -> None:
    ref = put(writer, DATA)
    view = reader.view(ref, lambda slot: None)
    assert writer.lose(ref.arena)
    assert not writer.lose(ref.arena)
    with pytest.raises(LeaseLost):
        reader.view(ref, never())
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 0
    assert bytes(view.data) == DATA
    del view
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 1


def test_one_lost_holder_of_several_takes_nothing_from_the_others(
    writer: ArenaWriter, reader: ArenaReader, clock: ManualClock
) -> None:
    place = writer.allocate(len(DATA), KEY, 50.0)
    assert place is not None
    place[:] = DATA
    tensor = octets(place)
    slots = [writer.slot_of(tensor), writer.slot_of(tensor)]
    assert slots[0] is not None
    ref = ref_to(tensor, slots[0])
    del place, tensor
    assert writer.lose(slots[0])
    assert bytes(reader.view(ref, lambda slot: None).data) == DATA
    assert writer.release(slots[0])
    assert writer.leases == 1, "the lost one may look at it"
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 1


# A full table of holds


def _copies() -> float:
    return REGISTRY.get_sample_value("omni_tensor_copies_total", {"reason": "holds_full"}) or 0.0


def test_with_a_full_table_tensors_are_copied_out_and_counted(pod: Pod, writer: ArenaWriter) -> None:
    table = pod.table("busy")
    entries = [table.hold_extent(0) for _ in range(ENTRIES)]
    reader = pod.reader(table)
    before = _copies()
    released: list[ArenaSlot] = []
    ref = put(writer, DATA)
    view = reader.view(ref, released.append)
    assert released == [ref.arena]
    assert writer.release(released[0])
    put(writer, bytes(200))
    assert (bytes(view.data), view.data.readonly) == (DATA, True)
    assert _copies() == before + 1
    with pytest.raises(LeaseLost):
        reader.view(ref, never())
    assert entries[0] is not None
    table.drop(entries[0])
    reader.view(put(writer, DATA), lambda slot: None)
    assert _copies() == before + 1


def test_a_slot_that_is_released_while_it_is_copied_out_is_refused(pod: Pod, writer: ArenaWriter) -> None:
    ref = put(writer, DATA, checked=False)

    def clock() -> float:  # asked during the first check, whether the lease has expired
        if writer.release(ref.arena):
            put(writer, bytes(200))
        return 0.0

    table = pod.table("busy")
    assert all(table.hold_extent(0) for _ in range(ENTRIES))
    with pytest.raises(LeaseLost):
        ArenaReader(pod.arena, table, clock).view(ref, never())


# References that do not hold


def _with(**changes: int) -> Callable[[DataRef], None]:
    def change(ref: DataRef) -> None:
        for name, value in changes.items():
            setattr(ref.arena, name, value)

    return change


def _shift(name: str, by: int) -> Callable[[DataRef], None]:
    def change(ref: DataRef) -> None:
        setattr(ref.arena, name, getattr(ref.arena, name) + by)

    return change


def _resize(by: int) -> Callable[[DataRef], None]:
    def change(ref: DataRef) -> None:
        ref.length += by
        ref.shape[0] += by

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_shift("generation", 1), id="a generation that is yet to come"),
        pytest.param(_with(generation=0), id="no generation"),
        pytest.param(_shift("epoch", 1), id="another epoch"),
        pytest.param(_with(epoch=0), id="no epoch"),
        pytest.param(_with(epoch=0, extent=3), id="no epoch, of an extent that nobody has"),
        pytest.param(_shift("extent", 1), id="another extent"),
        pytest.param(_with(extent=MAX_EXTENTS), id="an extent beyond the table"),
        pytest.param(_with(extent=(1 << 32) - 1), id="an extent far beyond the table"),
        pytest.param(_shift("offset", 64), id="a place that is no slot"),
        pytest.param(_shift("offset", 1), id="a place between two lines"),
        pytest.param(_with(offset=0), id="the head of the arena"),
        pytest.param(_with(offset=64), id="the table"),
        pytest.param(_with(offset=EXTENTS), id="a slot whose head would be in the table"),
        pytest.param(_with(offset=EXTENTS + 4 * EXTENT), id="the end of the arena"),
        pytest.param(_with(offset=1 << 40), id="far beyond the arena"),
        pytest.param(_with(offset=(1 << 64) - 64), id="the end of all numbers"),
        pytest.param(_resize(1), id="one byte more"),
        pytest.param(_resize(-1), id="one byte less"),
        pytest.param(_resize(1 << 30), id="much more than the arena"),
    ],
)
@pytest.mark.parametrize("full", [False, True], ids=["held", "copied"])
def test_a_reference_that_does_not_hold_is_refused(
    pod: Pod, writer: ArenaWriter, change: Callable[[DataRef], None], full: bool
) -> None:
    table = pod.table("consumer")
    before = [table.hold_extent(0) for _ in range(ENTRIES if full else 0)]
    ref = put(writer, DATA, checked=False)
    change(ref)
    with pytest.raises(LeaseLost):
        pod.reader(table).view(ref, never())
    assert table.held == len(before)


def test_other_bytes_than_were_sent_are_refused(writer: ArenaWriter, reader: ArenaReader) -> None:
    ref = put(writer, DATA)
    ref.checksum += 1
    with pytest.raises(LeaseLost, match="not those that were sent"):
        reader.view(ref, never())


def test_a_reference_that_contradicts_itself_is_an_internal_error(writer: ArenaWriter, reader: ArenaReader) -> None:
    ref = put(writer, DATA)
    ref.shape.append(3)
    with pytest.raises(Internal):
        reader.view(ref, never())


@pytest.mark.parametrize(
    ("shift", "epoch"),
    [
        pytest.param(64, 1, id="of another grant"),
        pytest.param(64 + 8, None, id="between two lines"),
    ],
)
def test_bytes_that_look_like_a_slot_are_none(
    writer: ArenaWriter, reader: ArenaReader, shift: int, epoch: int | None
) -> None:
    head = SlotHead(epoch or writer.extents[0].epoch, 1, 64, 1e9)
    forged = put(writer, bytes(shift - 64) + head.pack() + bytes(64), checked=False)
    forged.length, forged.shape[0] = 64, 64
    forged.arena.offset += shift
    with pytest.raises(LeaseLost):
        reader.view(forged, never())


def test_there_is_no_slot_where_no_grant_stands(pod: Pod, writer: ArenaWriter, reader: ArenaReader) -> None:
    ref = put(writer, DATA, checked=False)
    ref.arena.extent, ref.arena.epoch = 3, 0
    pod.arena.view[ref.arena.offset - SlotHead.SIZE : ref.arena.offset] = SlotHead(0, 1, len(DATA), 1e9).pack()
    with pytest.raises(LeaseLost):
        reader.view(ref, never())


@pytest.mark.parametrize("size", [0, 10, 64, 4096, EXTENTS + 4 * EXTENT - 1])
def test_an_arena_that_was_cut_short_is_refused(
    tmp_path: Path, writer: ArenaWriter, reader: ArenaReader, clock: ManualClock, size: int
) -> None:
    ref = put(writer, DATA)
    reader.view(ref, lambda slot: None)
    os.truncate(tmp_path / "arena", size)
    clock.advance(LOOK)
    with pytest.raises(LeaseLost):
        reader.view(ref, never())


def test_every_flipped_bit_is_either_refused_or_harmless(
    tmp_path: Path, writer: ArenaWriter, reader: ArenaReader, clock: ManualClock
) -> None:
    clock.advance(1.0)
    ref = put(writer, DATA, expires=100.0)
    word = ArenaHead.SIZE + 8 * ref.arena.extent
    places = [*range(word, word + 8), *range(EXTENTS, EXTENTS + slot_size(len(DATA)))]
    released: list[ArenaSlot] = []
    refused = 0
    with (tmp_path / "arena").open("r+b", buffering=0) as file:
        for place in places:
            (whole,) = os.pread(file.fileno(), 1, place)
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([whole ^ (1 << bit)]), place)
                try:
                    assert bytes(reader.view(ref, released.append).data) == DATA
                except LeaseLost:
                    refused += 1
            os.pwrite(file.fileno(), bytes([whole]), place)
    assert refused >= 8 * (8 + 4 * 8 + len(DATA)), "flips in table, head or data were let through"
