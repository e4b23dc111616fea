"""Slots with several users: room for a whole payload at once, and users of whom nothing more is heard."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.common.arena_refs import EXTENT, FOREVER, Pod, never, noise, octets, ref_to

from omni.common.v1.tensor_pb2 import ArenaSlot
from omni_common.arena import ArenaWriter
from omni_common.arena.holds import SETTLE
from omni_common.arena.layout import SlotHead
from omni_common.errors import LeaseLost
from omni_common.testing.clock import ManualClock

DATA = noise(300)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def pod(tmp_path: Path, clock: ManualClock) -> Pod:
    return Pod(tmp_path, clock)


@pytest.fixture
def writer(pod: Pod) -> ArenaWriter:
    return pod.writer()


def test_what_is_reserved_is_filled_later_and_then_read(pod: Pod, writer: ArenaWriter) -> None:
    reserved = writer.reserve(len(DATA), None, FOREVER)
    assert reserved is not None
    slot, data = reserved
    assert writer.leases == 1
    data[:] = DATA
    released: list[ArenaSlot] = []
    assert bytes(pod.reader().view(ref_to(octets(DATA), slot), released.append).data) == DATA
    assert writer.release(slot)
    assert writer.leases == 0


def test_nothing_is_reserved_where_there_is_no_room(writer: ArenaWriter) -> None:
    assert writer.reserve(EXTENT - SlotHead.SIZE, None, FOREVER) is not None
    assert writer.reserve(0, None, FOREVER) is None


def test_a_lost_use_lets_nobody_look_any_more_and_its_bytes_come_back_by_themselves(
    pod: Pod, writer: ArenaWriter, clock: ManualClock
) -> None:
    slot = writer.put(octets(DATA), None, FOREVER)
    assert slot is not None
    assert writer.lose(slot)
    with pytest.raises(LeaseLost):
        pod.reader().view(ref_to(octets(DATA), slot), never())
    assert writer.reclaim(clock()) == 0
    assert (writer.leases, writer.release(slot), writer.lose(slot)) == (1, False, False)
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 1
    assert writer.leases == 0


def test_a_view_of_a_lost_use_keeps_its_bytes(pod: Pod, writer: ArenaWriter, clock: ManualClock) -> None:
    slot = writer.put(octets(DATA), None, FOREVER)
    assert slot is not None
    view = pod.reader().view(ref_to(octets(DATA), slot), lambda _: None)
    assert writer.lose(slot)
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 0
    assert bytes(view.data) == DATA
    del view
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 1


def test_what_one_user_loses_the_others_keep(pod: Pod, writer: ArenaWriter, clock: ManualClock) -> None:
    data = writer.allocate(len(DATA), None, FOREVER)
    assert data is not None
    data[:] = DATA
    first, second = writer.slot_of(octets(data)), writer.slot_of(octets(data))
    assert first is not None
    assert second is not None
    assert writer.lose(first)
    released: list[ArenaSlot] = []
    assert bytes(pod.reader().view(ref_to(octets(DATA), second), released.append).data) == DATA
    assert writer.release(second)
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 0, "its maker may write to it still"
    del data
    assert writer.reclaim(clock()) == 0, "it is only now that it is wiped"
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 1


def test_a_lost_use_in_an_extent_that_was_taken_away_holds_nothing(pod: Pod) -> None:
    extent = pod.grant()
    writer = pod.writer(extent)
    slot = writer.put(octets(DATA), None, FOREVER)
    kept = writer.put(octets(DATA), None, FOREVER)
    assert slot is not None
    assert kept is not None
    assert writer.lose(slot)
    writer.revoke(extent.index)
    assert (writer.leases, writer.lose(kept)) == (0, False)
    assert not pod.tables.held(extent.offset, extent.end)
