"""Writer and reader of one arena: leases, their ends, and references that do not hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.common.arena_refs import never, noise, octets, put

from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef
from omni_common.arena import ArenaReader, ArenaWriter
from omni_common.arena.layout import SegmentHead, SlotHead, slot_size
from omni_common.arena.writer import GRACE
from omni_common.errors import Internal, LeaseLost
from omni_common.testing.clock import ManualClock

DATA = noise(200)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def writer(tmp_path: Path, clock: ManualClock) -> Iterator[ArenaWriter]:
    with ArenaWriter(tmp_path, "thinker-0", 64 * 1024, clock) as made:
        yield made


@pytest.fixture
def reader(tmp_path: Path, clock: ManualClock) -> ArenaReader:
    return ArenaReader(tmp_path, clock)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 4000])
def test_a_view_holds_what_was_put(writer: ArenaWriter, reader: ArenaReader, size: int) -> None:
    data = noise(size)
    released: list[ArenaSlot] = []
    view = reader.view(put(writer, data), released.append)
    assert bytes(view.data) == data
    assert view.data.readonly
    assert released == []


def test_slots_lie_on_cache_lines(writer: ArenaWriter) -> None:
    assert [put(writer, bytes(size)).arena.offset % 64 for size in (1, 100, 64, 0, 7)] == [0] * 5


def test_a_full_arena_takes_nothing_until_a_slot_comes_back(writer: ArenaWriter) -> None:
    largest = octets(bytes(writer.capacity - SlotHead.SIZE))
    slot = writer.put(largest, "r", 1.0)
    assert slot is not None
    assert writer.put(octets(b""), "r", 1.0) is None
    writer.release(slot)
    assert writer.in_use == 0
    assert writer.put(largest, "r", 1.0) is not None


def test_a_released_slot_cannot_be_viewed_even_when_another_tensor_lies_there(
    writer: ArenaWriter, reader: ArenaReader
) -> None:
    old = put(writer, DATA)
    writer.release(old.arena)
    with pytest.raises(LeaseLost):
        reader.view(old, never())
    new = put(writer, DATA)
    assert new.arena.offset == old.arena.offset
    with pytest.raises(LeaseLost):
        reader.view(old, never())
    writer.release(old.arena)
    released: list[ArenaSlot] = []
    assert bytes(reader.view(new, released.append).data) == DATA


def test_no_view_is_made_after_expiry_and_the_bytes_come_back_only_after_the_grace(
    writer: ArenaWriter, reader: ArenaReader, clock: ManualClock
) -> None:
    ref = put(writer, DATA, expires=5.0)
    clock.advance(5.0)
    with pytest.raises(LeaseLost, match="expired"):
        reader.view(ref, never())
    clock.advance(GRACE - 1)
    assert writer.reclaim(clock()) == 0
    clock.advance(1)
    assert writer.reclaim(clock()) == 1
    assert writer.in_use == 0


def test_the_end_of_a_request_leaves_its_views_whole_and_other_requests_alone(
    writer: ArenaWriter, reader: ArenaReader, clock: ManualClock
) -> None:
    mine, late, other = put(writer, DATA, "a"), put(writer, DATA, "a"), put(writer, DATA, "b")
    released: list[ArenaSlot] = []
    view = reader.view(mine, released.append)
    writer.release_request("a")
    with pytest.raises(LeaseLost, match="expired"):
        reader.view(late, never())
    put(writer, bytes(200), "c")
    assert bytes(view.data) == DATA
    assert bytes(reader.view(other, released.append).data) == DATA
    clock.advance(GRACE)
    assert writer.reclaim(clock()) == 2
    assert writer.leases == 2


def _with(**changes: int | str) -> Callable[[DataRef], None]:
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
        pytest.param(_shift("offset", 64), id="a place that is no slot"),
        pytest.param(_shift("offset", 1), id="a place between two lines"),
        pytest.param(_with(offset=0), id="the head of the segment"),
        pytest.param(_with(offset=64), id="a slot whose head would be the segment's"),
        pytest.param(_with(offset=1 << 40), id="far beyond the segment"),
        pytest.param(_with(offset=(1 << 64) - 64), id="the end of all numbers"),
        pytest.param(_resize(1), id="one byte more"),
        pytest.param(_resize(-1), id="one byte less"),
        pytest.param(_resize(1 << 30), id="much more than the segment"),
    ],
)
@pytest.mark.parametrize("mapped", [False, True], ids=["first look", "mapped before"])
def test_a_reference_that_does_not_hold_is_refused(
    writer: ArenaWriter, reader: ArenaReader, change: Callable[[DataRef], None], mapped: bool
) -> None:
    ref = put(writer, DATA, checked=False)
    if mapped:
        reader.view(ref, lambda slot: None)
    if ref.arena.epoch == (1 << 64) - 1:
        pytest.skip("the epoch drawn has no successor")
    change(ref)
    with pytest.raises(LeaseLost):
        reader.view(ref, never())


def test_a_reference_that_contradicts_itself_is_an_internal_error(writer: ArenaWriter, reader: ArenaReader) -> None:
    ref = put(writer, DATA)
    ref.shape.append(3)
    with pytest.raises(Internal):
        reader.view(ref, never())


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/etc/passwd", "../{}", "./{}", "x/../{}", "{}/", "{}\0", "{}\n", "\0", "a" * 5000]
)
def test_a_segment_name_is_a_file_of_the_folder_and_nothing_else(
    writer: ArenaWriter, reader: ArenaReader, name: str
) -> None:
    ref = put(writer, DATA)
    ref.arena.segment = name.format(ref.arena.segment)
    with pytest.raises(LeaseLost):
        reader.view(ref, never())
    assert reader.segments == 0


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, Path.touch, lambda path: Path(path).symlink_to("/dev/zero")])
def test_what_is_no_segment_file_is_refused(tmp_path: Path, reader: ArenaReader, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd-00000000000000ff.arena")
    ref = DataRef(arena=ArenaSlot(segment="odd-00000000000000ff.arena", epoch=255, offset=128, generation=1))
    with pytest.raises(LeaseLost):
        reader.view(ref, never())


def test_a_link_to_a_segment_outside_the_folder_is_refused(tmp_path: Path, writer: ArenaWriter) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / writer.segment).symlink_to(tmp_path / writer.segment)
    ref = put(writer, DATA)
    with pytest.raises(LeaseLost):
        ArenaReader(inside, ManualClock()).view(ref, never())


@pytest.mark.parametrize("mapped", [False, True], ids=["first look", "mapped before"])
@pytest.mark.parametrize("size", [0, 10, 64, 4096])
def test_a_segment_that_was_cut_short_is_refused(
    tmp_path: Path, writer: ArenaWriter, reader: ArenaReader, size: int, mapped: bool
) -> None:
    ref = put(writer, DATA)
    if mapped:
        reader.view(ref, lambda slot: None)
    os.truncate(tmp_path / writer.segment, size)
    with pytest.raises(LeaseLost):
        reader.view(ref, never())


def test_every_flipped_bit_is_either_refused_or_harmless(tmp_path: Path, writer: ArenaWriter) -> None:
    clock = ManualClock(1.0)
    ref = put(writer, DATA, expires=100.0)
    path = tmp_path / writer.segment
    end = SegmentHead.SIZE + slot_size(len(DATA))
    released: list[ArenaSlot] = []
    refused = 0
    with path.open("r+b", buffering=0) as file:
        whole = file.read(end)
        for bit in range(8 * end):
            file.seek(bit // 8)
            file.write(bytes([whole[bit // 8] ^ (1 << bit % 8)]))
            try:
                assert bytes(ArenaReader(tmp_path, clock).view(ref, released.append).data) == DATA
            except LeaseLost:
                refused += 1
            file.seek(bit // 8)
            file.write(whole[bit // 8 : bit // 8 + 1])
    assert refused >= 8 * (3 * 8 + 4 * 8 + len(DATA)), "flips in heads and data were let through"


def test_a_reader_forgets_the_segments_of_producers_that_are_gone(
    tmp_path: Path, reader: ArenaReader, writer: ArenaWriter
) -> None:
    released: list[ArenaSlot] = []
    with ArenaWriter(tmp_path, "talker-0", 4096) as gone:
        view = reader.view(put(gone, DATA), released.append)
    assert reader.segments == 1
    reader.view(put(writer, DATA), lambda slot: None)
    assert reader.segments == 1
    assert bytes(view.data) == DATA


def test_a_segment_too_small_for_a_tensor_or_with_a_name_that_leaves_the_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no room"):
        ArenaWriter(tmp_path, "a", 64)
    for name in ("../a", "a/b", "", ".a", "a b", "ä"):
        with pytest.raises(ValueError, match="cannot name"):
            ArenaWriter(tmp_path, name, 4096)
    assert list(tmp_path.iterdir()) == []


def test_a_segment_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        ArenaWriter(tmp_path, "a", 1 << 50)
    assert list(tmp_path.iterdir()) == []
