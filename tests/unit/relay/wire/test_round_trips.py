"""Whole pairs of connections over TCP, in every mode: what is sent arrives, and who leaves is noticed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest
from tests.unit.relay.wire.meeting import LINK, PATIENCE, Door, Met, meeting, noise

from omni_common.deadline import Deadline
from omni_relay.wire.connect import PushAccepted, dial_push
from omni_relay.wire.credentials import Credentials, Mode
from omni_relay.wire.record import (
    CHECKED,
    MAX_CONTROL,
    MAX_PIECE,
    ChannelLost,
    Head,
    Kind,
    Sink,
    Source,
    receive_control,
    sent_length,
)
from omni_relay.wire.sockets import Link

SIZES = (1, 2, 15, 16, 17, 63, 64, 65, 4096, 16343, 16344, 16345, 65535, 65536, 65537, 1_000_003, MAX_PIECE)


def take(source: Source) -> tuple[Head, bytes]:
    head = source.receive()
    body = memoryview(bytearray(sent_length(head)))
    if body:
        source.receive_body(body)
    return head, bytes(body)


def take_all(source: Source, count: int) -> list[tuple[Head, bytes]]:
    return [take(source) for _ in range(count)]


def test_bodies_of_every_size_arrive_in_their_order_on_both_connections(credentials: Credentials) -> None:
    bodies = [noise(size) for size in SIZES]
    with meeting(credentials) as met, ThreadPoolExecutor(1) as beside:
        for sink, source in met.directions:
            received = beside.submit(take_all, source, len(bodies))
            for number, body in enumerate(bodies):
                sink.send(Kind.PIECE, memoryview(body), number=number, offset=number * 2**33)
            for number, (head, body) in enumerate(received.result(PATIENCE)):
                assert head[:2] == (Kind.PIECE, head.flags)
                assert (head.number, head.offset, head.length) == (number, number * 2**33, SIZES[number])
                assert body == bodies[number]


def test_all_kinds_arrive_mixed(credentials: Credentials) -> None:
    piece = bytes(range(256)) * 4
    with meeting(credentials) as met:
        for sink, source in met.directions:
            sink.send(Kind.CONTROL, b"")
            sink.send(Kind.HEARTBEAT)
            sink.send(Kind.LANDED, piece, number=3, offset=5)
            sink.send(Kind.PIECE, piece, number=2**64 - 1, offset=2**64 - 1)
            sink.send(Kind.CONTROL, b"message" * 9000)
            empty = source.receive()
            assert (empty.kind, receive_control(source, empty)) == (Kind.CONTROL, b"")
            assert take(source)[0].kind is Kind.HEARTBEAT
            landed, nothing = take(source)
            assert (landed.kind, landed.length, landed.number, nothing) == (Kind.LANDED, 1024, 3, b"")
            assert landed.fits(piece)
            assert not landed.fits(piece[:-1] + b"?")
            head, body = take(source)
            assert (head.number, head.offset, body) == (2**64 - 1, 2**64 - 1, piece)
            assert receive_control(source, source.receive()) == b"message" * 9000


def test_a_body_lands_in_its_place_and_nowhere_else(credentials: Credentials) -> None:
    arena = bytearray(b"." * 3000)
    with meeting(credentials) as met:
        met.push.sink.send(Kind.PIECE, b"x" * 1000)
        met.pushed.source.receive()
        met.pushed.source.receive_body(memoryview(arena)[1000:2000])
    assert arena == b"." * 1000 + b"x" * 1000 + b"." * 1000


def test_records_may_follow_the_handshake_at_once(credentials: Credentials) -> None:
    """The other end may still be in its last word when they come; where TLS ends there, it must not swallow them."""
    with Door(credentials) as door:
        for _ in range(10):
            answer = door.answer()
            dialled = dial_push(door.address, credentials, LINK, Deadline.after(PATIENCE))
            for number in range(20):
                dialled.sink.send(Kind.PIECE, noise(1000, number), number=number)
            accepted = answer.result(PATIENCE)
            assert isinstance(accepted, PushAccepted)
            bodies = [body for _, body in take_all(accepted.source, 20)]
            assert bodies == [noise(1000, number) for number in range(20)]
            dialled.sink.close()
            door.pairs.forget(accepted.pair)


def test_a_wrong_place_is_refused_before_anything_is_read(credentials: Credentials) -> None:
    with meeting(credentials) as met:
        source = met.pushed.source
        met.push.sink.send(Kind.PIECE, b"x" * 10)
        source.receive()
        for size in (0, 9, 11):
            with pytest.raises(ValueError, match="no place"):
                source.receive_body(memoryview(bytearray(size)))
        into = memoryview(bytearray(10))
        source.receive_body(into)
        assert bytes(into) == b"x" * 10


@pytest.mark.parametrize(("kind", "most"), [(Kind.CONTROL, MAX_CONTROL), (Kind.PIECE, MAX_PIECE), (Kind.HEARTBEAT, 0)])
def test_what_is_too_long_is_not_sent_and_the_connection_goes_on(
    credentials: Credentials, kind: Kind, most: int
) -> None:
    with meeting(credentials) as met:
        with pytest.raises(ValueError, match="longer than"):
            met.push.sink.send(kind, bytes(most + 1))
        met.push.sink.send(Kind.HEARTBEAT)
        assert take(met.pushed.source)[0].kind is Kind.HEARTBEAT


def test_threads_that_send_at_once_do_not_mix_their_records(credentials: Credentials) -> None:
    threads, each = 6, 40

    def send(sink: Sink, number: int) -> None:
        for offset in range(each):
            sink.send(Kind.PIECE, bytes([number]) * (1000 * number + offset), number=number, offset=offset)

    with meeting(credentials) as met, ThreadPoolExecutor(threads + 1) as beside:
        received = beside.submit(take_all, met.pushed.source, threads * each)
        sent = [beside.submit(send, met.push.sink, number) for number in range(1, threads + 1)]
        for end in sent:
            end.result(PATIENCE)
        offsets = [0] * (threads + 1)
        for head, body in received.result(PATIENCE):
            assert (head.offset, set(body)) == (offsets[head.number], {head.number} if body else set())
            offsets[head.number] += 1


def test_who_waits_is_woken_by_a_cut_from_either_end(credentials: Credentials) -> None:
    for end in ("push", "pushed"):
        with meeting(credentials) as met, ThreadPoolExecutor(1) as beside:
            waiting = beside.submit(met.pushed.source.receive)
            (met.push.sink if end == "push" else met.pushed.source).cut()
            assert isinstance(waiting.exception(PATIENCE), ChannelLost)
            with pytest.raises(ChannelLost):
                met.pushed.source.receive()


def test_who_sends_to_someone_who_left_notices_and_never_sends_again(credentials: Credentials) -> None:
    with meeting(credentials) as met:
        met.pushed.source.cut()
        with pytest.raises(ChannelLost):
            send_for_ever(met)
        with pytest.raises(ChannelLost):
            met.push.sink.send(Kind.HEARTBEAT)


def test_a_silent_peer_is_lost_after_the_timeout(credentials: Credentials) -> None:
    with meeting(credentials, Link(timeout=0.2)) as met:
        begun = monotonic()
        with pytest.raises(ChannelLost, match=r"sent nothing for 0\.2 s"):
            met.pushed.source.receive()
        assert 0.15 < monotonic() - begun < PATIENCE


def test_a_peer_that_takes_nothing_is_lost_after_the_timeout(credentials: Credentials) -> None:
    with meeting(credentials, Link(timeout=0.2)) as met, pytest.raises(ChannelLost, match=r"took nothing|broke"):
        send_for_ever(met)


def test_a_slow_reader_only_makes_the_sender_wait(credentials: Credentials) -> None:
    """The body does not fit into the socket's buffers, so that writing it takes several turns."""
    with meeting(credentials, Link(timeout=20.0, buffers=100_000)) as met, ThreadPoolExecutor(1) as beside:
        body = noise(MAX_PIECE)
        sent = beside.submit(met.push.sink.send, Kind.PIECE, body)
        head = met.pushed.source.receive()
        assert not sent.done()
        into = memoryview(bytearray(head.length))
        met.pushed.source.receive_body(into)
        sent.result(PATIENCE)
        assert into == body


def test_checksums_are_carried_where_nothing_else_protects_the_bytes(credentials: Credentials) -> None:
    plain = credentials.mode is Mode.NONE
    for checksums in (True, False):
        with meeting(credentials, Link(checksums=checksums)) as met:
            for kind, expected in ((Kind.PIECE, plain and checksums), (Kind.CONTROL, plain), (Kind.LANDED, checksums)):
                met.push.sink.send(kind, b"abc")
                assert bool(take(met.pushed.source)[0].flags & CHECKED) == expected


def send_for_ever(met: Met) -> None:
    """Until it raises; the socket's buffers are finite."""
    while True:
        met.push.sink.send(Kind.PIECE, bytes(MAX_PIECE))
