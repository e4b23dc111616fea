"""Who may connect: relays with the token or the certificate, each reply connection to its own push connection only."""

from __future__ import annotations

import socket
import tracemalloc
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.relay.wire.authority import Files
from tests.unit.relay.wire.meeting import LINK, PATIENCE, TOKEN, Door, noise
from tests.unit.relay.wire.tap import Tap

from omni_common.deadline import Deadline
from omni_relay.wire import handshake
from omni_relay.wire.connect import PushAccepted, ReplyAccepted, accept, dial_push, dial_reply
from omni_relay.wire.credentials import Credentials, Mode
from omni_relay.wire.handshake import MAGIC, VERSION
from omni_relay.wire.pairs import MOST, Pair, Pairs
from omni_relay.wire.record import Kind
from omni_relay.wire.refusal import HandshakeFailed, Refusal

WITH_TOKEN = Credentials(Mode.NONE, TOKEN)
HANDSHAKE = 16 + 56 + 32
"""Bytes that the client says without TLS."""


def soon() -> Deadline:
    return Deadline.after(PATIENCE)


def refusal(answer: Future[PushAccepted | ReplyAccepted]) -> Refusal:
    error = answer.exception(PATIENCE)
    assert isinstance(error, HandshakeFailed)
    return error.refusal


@pytest.mark.parametrize(
    "token",
    [b"", b"a token that somebody guesses", TOKEN + b"?", TOKEN[:-1]],
    ids=["none", "other", "longer", "shorter"],
)
@pytest.mark.parametrize("mode", [Mode.NONE, Mode.AEAD])
def test_whoever_does_not_know_the_token_is_refused_and_told_so(mode: Mode, token: bytes, files: Files) -> None:
    """With certificates too, where there is a token: another release's relays may have the same CA."""
    mine = Credentials(mode, TOKEN) if mode is Mode.NONE else replace(files.credentials(mode), token=TOKEN)
    with Door(mine) as door:
        answer = door.answer()
        with pytest.raises(HandshakeFailed, match="tokens of the two are not the same") as refused:
            dial_push(door.address, replace(mine, token=token), LINK, soon())
        assert refused.value.refusal is Refusal.PROOF
        assert refusal(answer) is Refusal.PROOF
        assert len(door.pairs) == 0
        door.push(mine)


def test_a_relay_without_a_token_is_no_server_to_one_that_has_it() -> None:
    """It would accept the client, but cannot: the proof of either is under its own key."""
    with Door(Credentials()) as door:
        answer = door.answer()
        with pytest.raises(HandshakeFailed):
            dial_push(door.address, WITH_TOKEN, LINK, soon())
        assert refusal(answer) is Refusal.PROOF


def test_a_server_that_accepts_without_the_proof_is_refused() -> None:
    def pretend(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            sock.sendall(sock.recv(16, socket.MSG_WAITALL))
            sock.recv(56, socket.MSG_WAITALL)
            sock.sendall(noise(32))
            proof = sock.recv(32, socket.MSG_WAITALL)
            sock.sendall(b"\1" + proof)
            sock.recv(1)

    with Door(WITH_TOKEN) as door, socket.create_server(("127.0.0.1", 0)) as listener:
        done = door.beside(pretend, listener)
        with pytest.raises(HandshakeFailed, match="does not know this relay's token"):
            dial_push(f"127.0.0.1:{listener.getsockname()[1]}", WITH_TOKEN, LINK, soon())
        done.result(PATIENCE)


def test_a_pair_comes_together(credentials: Credentials) -> None:
    with Door(credentials) as door:
        dialled, accepted = door.push()
        assert dialled.pair == accepted.pair
        assert dialled.peer == accepted.peer == ("" if credentials.mode is Mode.NONE else "relay.mesh")
        assert door.reply(dialled.pair)[1].pair == dialled.pair
        assert len(door.pairs) == 0


def test_every_pair_and_every_connection_has_secrets_of_its_own(credentials: Credentials) -> None:
    with Door(credentials) as door:
        pairs = [door.push()[0].pair for _ in range(3)]
    assert len({pair.id for pair in pairs}) == len({pair.secret for pair in pairs}) == 3


def test_a_stolen_pair_id_opens_no_reply_connection_and_does_its_owner_no_harm(credentials: Credentials) -> None:
    with Door(credentials) as door:
        pair = door.push()[0].pair
        for stolen in (Pair(pair.id, noise(32)), Pair(pair.id, TOKEN), Pair(pair.id, b"")):
            answer = door.answer()
            with pytest.raises(HandshakeFailed, match="no longer knows the push connection"):
                dial_reply(door.address, credentials, LINK, stolen, soon())
            assert refusal(answer) is Refusal.PROOF
        door.reply(pair)


def test_a_pair_has_one_reply_connection(credentials: Credentials) -> None:
    with Door(credentials) as door:
        pair = door.push()[0].pair
        door.reply(pair)
        answer = door.answer()
        with pytest.raises(HandshakeFailed, match="no longer knows the push connection"):
            dial_reply(door.address, credentials, LINK, pair, soon())
        assert refusal(answer) is Refusal.PROOF


def test_the_reply_connection_of_a_forgotten_push_connection_is_refused(credentials: Credentials) -> None:
    with Door(credentials) as door:
        dialled, accepted = door.push()
        door.pairs.forget(accepted.pair)
        answer = door.answer()
        with pytest.raises(HandshakeFailed, match="no longer knows the push connection"):
            dial_reply(door.address, credentials, LINK, dialled.pair, soon())
        assert refusal(answer) is Refusal.PROOF


def test_pairs_that_wait_are_bounded() -> None:
    with Door(WITH_TOKEN) as door:
        for number in range(MOST):
            assert door.pairs.add(Pair(number.to_bytes(16, "big"), b""))
        answer = door.answer()
        with pytest.raises(HandshakeFailed, match="no room") as refused:
            dial_push(door.address, WITH_TOKEN, LINK, soon())
        assert refused.value.refusal is Refusal.FULL
        assert refusal(answer) is Refusal.FULL


def test_a_pair_cannot_be_claimed_twice_at_once() -> None:
    pairs, pair = Pairs(), Pair(bytes(16), bytes(32))
    assert pairs.add(pair)
    assert not pairs.add(pair)
    assert pairs.find(pair.id) == pair
    assert pairs.claim(pair)
    assert not pairs.claim(pair)
    assert pairs.find(pair.id) is None


def test_a_recorded_handshake_opens_nothing(credentials: Credentials) -> None:
    with Door(credentials) as door:
        with Tap(door.port) as tap:
            dialled, accepted = door.push(address=tap.address)
            dialled.sink.send(Kind.PIECE, b"secret tensor" * 99)
            accepted.source.receive()
            dialled.sink.close()
            accepted.source.close()
            door.pairs.forget(accepted.pair)
        answer = door.answer()
        with socket.create_connection(("127.0.0.1", door.port)) as again, suppress(OSError):
            again.sendall(tap.heard_of_client)
            while again.recv(4096):
                pass
        assert refusal(answer) in (Refusal.PROOF, Refusal.PROTOCOL, Refusal.CERTIFICATE)
        assert len(door.pairs) == 0


def test_what_a_wire_tapper_hears_has_no_secret_in_it(files: Files, credentials: Credentials) -> None:
    credentials = replace(credentials, token=TOKEN)
    with Door(credentials) as door, Tap(door.port) as tap:
        dialled, accepted = door.push(address=tap.address)
        dialled.sink.send(Kind.PIECE, b"secret tensor" * 99)
        accepted.source.receive()
        accepted.source.receive_body(memoryview(bytearray(13 * 99)))
        dialled.sink.close()
        accepted.source.close()
    heard = bytes(tap.heard_of_client + tap.heard_of_server)
    assert TOKEN not in heard
    assert dialled.pair.secret not in heard
    assert (b"secret tensor" in heard) == (credentials.mode is Mode.NONE)


def test_relays_of_different_modes_tell_each_other_what_to_change(files: Files) -> None:
    modes = {Mode.NONE: WITH_TOKEN} | {mode: files.credentials(mode) for mode in (Mode.TLS, Mode.AEAD)}
    for mine in Mode:
        with Door(modes[mine]) as door:
            for other in set(Mode) - {mine}:
                answer = door.answer()
                with pytest.raises(
                    HandshakeFailed, match=f"peer's ENCRYPTION is '{mine}' and this relay's is '{other}'"
                ):
                    dial_push(door.address, modes[other], LINK, soon())
                assert refusal(answer) is Refusal.MODE


def test_another_version_is_refused_with_both_numbers(credentials: Credentials) -> None:
    with Door(credentials) as door:
        answer = door.answer()
        with socket.create_connection(("127.0.0.1", door.port)) as sock:
            sock.sendall(MAGIC + bytes([VERSION + 1, 0]) + bytes(6))
            assert sock.recv(16, socket.MSG_WAITALL)[:9] == MAGIC + bytes([VERSION])
            assert sock.recv(1) == b""
        assert refusal(answer) is Refusal.PROTOCOL
        assert f"version {VERSION + 1} of this protocol, not {VERSION}" in str(answer.exception())


def test_strangers_get_no_answer(credentials: Credentials) -> None:
    for words in (
        b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01" + bytes(99),
    ):
        with Door(credentials) as door:
            answer = door.answer()
            with socket.create_connection(("127.0.0.1", door.port)) as sock, suppress(ConnectionResetError):
                sock.sendall(words)
                assert sock.recv(1) == b""
            assert refusal(answer) is Refusal.PROTOCOL


def test_silence_is_cut_at_the_deadline_wherever_it_begins(credentials: Credentials) -> None:
    for length in (0, 3, 16, 17, 50, HANDSHAKE - 32):
        with Door(credentials) as door, socket.create_connection(("127.0.0.1", door.port)) as sock:
            begun = monotonic()
            sock.sendall((MAGIC + bytes([VERSION, credentials.mode.number]) + bytes(6) + b"\1" + bytes(99))[:length])
            answer = door.answer(0.05)
            assert refusal(answer) in (Refusal.DEADLINE, Refusal.PROTOCOL)
            assert refusal(answer) is Refusal.DEADLINE or length > 16
            assert monotonic() - begun < PATIENCE / 2


def test_a_server_that_says_nothing_is_left_at_the_deadline(credentials: Credentials) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(HandshakeFailed) as failed:
            dial_push(address, credentials, LINK, Deadline.after(0.05))
        assert failed.value.refusal is Refusal.DEADLINE


def test_bytes_that_trickle_do_not_move_the_deadline() -> None:
    """Each comes in time for the next one to be waited for; together they are too late."""
    with Door(WITH_TOKEN) as door, socket.create_connection(("127.0.0.1", door.port)) as sock:
        answer = door.answer(0.2)
        begun = monotonic()
        words = iter(MAGIC + bytes([VERSION, 0]) + bytes(6) + b"\1" + bytes(55))
        with suppress(OSError):
            while not answer.done():
                sock.sendall(bytes([next(words)]))
                with suppress(TimeoutError):
                    answer.exception(0.02)
        assert refusal(answer) is Refusal.DEADLINE
        assert monotonic() - begun < PATIENCE / 2


def test_nobody_there_is_said_with_the_address(credentials: Credentials) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    for wrong in (address, "127.0.0.1:none", "nowhere", "127.0.0.1:99999999"):
        with pytest.raises(HandshakeFailed, match=f"at {wrong} cannot be reached") as failed:
            dial_push(wrong, credentials, LINK, soon())
        assert failed.value.refusal is Refusal.UNREACHABLE


def answered(credentials: Credentials, said: bytes) -> HandshakeFailed:
    """What becomes of a connection on which a client says that and leaves."""
    near, far = socket.socketpair()
    with near, far:
        far.sendall(said)
        far.shutdown(socket.SHUT_WR)
        with pytest.raises(HandshakeFailed) as failed:
            accept(near, credentials, LINK, Pairs(), soon())
        assert near.fileno() == -1
        return failed.value


def heard(credentials: Credentials) -> bytes:
    """All that a client says to connect."""
    with Door(credentials) as door, Tap(door.port) as tap:
        dialled, accepted = door.push(address=tap.address)
        dialled.sink.close()
        accepted.source.close()
    return bytes(tap.heard_of_client)


def test_a_handshake_cut_at_any_byte_ends_cleanly(credentials: Credentials) -> None:
    said = heard(credentials)
    step = 1 if credentials.mode is Mode.NONE else 29
    for length in range(0, len(said) if step > 1 else HANDSHAKE, step):
        assert answered(credentials, said[:length]).refusal in (Refusal.LOST, Refusal.PROTOCOL, Refusal.PROOF)


@settings(max_examples=100, deadline=None)
@given(said=st.binary(max_size=300), greeted=st.booleans())
def test_random_bytes_are_refused(said: bytes, greeted: bool) -> None:
    greeting = MAGIC + bytes([VERSION, 0]) + bytes(6) if greeted else b""
    assert answered(WITH_TOKEN, greeting + said).refusal in (Refusal.LOST, Refusal.PROTOCOL, Refusal.PROOF)


def test_random_bytes_instead_of_tls_are_refused(files: Files) -> None:
    for mode in (Mode.TLS, Mode.AEAD):
        credentials = files.credentials(mode)
        for seed in range(20):
            said = MAGIC + bytes([VERSION, mode.number]) + bytes(6) + noise(400, seed)
            assert answered(credentials, said).refusal in (Refusal.PROTOCOL, Refusal.LOST)


def test_a_flood_is_refused_without_keeping_it(credentials: Credentials) -> None:
    """The peer pours out bytes for as long as it can; no more than a handshake's are ever read."""

    def pour() -> None:
        with socket.create_connection(("127.0.0.1", door.port)) as sock, suppress(OSError):
            sock.sendall(MAGIC + bytes([VERSION, credentials.mode.number]) + bytes(6))
            for _ in range(1000):
                sock.sendall(flood)

    flood = bytes([255]) * 100_000
    with Door(credentials) as door:
        tracemalloc.start()
        try:
            answer = door.answer()
            poured = door.beside(pour)
            assert refusal(answer) is Refusal.PROTOCOL
            poured.result(PATIENCE)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most < 1_000_000


def test_session_keys_are_of_one_role(credentials: Credentials) -> None:
    pair = Pair(bytes(16), bytes(32))
    push = handshake.Session(handshake.Role.PUSH, pair, noise(32))
    reply = handshake.Session(handshake.Role.REPLY, pair, noise(32))
    assert push.record_secret != reply.record_secret
    assert len({push.record_secret, push.connection, push.pair.secret, push.root}) == 4
