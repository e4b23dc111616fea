"""What happens to a stream between its two ends: nothing that was not sent is ever taken for a record."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.relay.wire.meeting import noise
from tests.unit.relay.wire.streams import AEAD, PLAIN, RECORDS, SECRET, Channel, Sent, aead, delivered, read, written

from omni_relay.wire.record import HEAD_SIZE, BadRecord, ChannelLost, Kind

channels = pytest.mark.parametrize("channel", [PLAIN, AEAD], ids=lambda channel: channel.name)
STREAMS = {channel.name: written(channel) for channel in (PLAIN, AEAD)}


def flipped(stream: bytes, bit: int) -> bytes:
    changed = bytearray(stream)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@channels
def test_an_unchanged_stream_is_read_to_its_end(channel: Channel) -> None:
    got = read(channel, b"".join(STREAMS[channel.name]))
    assert (got.records, got.damaged) == (delivered(), 0)
    assert not isinstance(got.end, BadRecord)


def test_every_flipped_bit_of_sealed_records_is_caught() -> None:
    stream = STREAMS["aead"]
    assert sum(map(len, stream)) * 8 > 10_000
    for number, place in enumerate(places(stream)):
        for bit in place:
            got = read(AEAD, flipped(b"".join(stream), bit))
            assert got.records == delivered()[:number]
            assert isinstance(got.end, BadRecord)


def test_every_flipped_bit_of_plain_records_is_caught() -> None:
    """A damaged piece can be sent again, since its head is sound; after any other damage the connection is over."""
    stream = STREAMS["plain"]
    assert sum(map(len, stream)) * 8 > 10_000
    for number, place in enumerate(places(stream)):
        for bit in place:
            got = read(PLAIN, flipped(b"".join(stream), bit))
            if RECORDS[number].kind is Kind.PIECE and bit >= place.start + HEAD_SIZE * 8:
                assert (got.records, got.damaged) == (delivered(RECORDS[:number] + RECORDS[number + 1 :]), 1)
            else:
                assert (got.records, got.damaged) == (delivered()[:number], 0)
                assert isinstance(got.end, BadRecord)


def places(stream: list[bytes]) -> list[range]:
    """The bits of each record."""
    starts = [8 * sum(map(len, stream[:number])) for number in range(len(stream) + 1)]
    return [range(start, end) for start, end in pairwise(starts)]


@channels
def test_a_stream_cut_at_any_byte_gives_the_records_before_the_cut(channel: Channel) -> None:
    stream = STREAMS[channel.name]
    ends = [place.stop // 8 for place in places(stream)]
    for length in range(ends[-1]):
        got = read(channel, b"".join(stream)[:length])
        assert got.records == delivered()[: sum(end <= length for end in ends)]
        assert got.damaged == 0


@channels
@given(order=st.lists(st.integers(0, len(RECORDS) - 1), max_size=8))
def test_records_that_are_lost_repeated_or_out_of_order_end_the_connection(channel: Channel, order: list[int]) -> None:
    got = read(channel, b"".join(STREAMS[channel.name][number] for number in order))
    right = next((place for place, number in enumerate(order) if place != number), len(order))
    assert got.records == delivered()[:right]
    assert got.damaged == 0
    assert isinstance(got.end, BadRecord) == (right < len(order))


@channels
@given(tail=st.binary(min_size=1, max_size=100))
def test_what_follows_the_last_record_is_no_record(channel: Channel, tail: bytes) -> None:
    got = read(channel, b"".join(STREAMS[channel.name]) + tail)
    assert (got.records, got.damaged) == (delivered(), 0)
    assert isinstance(got.end, BadRecord) == (len(tail) >= HEAD_SIZE)


@channels
@settings(max_examples=200)
@given(stream=st.binary(max_size=200))
def test_random_bytes_are_no_records(channel: Channel, stream: bytes) -> None:
    got = read(channel, stream)
    assert (got.records, got.damaged) == ([], 0)


@channels
@given(place=st.integers(0, 2**32), inserted=st.binary(min_size=1, max_size=60), dropped=st.integers(0, 60))
def test_bytes_that_are_inserted_or_left_out_are_noticed(
    channel: Channel, place: int, inserted: bytes, dropped: int
) -> None:
    stream = b"".join(STREAMS[channel.name])
    place %= len(stream)
    changed = stream[:place] + inserted + stream[place + dropped :]
    got = read(channel, changed)
    sent = iter(delivered())
    assert all(record in sent for record in got.records), "records are those that were sent, in their order"
    assert len(got.records) < len(RECORDS) or changed.startswith(stream)


@given(
    records=st.lists(
        st.builds(
            Sent,
            st.sampled_from([Kind.PIECE, Kind.CONTROL]),
            st.binary(max_size=300),
            st.integers(0, 2**64 - 1),
            st.integers(0, 2**64 - 1),
        ),
        max_size=6,
    )
)
@channels
def test_whatever_is_written_is_read(channel: Channel, records: list[Sent]) -> None:
    assert read(channel, b"".join(written(channel, records))).records == records


def test_the_head_of_one_record_does_not_go_with_the_body_of_another() -> None:
    """The very same piece twice: only its place in the stream differs."""
    twice = written(AEAD, [RECORDS[1], RECORDS[1]])
    assert twice[0][HEAD_SIZE:] != twice[1][HEAD_SIZE:]
    for mixture in (twice[0][:HEAD_SIZE] + twice[1][HEAD_SIZE:], twice[1][:HEAD_SIZE] + twice[0][HEAD_SIZE:]):
        got = read(AEAD, mixture)
        assert got.records == []
        assert isinstance(got.end, BadRecord)


@pytest.mark.parametrize(
    "other", [aead(secret=noise(32)), aead(connection=noise(16))], ids=["other keys", "other connection"]
)
def test_sealed_records_of_another_connection_are_refused(other: Channel) -> None:
    """Their heads match here, as the salt is the same: it is the seal that tells them apart."""
    got = read(AEAD, b"".join(written(other)))
    assert got.records == []
    assert str(got.end) == "A record is not the one that the peer sealed."


def test_plain_records_of_another_connection_are_refused() -> None:
    assert isinstance(read(PLAIN, b"".join(STREAMS["aead"])).end, BadRecord)
    assert isinstance(read(AEAD, b"".join(STREAMS["plain"])).end, ChannelLost)


def test_sealed_bodies_are_not_readable() -> None:
    stream = b"".join(STREAMS["aead"])
    for record in RECORDS:
        for start in range(0, len(record.body) - 8, 8):
            assert record.body[start : start + 8] not in stream
    assert SECRET not in stream
