"""The head: its layout, which other versions must be able to read, and its bounds."""

from __future__ import annotations

import tracemalloc
from struct import pack

import pytest
from tests.unit.relay.wire.streams import PLAIN, SALT, Sent, read, written
from xxhash import xxh3_64_intdigest

from omni_relay.wire.record import CHECKED, MAX_CONTROL, MAX_PIECE, BadRecord, HeadWriter, Kind


def crafted(
    count: int, kind: int, flags: int, zero: int, length: int, number: int, offset: int, checksum: int
) -> bytes:
    """A head with a good check, whatever it says: the layout written down once more."""
    fields = pack("<BBHIQQQ", kind, flags, zero, length, number, offset, checksum)
    return fields + pack("<Q", xxh3_64_intdigest(fields, (SALT + count) % 2**64))


def test_the_layout_is_what_the_contract_says() -> None:
    piece = Sent(Kind.PIECE, b"tensor", 0x1122334455667788, 0x99AABBCCDDEEFF00)
    first, second = written(PLAIN, [piece, piece])
    for count, record in enumerate((first, second)):
        head = crafted(count, 2, CHECKED, 0, 6, piece.number, piece.offset, xxh3_64_intdigest(b"tensor"))
        assert record == head + b"tensor"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ((0, 0, 0, 0), "kind 0"),
        ((5, 0, 0, 0), "kind 5"),
        ((255, 0, 0, 0), "kind 255"),
        ((2, 2, 0, 1), "flags 2"),
        ((2, 128, 0, 1), "flags 128"),
        ((2, 0, 1, 1), "does not know"),
        ((1, 0, 0, MAX_CONTROL + 1), "65536 are allowed"),
        ((2, 0, 0, MAX_PIECE + 1), f"{MAX_PIECE} are allowed"),
        ((2, 0, 0, 2**32 - 1), f"{MAX_PIECE} are allowed"),
        ((4, 0, 0, 1), "0 are allowed"),
    ],
)
def test_heads_beyond_the_contract_are_refused_before_anything_is_kept_for_them(
    fields: tuple[int, int, int, int], why: str
) -> None:
    stream = crafted(0, *fields, 0, 0, 0) + bytes(100)
    tracemalloc.start()
    try:
        got = read(PLAIN, stream)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert got.records == []
    assert isinstance(got.end, BadRecord)
    assert why in str(got.end)
    assert most < MAX_CONTROL


def test_a_refused_body_does_not_count() -> None:
    """So that the next record is still the one that the reader waits for."""
    heads = HeadWriter(SALT)
    with pytest.raises(ValueError, match="longer"):
        heads.write(Kind.PIECE, bytes(MAX_PIECE + 1), 0, 0, checked=False)
    assert heads.write(Kind.HEARTBEAT, b"", 0, 0, checked=False) == crafted(0, 4, 0, 0, 0, 0, 0, 0)


def test_the_count_goes_round_at_64_bits() -> None:
    heads = HeadWriter(2**64 - 1)
    heads.write(Kind.HEARTBEAT, b"", 0, 0, checked=False)
    fields = pack("<BBHIQQQ", 4, 0, 0, 0, 0, 0, 0)
    head = heads.write(Kind.HEARTBEAT, b"", 0, 0, checked=False)
    assert head == fields + pack("<Q", xxh3_64_intdigest(fields, 0))
