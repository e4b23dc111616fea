"""The arena's file: made, taken up by the relay's next life, opened by stages, and anything else refused."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from omni.relay.v1 import pod_pb2
from omni_common.arena import Arena, Extent
from omni_common.arena.extents import parse_extent, render_extent
from omni_common.arena.layout import EXTENTS, MAX_EXTENTS, ArenaHead
from omni_common.errors import LeaseLost

SIZE = EXTENTS + 64 * 1024


def test_head_and_table_fill_whole_pages() -> None:
    assert EXTENTS == 8192


def test_all_who_open_an_arena_share_it(tmp_path: Path) -> None:
    made = Arena.create(tmp_path, SIZE)
    opened = Arena.open(tmp_path, made.epoch)
    made.view[EXTENTS : EXTENTS + 3] = b"abc"
    made.set_extent_epoch(MAX_EXTENTS - 1, (1 << 64) - 1)
    assert bytes(opened.view[EXTENTS : EXTENTS + 3]) == b"abc"
    assert bytes(opened.readonly.view[EXTENTS : EXTENTS + 3]) == b"abc"
    assert [opened.extent_epoch(index) for index in (0, MAX_EXTENTS - 1)] == [0, (1 << 64) - 1]
    assert (opened.epoch, opened.size) == (made.epoch, SIZE)
    assert opened.readonly.view.readonly


def test_all_memory_is_claimed_when_it_is_made(tmp_path: Path) -> None:
    Arena.create(tmp_path, SIZE)
    assert (tmp_path / "arena").stat().st_blocks * 512 >= SIZE


def test_a_new_arena_takes_the_place_of_another_which_lives_on_with_its_users(tmp_path: Path) -> None:
    old = Arena.create(tmp_path, SIZE)
    (tmp_path / "arena.draft").touch()  # of a relay that died while it made one
    new = Arena.create(tmp_path, SIZE)
    old.view[EXTENTS] = 7
    assert old.epoch != new.epoch
    assert new.view[EXTENTS] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["arena"]
    with pytest.raises(LeaseLost):
        Arena.open(tmp_path, old.epoch)


def test_a_relay_takes_up_the_arena_of_its_former_life(tmp_path: Path) -> None:
    former = Arena.create(tmp_path, SIZE + 1)
    former.set_extent_epoch(5, 77)
    adopted = Arena.adopt(tmp_path, SIZE + 1)
    assert adopted is not None
    assert (adopted.epoch, adopted.size, adopted.extent_epoch(5)) == (former.epoch, SIZE, 77)


@pytest.mark.parametrize("size", [SIZE - 64, SIZE + 64])
def test_an_arena_of_another_size_is_not_taken_up(tmp_path: Path, size: int) -> None:
    Arena.create(tmp_path, SIZE)
    assert Arena.adopt(tmp_path, size) is None


def _write_head(head: ArenaHead) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(head.pack() + bytes(SIZE - ArenaHead.SIZE))

    return make


def _cut(path: Path) -> None:
    Arena.create(path.parent, SIZE)
    os.truncate(path, SIZE - 64)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: None, id="nothing"),
        pytest.param(Path.touch, id="an empty file"),
        pytest.param(os.mkfifo, id="a pipe"),
        pytest.param(Path.mkdir, id="a folder"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), id="a link"),
        pytest.param(lambda path: path.write_bytes(bytes(SIZE)), id="no head"),
        pytest.param(_write_head(ArenaHead(0, SIZE)), id="no epoch"),
        pytest.param(_write_head(ArenaHead(7, SIZE + 64)), id="a head that claims more"),
        pytest.param(_cut, id="an arena cut short"),
    ],
)
def test_what_is_no_arena_is_neither_taken_up_nor_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "arena")
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    assert Arena.adopt(tmp_path, SIZE) is None
    with pytest.raises((LeaseLost, OSError)):
        Arena.open(tmp_path, 7)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_an_arena_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        Arena.create(tmp_path, 1 << 50)
    with pytest.raises(ValueError, match="no room"):
        Arena.create(tmp_path, EXTENTS)
    assert list(tmp_path.iterdir()) == []


def test_a_closed_arena_has_no_descriptor_once_its_views_are_gone(tmp_path: Path) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    arena = Arena.create(tmp_path, SIZE)
    ended: list[str] = []
    window = arena.readonly.window()
    window.then(ended.append, "view")
    view = window.part(EXTENTS, 10)
    del window
    arena.close()
    arena.close()
    del arena
    assert bytes(view) == bytes(10)
    del view
    assert ended == ["view"]
    assert len(os.listdir("/proc/self/fd")) <= before


def test_an_extent_travels() -> None:
    extent = Extent(MAX_EXTENTS - 1, (1 << 64) - 1, EXTENTS + 64, 1 << 40)
    assert parse_extent(pod_pb2.Extent.FromString(render_extent(extent).SerializeToString())) == extent
    assert extent.end == EXTENTS + 64 + (1 << 40)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(pod_pb2.Extent(), id="nothing"),
        pytest.param(pod_pb2.Extent(index=MAX_EXTENTS, epoch=1, offset=EXTENTS, size=64), id="no place in the table"),
        pytest.param(pod_pb2.Extent(index=1, offset=EXTENTS, size=64), id="no epoch"),
        pytest.param(pod_pb2.Extent(index=1, epoch=1, offset=EXTENTS - 64, size=64), id="in the table"),
        pytest.param(pod_pb2.Extent(index=1, epoch=1, offset=EXTENTS + 8, size=64), id="between two lines"),
        pytest.param(pod_pb2.Extent(index=1, epoch=1, offset=EXTENTS, size=63), id="part of a line"),
        pytest.param(pod_pb2.Extent(index=1, epoch=1, offset=EXTENTS), id="no bytes"),
    ],
)
def test_an_extent_that_no_arena_has_is_refused(message: pod_pb2.Extent) -> None:
    with pytest.raises(ValueError, match="arena"):
        parse_extent(message)
