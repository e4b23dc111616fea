"""No nonce is used twice with a key, and both ends change their keys at the same record."""

from __future__ import annotations

import pytest
from tests.unit.relay.wire.meeting import noise
from tests.unit.relay.wire.streams import AEAD, SECRET, Sent, delivered, read, written

from omni_relay.wire import aead
from omni_relay.wire.aead import Keys
from omni_relay.wire.record import ChannelLost, Kind


def test_a_generation_of_nonces_has_no_two_alike_and_one_key() -> None:
    keys = Keys(SECRET)
    first, nonce = keys.next()
    begin = int.from_bytes(nonce, "big")
    for count in range(1, aead.GENERATION):
        cipher, nonce = keys.next()
        assert int.from_bytes(nonce, "big") ^ begin == count
        assert cipher is first
    cipher, _ = keys.next()
    assert cipher is not first


def test_the_counter_goes_on_over_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aead, "GENERATION", 16)
    keys = Keys(SECRET)
    made = [keys.next() for _ in range(16 * 50)]
    assert len({id(cipher) for cipher, _ in made}) == 50
    assert len({nonce for _, nonce in made}) == len(made)
    assert len({bytes(cipher.encrypt(bytes(12), b"", b"")) for cipher, _ in made}) == 50


def test_records_are_read_over_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aead, "GENERATION", 4)
    records = [Sent(Kind.PIECE, noise(20, seed), seed, 0) for seed in range(22)]
    stream = written(AEAD, records)
    assert read(AEAD, b"".join(stream)).records == delivered(records)
    assert read(AEAD, b"".join(stream[:4] + stream[5:])).records == delivered(records[:4])


def test_a_connection_ends_before_its_counter_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aead, "_LAST", 9)
    keys = Keys(SECRET)
    for _ in range(10):
        keys.next()
    for _ in range(3):
        with pytest.raises(ChannelLost):
            keys.next()


def test_ends_with_different_secrets_have_nothing_in_common() -> None:
    (mine, nonce), (other, other_nonce) = Keys(SECRET).next(), Keys(noise(32)).next()
    assert nonce != other_nonce
    assert mine.encrypt(bytes(12), b"", b"") != other.encrypt(bytes(12), b"", b"")
