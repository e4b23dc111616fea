"""Tables of holds: who looks at what, and whose word counts."""

from __future__ import annotations

import fcntl
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from omni_common.arena.holds import ENTRIES, HoldTable, HoldTables


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[HoldTables]:
    made = HoldTables(tmp_path)
    yield made
    made.close()


def _die(table: HoldTable) -> None:
    """Leaves the table as a killed process does: with its words, and unlocked."""
    table.disown()


def test_a_hold_is_seen_until_it_is_dropped(tmp_path: Path, tables: HoldTables) -> None:
    table = HoldTable.create(tmp_path, "consumer-0")
    assert not tables.held(0, 1 << 40)
    entry = table.hold_slot(8192 + 64)
    assert entry is not None
    assert tables.held(8192, 8192 + 64)
    assert tables.held(8000, 1 << 40)
    assert not tables.held(0, 8192)
    assert not tables.held(8192 + 64, 1 << 40)
    table.drop(entry)
    assert not tables.held(0, 1 << 40)


def test_a_slot_without_bytes_is_held_itself_and_not_its_neighbour(tmp_path: Path, tables: HoldTables) -> None:
    table = HoldTable.create(tmp_path, "consumer-0")
    table.hold_slot(8192 + 64)
    assert (tables.held(8192, 8256), tables.held(8256, 8320)) == (True, False)


def test_who_writes_in_an_extent_is_told_from_who_looks_at_its_slots(tmp_path: Path, tables: HoldTables) -> None:
    table = HoldTable.create(tmp_path, "producer-0")
    table.hold_extent(8192)
    assert tables.held(8192, 9000)
    assert tables.look().anything(8192, 9000)
    assert not tables.look().views(8192, 9000)


def test_all_tables_are_looked_at_also_new_ones_and_those_of_the_dead_count_for_nothing(
    tmp_path: Path, tables: HoldTables
) -> None:
    first = HoldTable.create(tmp_path, "consumer-0")
    first.hold_slot(8256)
    assert tables.held(8192, 8256)
    second = HoldTable.create(tmp_path, "consumer-1")
    second.hold_slot(8256)
    _die(first)
    assert tables.held(8192, 8256)
    _die(second)
    assert not tables.held(8192, 8256)


def test_the_relay_removes_the_files_of_the_dead_and_no_others(tmp_path: Path, tables: HoldTables) -> None:
    living, dead = HoldTable.create(tmp_path, "living"), HoldTable.create(tmp_path, "dead")
    young, old = (tmp_path / "holds" / f"{age}-00.draft" for age in ("young", "old"))
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    tables.look()
    _die(dead)
    assert tables.remove_dead() == 2
    assert set((tmp_path / "holds").iterdir()) == {living.path, young}
    assert tables.remove_dead() == 0
    living.hold_slot(8256)
    assert tables.held(8192, 8256)


def test_a_table_ends_with_its_last_user(tmp_path: Path, tables: HoldTables) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    table = HoldTable.create(tmp_path, "consumer-0")
    path = table.path
    assert path.exists()
    del table
    gc.collect()
    assert not path.exists()
    tables.look()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_full_table_takes_no_more_and_entries_are_used_again(tmp_path: Path, tables: HoldTables) -> None:
    table = HoldTable.create(tmp_path, "consumer-0")
    entries = [table.hold_slot(64 * (2 + n)) for n in range(ENTRIES)]
    assert None not in entries
    assert len(set(entries)) == ENTRIES == table.held
    assert table.hold_slot(64) is None
    held = tables.look()
    assert all(held.views(64 * (1 + n), 64 * (2 + n)) for n in range(ENTRIES))
    assert entries[17] is not None
    table.drop(entries[17])
    assert not tables.held(64 * 18, 64 * 19)
    assert table.hold_slot(640_000 * 64) == entries[17]
    assert tables.held(639_999 * 64, 640_000 * 64)


def test_threads_share_a_table(tmp_path: Path, tables: HoldTables) -> None:
    table = HoldTable.create(tmp_path, "consumer-0")
    kept: list[int] = []

    def work(offset: int) -> None:
        for _ in range(300):
            entries = [table.hold_slot(offset) for _ in range(5)]
            for entry in entries[1:]:
                assert entry is not None
                table.drop(entry)
            assert entries[0] is not None
            kept.append(entries[0])

    threads = [threading.Thread(target=work, args=(64 * (n + 2),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(kept)) == len(kept) == table.held == 1200
    assert len(tables.look().slots) == 1200


def test_what_lies_in_the_folder_beside_tables_harms_nobody(tmp_path: Path, tables: HoldTables) -> None:
    holds = tmp_path / "holds"
    (holds / "folder").mkdir()
    (holds / "link").symlink_to("/dev/zero")
    os.mkfifo(holds / "pipe")
    with (holds / "odd").open("wb") as odd:
        odd.write(b"\xff" * 13)
        odd.flush()
        fcntl.flock(odd, fcntl.LOCK_EX)  # alive, and no table
        assert not tables.held(0, 1 << 40)
        tables.remove_dead()
        assert (holds / "odd").exists()
    assert HoldTable.create(tmp_path, "consumer-0").hold_slot(128) is not None


def test_a_table_of_the_parent_is_of_no_use_after_a_fork(tmp_path: Path) -> None:
    table = HoldTable.create(tmp_path, "consumer-0")
    entry = table.hold_slot(128)
    assert entry is not None
    _die(table)
    table.drop(entry)
    with pytest.raises(RuntimeError, match="fork"):
        table.hold_slot(128)
    assert table.path.exists()
