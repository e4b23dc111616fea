"""Records sealed by AES-128-GCM over a bare socket: as safe as TLS here, several times as fast as Python's ssl.

Who is who, and the keys, come from TLS; only the bulk does not go through it.

1.  Both ends connect by TLS 1.3 with certificates of the mesh's CA (tls.py) and go through the handshake inside of it
    (handshake.py). Each has then contributed 32 random bytes that only the two of them know, and both have the same
    `root` if and only if they agree on mode, role, pair, both randoms, both certificates and, where there is one, the
    token. Both have proved it.
2.  Both end TLS by close_notify, which TLS authenticates, and go on with the bare socket.
3.  secret_0 = HKDF-Expand(root, "records of PUSH" or "records of REPLY"). A connection carries records in one direction
    only: on a push connection the client sends, on a reply connection the server, and the code has no way to
    send in the other. So one key has one sender, and there is nothing to be reflected.
4.  From secret_n come, by HKDF-Expand with labels of their own, the 16 bytes of key_n, the 12 bytes of iv_n, and
    secret_n+1. Generation n seals the records [n * 2^20, (n + 1) * 2^20), and is then forgotten by both ends.
5.  Record number i (from 0, counted by both, never sent) is

        head (40 bytes, in clear text) · AES-128-GCM(key_n, nonce = iv_n XOR i, body, associated = connection · head)

    so the body's ciphertext and a tag of 16 bytes. `connection` are 16 bytes from the root. A record without a
    body is a head and a tag. Cipher and nonces are those of TLS_AES_128_GCM_SHA256 (RFC 8446, 5.3), the key update is
    after its 7.2; AES-256 would cost a seventh more cipher time.

Nonces: the counter goes up before a record is sealed and never down, is nowhere set, and ends the connection before it
leaves its 64 bits; keys live in memory only and come from fresh random bytes of both ends for each connection. So no
nonce is used twice with a key, also not after a restart, a reconnect or a failed send (which ends the connection).
Volume: at most 2^20 records of at most 2^16 blocks with one key, 2^36 blocks, where GCM's advantage over an ideal
cipher is below 2^-56. One failed tag ends the connection, so nobody gets to try forging twice on it.

What it protects: content, order and completeness of what is received, against whoever is on the path. Records that
were changed, cut short, extended, repeated, reordered, left out, reflected, or belong to another connection do not
verify, and the connection ends. Past traffic, also if certificates or token leak later (the TLS handshake is
ephemeral), and the earlier generations of a connection, if a later one's secret does (as far as Python frees memory).

What it does not: heads are readable, so sizes, times, kinds and transfer numbers are not secret. That a connection was
cut is noticed only as that: nothing tells an attacker's cut from a network's. Heads are acted on before they are
verified, in one way: the body is decrypted into the place that the head names, and only then found wanting. The
engine gives out places only within a transfer of this very peer that is not complete, and drops all of those when the
connection ends, so unverified bytes are never handed on. Availability: who can write into the path can end connections.
Bytes that travel outside of the connection (LANDED) are not encrypted. Nothing here holds against a member of the
mesh itself, who has a certificate and, if there is one, the token.
"""

from __future__ import annotations

import threading

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from omni_relay.wire.line import Line
from omni_relay.wire.record import (
    KIB,
    MAX_CONTROL,
    MAX_PIECE,
    BadRecord,
    Body,
    ChannelLost,
    Head,
    HeadReader,
    HeadWriter,
    Kind,
    sent_length,
)

TAG_SIZE = 16
GENERATION = 2**20
"""Records that are sealed with one key."""

_KEY_SIZE = 16
_NONCE_SIZE = 12
_LAST = 2**64 - 1


class Keys:
    """The cipher and the nonce for each record in its turn. Both ends make the same ones from the same secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._count = 0
        self._cipher: AESGCM
        self._iv = 0

    def next(self) -> tuple[AESGCM, bytes]:
        """Never the same pair twice; one thread at a time. Raises ChannelLost when there are no more."""
        count = self._count
        if count > _LAST:
            raise ChannelLost("The connection has carried as many records as its keys allow.")
        self._count += 1
        if count % GENERATION == 0:
            self._begin_generation()
        return self._cipher, (self._iv ^ count).to_bytes(_NONCE_SIZE, "big")

    def _begin_generation(self) -> None:
        self._cipher = AESGCM(_derive(self._secret, b"key", _KEY_SIZE))
        self._iv = int.from_bytes(_derive(self._secret, b"iv", _NONCE_SIZE), "big")
        self._secret = _derive(self._secret, b"next generation", len(self._secret))


class AeadSink:
    """The sending end; see record.Sink."""

    longest = 1024 * KIB  # sealed in a buffer that a core's cache holds

    def __init__(self, line: Line, salt: int, checked: frozenset[Kind], secret: bytes, connection: bytes) -> None:
        self._line = line
        self._checked = checked
        self._heads = HeadWriter(salt)
        self._keys = Keys(secret)
        self._connection = connection
        self._sealed = _Buffer()
        self._turn = threading.Lock()

    def send(self, kind: Kind, body: Body = b"", *, number: int = 0, offset: int = 0, more: bool = False) -> None:
        data = b"" if kind is Kind.LANDED else body
        with self._turn:
            head = self._heads.write(kind, body, number, offset, checked=kind in self._checked)
            cipher, nonce = self._keys.next()
            sealed = self._sealed.of(len(data) + TAG_SIZE)
            cipher.encrypt_into(nonce, data, self._connection + head, sealed)
            self._line.write(head, sealed, more=more)

    def cut(self) -> None:
        self._line.cut()

    def close(self) -> None:
        self._line.close()


class AeadSource:
    """The receiving end; see record.Source. Raises BadRecord for whatever was not sealed as the next record."""

    def __init__(self, line: Line, salt: int, secret: bytes, connection: bytes) -> None:
        self._line = line
        self._heads = HeadReader(salt)
        self._keys = Keys(secret)
        self._connection = connection
        self._sealed = _Buffer()
        self._head: Head | None = None

    def receive(self) -> Head:
        self._line.read(self._heads.buffer)
        self._head = head = self._heads.read()
        if not sent_length(head):
            self._open(memoryview(bytearray()))
        return head

    def receive_body(self, into: memoryview) -> None:
        head = self._head
        if head is None or len(into) != sent_length(head):
            raise ValueError(f"{len(into)} bytes are no place for the body of {head}")
        self._head = None
        if into:
            self._open(into)

    def _open(self, into: memoryview) -> None:
        sealed = self._sealed.of(len(into) + TAG_SIZE)
        self._line.read(sealed)
        cipher, nonce = self._keys.next()
        try:
            cipher.decrypt_into(nonce, sealed, self._connection + self._heads.buffer, into)
        except InvalidTag as error:
            raise BadRecord("A record is not the one that the peer sealed.") from error

    def fileno(self) -> int:
        return self._line.fileno()

    def cut(self) -> None:
        self._line.cut()

    def close(self) -> None:
        self._line.close()


class _Buffer:
    """Room for one sealed body, used again and again; large only on connections that carry pieces."""

    def __init__(self) -> None:
        self._room = memoryview(bytearray(MAX_CONTROL + TAG_SIZE))

    def of(self, size: int) -> memoryview:
        if size > len(self._room):
            self._room = memoryview(bytearray(MAX_PIECE + TAG_SIZE))
        return self._room[:size]


def _derive(secret: bytes, label: bytes, size: int) -> bytes:
    return HKDFExpand(SHA256(), size, b"omni relay v1 records " + label).derive(secret)
