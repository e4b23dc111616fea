"""What one life of the relay leaves to the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_common.arena.extents import Extent
from omni_common.arena.layout import EXTENTS, MAX_EXTENTS
from omni_relay.core.holders import Kind
from omni_relay.ledger import LEDGER, Ledger

ONE, LAST = Extent(0, 2**64 - 1, EXTENTS, 64), Extent(MAX_EXTENTS - 1, 1, 2**40, 2**30)


def test_what_was_noted_and_not_struck_out_is_found_again(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path, 5)
    ledger.note(ONE, Kind.STAGE)
    ledger.note(Extent(7, 3, 128, 64), Kind.PEER)
    ledger.note(LAST, Kind.PEER)
    ledger.strike(7)
    again = Ledger.adopt(tmp_path, 5)
    assert again is not None
    assert again.grants() == [(ONE, Kind.STAGE), (LAST, Kind.PEER)]


def test_one_of_another_arena_or_none_or_a_short_one_is_not_taken_up(tmp_path: Path) -> None:
    assert Ledger.adopt(tmp_path, 5) is None
    Ledger.create(tmp_path, 5)
    assert Ledger.adopt(tmp_path, 6) is None
    (tmp_path / LEDGER).write_bytes(b"OMNIGRT1")
    assert Ledger.adopt(tmp_path, 5) is None


def test_a_new_one_takes_the_place_of_the_old(tmp_path: Path) -> None:
    old = Ledger.create(tmp_path, 5)
    Ledger.create(tmp_path, 5)
    old.note(ONE, Kind.STAGE)
    again = Ledger.adopt(tmp_path, 5)
    assert again is not None
    assert again.grants() == []


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path, 5)
    ledger.note(ONE, Kind.STAGE)
    memory = bytearray((tmp_path / LEDGER).read_bytes())
    memory[64 + 24] = 3
    (tmp_path / LEDGER).write_bytes(memory)
    with pytest.raises(ValueError, match="kind 3"):
        ledger.grants()
