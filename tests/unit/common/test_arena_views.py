"""How long a view lives, who may write to it, and tensors that are made in place."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.common.arena_refs import EXTENT, FOREVER, KEY, Pod, never, noise, octets, put, ref_to

from omni.common.v1.tensor_pb2 import ArenaSlot
from omni_common.arena import ArenaReader, ArenaWriter
from omni_common.arena.holds import SETTLE
from omni_common.arena.layout import SlotHead, slot_size
from omni_common.errors import LeaseLost
from omni_common.tensor import DType, Tensor
from omni_common.testing.clock import ManualClock

NUMBERS = np.arange(1000, dtype=np.float32)
TENSOR = Tensor(DType.FLOAT32, (1000,), NUMBERS.data.cast("B"))

# torch says so of every read-only buffer; what follows from it is tested with a process that dies of it.
pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")


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


def _lend(writer: ArenaWriter, reader: ArenaReader, released: Callable[[ArenaSlot], None]) -> Tensor:
    slot = writer.put(TENSOR, KEY, FOREVER)
    assert slot is not None
    return reader.view(ref_to(TENSOR, slot), released)


def _numpy(tensor: Tensor) -> Any:
    return np.frombuffer(tensor.data, dtype=np.float32)


def _torch(tensor: Tensor) -> Any:
    return torch.frombuffer(tensor.data, dtype=torch.float32)


@pytest.mark.parametrize("wrap", [_numpy, _torch], ids=["numpy", "torch"])
def test_the_slot_is_released_once_and_only_when_the_last_derived_array_is_gone(
    pod: Pod, writer: ArenaWriter, reader: ArenaReader, wrap: Callable[[Tensor], Any]
) -> None:
    released: list[ArenaSlot] = []
    tensor = _lend(writer, reader, released.append)
    whole = wrap(tensor)
    del tensor
    part = whole[10:20].reshape(2, 5)[1]
    del whole
    gc.collect()
    assert released == []
    assert part.tolist() == [15, 16, 17, 18, 19]
    assert pod.tables.look().slots
    del part
    gc.collect()
    assert [slot.generation for slot in released] == [1]
    assert pod.tables.look().slots == []
    assert writer.release(released[0])
    assert writer.in_use == 0


def test_each_view_of_a_slot_is_released_by_itself(pod: Pod, writer: ArenaWriter, reader: ArenaReader) -> None:
    released: list[ArenaSlot] = []
    ref = put(writer, b"abc")
    first, second = reader.view(ref, released.append), reader.view(ref, released.append)
    del first
    assert len(released) == 1
    assert pod.tables.look().slots
    assert bytes(second.data) == b"abc"
    del second
    assert len(released) == 2
    assert pod.tables.look().slots == []


def test_a_view_outlives_its_reader_its_writer_and_the_file(pod: Pod, writer: ArenaWriter, reader: ArenaReader) -> None:
    released: list[ArenaSlot] = []
    array = _numpy(_lend(writer, reader, released.append))
    reader.close()
    del reader, writer
    (pod.folder / "arena").unlink()
    pod.arena.close()
    gc.collect()
    assert (array == NUMBERS).all()
    assert pod.tables.look().slots
    del array
    assert len(released) == 1


def test_the_table_of_holds_outlives_its_reader_until_the_last_view_is_gone(pod: Pod) -> None:
    reader, writer = pod.reader(), pod.writer()
    view = _lend(writer, reader, lambda slot: None)
    reader.close()
    del reader
    assert pod.tables.look().slots
    del view
    gc.collect()
    assert [path.name.partition("-")[0] for path in (pod.folder / "holds").iterdir()] == ["producer"]


def test_the_release_runs_in_the_thread_that_drops_the_last_view(writer: ArenaWriter, reader: ArenaReader) -> None:
    threads: list[int] = []
    held = [_torch(_lend(writer, reader, lambda slot: threads.append(threading.get_ident())))]
    thread = threading.Thread(target=held.clear)
    thread.start()
    ident = thread.ident
    thread.join()
    assert threads == [ident]


def test_views_that_the_garbage_collector_finds_are_released_too(
    pod: Pod, writer: ArenaWriter, reader: ArenaReader
) -> None:
    released: list[ArenaSlot] = []
    circle: list[object] = [_lend(writer, reader, released.append)]
    circle.append(circle)
    del circle
    gc.collect()
    assert len(released) == 1
    assert pod.tables.look().slots == []


def test_numpy_cannot_write_to_a_view(writer: ArenaWriter, reader: ArenaReader) -> None:
    array = _numpy(_lend(writer, reader, lambda slot: None))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def test_threads_view_at_the_same_time(pod: Pod, writer: ArenaWriter, reader: ArenaReader) -> None:
    refs = [(put(writer, noise(300, n)), noise(300, n)) for n in range(50)]
    wrong: list[int] = []

    def work() -> None:
        for _ in range(5):
            views = [(reader.view(ref, lambda slot: None), data) for ref, data in refs]
            wrong.extend(bytes(view.data) != data for view, data in views)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(wrong), any(wrong)) == (1000, False)
    assert pod.tables.look().slots == []


# Made in place


def _place(writer: ArenaWriter, data: bytes) -> memoryview:
    place = writer.allocate(len(data), KEY, FOREVER)
    assert place is not None
    place[:] = data
    return place


def test_a_tensor_made_in_place_is_sent_without_a_copy(writer: ArenaWriter, reader: ArenaReader) -> None:
    place = writer.allocate(NUMBERS.nbytes, KEY, FOREVER)
    assert place is not None
    assert not place.readonly
    made = torch.frombuffer(place, dtype=torch.float32)
    made.copy_(torch.from_numpy(NUMBERS))
    tensor = Tensor(DType.FLOAT32, (10, 100), made.numpy().data.cast("B").toreadonly())
    slot = writer.slot_of(tensor)
    assert slot is not None
    view = reader.view(ref_to(tensor, slot), lambda slot: None)
    assert view.shape == (10, 100)
    assert _numpy(view).tolist() == NUMBERS.tolist()
    assert writer.in_use == slot_size(NUMBERS.nbytes), "one slot, one copy of the bytes"


@pytest.mark.parametrize(
    "elsewhere",
    [
        pytest.param(lambda place: bytes(place), id="a copy"),
        pytest.param(lambda place: place[:-1], id="less of it"),
        pytest.param(lambda place: place[1:], id="another beginning"),
        pytest.param(lambda place: place[:0], id="none of it"),
    ],
)
def test_a_tensor_that_is_not_the_whole_of_a_slot_is_in_none(
    writer: ArenaWriter, elsewhere: Callable[[memoryview], bytes | memoryview]
) -> None:
    place = _place(writer, b"abc")
    assert writer.slot_of(octets(elsewhere(place))) is None
    assert writer.slot_of(octets(place)) is not None


def test_what_came_from_another_is_in_no_slot_of_this_writer(
    pod: Pod, writer: ArenaWriter, reader: ArenaReader
) -> None:
    other = pod.writer(pod.grant(1))
    place = _place(other, b"abc")
    slot = other.slot_of(octets(place))
    assert slot is not None
    assert writer.slot_of(octets(place)) is None
    assert other.slot_of(reader.view(ref_to(octets(place), slot), lambda slot: None)) is None
    assert writer.slot_of(octets(b"")) is None


def test_a_place_that_is_never_sent_comes_back_when_nobody_has_it(writer: ArenaWriter) -> None:
    place = _place(writer, b"abc")
    array = np.frombuffer(place, dtype=np.uint8)[1:]
    del place
    gc.collect()
    assert writer.leases == 1
    del array
    gc.collect()
    assert (writer.leases, writer.in_use) == (0, 0)
    assert writer.put(octets(bytes(EXTENT - SlotHead.SIZE)), KEY, 1.0) is not None


def test_a_place_whose_producer_let_go_comes_back_with_its_last_release(writer: ArenaWriter) -> None:
    place = _place(writer, b"abc")
    slot = writer.slot_of(octets(place))
    assert slot is not None
    del place
    gc.collect()
    assert writer.release(slot)
    assert not writer.release(slot)
    assert (writer.leases, writer.in_use) == (0, 0)


def test_nobody_can_view_a_place_before_it_is_sent(writer: ArenaWriter, reader: ArenaReader) -> None:
    early = put(writer, b"abc")
    place = _place(writer, b"xyz")
    guess = ref_to(octets(place), early.arena, checked=False)
    guess.arena.generation += 1
    guess.arena.offset += slot_size(3)
    with pytest.raises(LeaseLost):
        reader.view(guess, never())
    slot = writer.slot_of(octets(place))
    assert slot is not None
    assert (slot.offset, slot.generation) == (guess.arena.offset, guess.arena.generation)
    assert bytes(reader.view(guess, lambda slot: None).data) == b"xyz"


def test_the_slot_stays_until_every_reference_is_released_and_the_producer_has_let_go(writer: ArenaWriter) -> None:
    place = _place(writer, b"abc")
    slots = [writer.slot_of(octets(place)) for _ in range(2)]
    assert slots[0] is not None
    assert slots[0] == slots[1]
    assert writer.release(slots[0])
    assert writer.release(slots[0])
    assert not writer.release(slots[0])
    assert writer.leases == 1, "the producer has it still, and may send it again"
    again = writer.slot_of(octets(place))
    assert again is not None
    del place
    assert writer.leases == 1
    assert writer.release(again)
    assert writer.leases == 0


def test_the_end_of_the_request_ends_a_place_once_its_producer_lets_go(
    writer: ArenaWriter, reader: ArenaReader, clock: ManualClock
) -> None:
    place = _place(writer, b"abc")
    slot = writer.slot_of(octets(place))
    assert slot is not None
    writer.release_request(KEY)
    assert writer.slot_of(octets(place)) is None
    with pytest.raises(LeaseLost):
        reader.view(ref_to(octets(place), slot), never())
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 0
    place[:] = b"xyz"
    del place
    clock.advance(SETTLE)
    assert writer.reclaim(clock()) == 1
    assert writer.in_use == 0


def test_a_place_of_a_revoked_extent_keeps_the_extent_from_others(pod: Pod, writer: ArenaWriter) -> None:
    place = _place(writer, b"abc")
    (extent,) = writer.extents
    pod.revoke(extent)
    writer.revoke(extent.index)
    assert writer.slot_of(octets(place)) is None
    assert writer.leases == 1
    assert pod.tables.held(extent.offset, extent.end)
    del place
    assert writer.leases == 0
    assert not pod.tables.held(extent.offset, extent.end)


def test_a_place_outlives_its_writer_and_keeps_its_extent(pod: Pod) -> None:
    table = pod.table("two writers, one after the other")
    writer = ArenaWriter(pod.arena, table, pod.tables)
    extent = pod.grant()
    writer.grant(extent)
    place = _place(writer, b"abc")
    writer.revoke(extent.index)
    del writer
    gc.collect()
    assert pod.tables.held(extent.offset, extent.end)
    place[:] = b"xyz"
    del place
    gc.collect()
    assert not pod.tables.held(extent.offset, extent.end)
