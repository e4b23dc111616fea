"""The words that open a connection: who speaks what, and that both know the secret. Fixed sizes, one deadline.

    C → S   preamble   magic, version, mode                      16 bytes, in clear text
    S → C   preamble   the same; silence to whoever is no relay
            (TLS 1.3 with both certificates, unless the mode is none; all that follows is inside of it)
    C → S   hello      role, pair id, 32 random bytes            56 bytes
    S → C   challenge  32 random bytes
    C → S   proof      32 bytes
    S → C   verdict    accepted or not, 32 bytes of proof        33 bytes

With H = SHA-256, HKDF as in RFC 5869 over it, and both certificates empty without TLS:

    transcript = H(label ‖ mode ‖ hello ‖ challenge ‖ H(client's certificate) ‖ H(server's certificate))
    root       = HKDF-Extract(salt = key, secret = client's random ‖ server's random ‖ transcript)
    each use   = HKDF-Expand(root, its own label): both proofs, the pair's secret, the connection's id, the record key

`key` is the release's token on a push connection (empty if there is none), and on a reply connection the pair's secret,
which came out of the push connection's handshake. So without TLS the root is a PRF of the transcript under the token:
who does not know it can prove nothing, and a recorded handshake proves nothing against another random. Inside of TLS
the randoms themselves are secret, which makes record keys of them possible (aead.py), and both ends have agreed on
each other's certificates or have different roots. Client and server use different labels, so nothing can be reflected.

The client proves first: who merely connects learns nothing to guess the token by. The token never travels. In mode
none it must be long and random (credentials.py sees to its length), since a wire-tapper can try guesses at leisure.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from omni_common.deadline import Deadline
from omni_relay.wire.credentials import Mode
from omni_relay.wire.pairs import Pair, Pairs
from omni_relay.wire.refusal import HandshakeFailed, Refusal

MAGIC = b"OMNIRELY"
VERSION = 1
RANDOM_SIZE = 32
PROOF_SIZE = 32

_LABEL = b"omni relay v1 "
_PREAMBLE = Struct("<8sBB6x")
_HELLO = Struct("<B7x16s32s")
_VERDICT = Struct("<B32s")
_ACCEPTED, _REFUSED, _FULL = 1, 2, 3


class Role(IntEnum):
    """What a connection is for, as its client sees it."""

    PUSH = 1
    """The client sends."""
    REPLY = 2
    """The client receives."""


@dataclass(frozen=True, slots=True)
class Session:
    """What both ends know after the handshake and nobody else does (if there is TLS or a token)."""

    role: Role
    pair: Pair
    root: bytes = field(repr=False)

    @property
    def salt(self) -> int:
        """Tells this connection's records from those of others; not secret."""
        return int.from_bytes(self.connection[:8], "little")

    @property
    def connection(self) -> bytes:
        """16 bytes that name the connection; not secret."""
        return _expand(self.root, b"connection", 16)

    @property
    def record_secret(self) -> bytes:
        """For the one direction that the role allows."""
        return _expand(self.root, b"records of " + self.role.name.encode(), 32)


class Words:
    """A socket during the handshake: whole messages of known size, all before one deadline.

    `read` and `write` raise OSError, of which TimeoutError and SSLError are kinds, and HandshakeFailed."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._socket = sock
        self._deadline = deadline

    def read(self, size: int) -> bytes:
        said = bytearray()
        while len(said) < size:
            if not (more := self._hurry().recv(size - len(said))):
                raise HandshakeFailed(Refusal.LOST, "The peer closed the connection within the handshake.")
            said += more
        return bytes(said)

    def write(self, data: bytes) -> None:
        self._hurry().sendall(data)

    def _hurry(self) -> socket.socket:
        if self._deadline.passed:
            raise TimeoutError
        self._socket.settimeout(self._deadline.remaining)
        return self._socket


def greet(words: Words, mode: Mode) -> None:
    """The client's side of the preambles. Raises HandshakeFailed when the other end is no relay of this kind."""
    words.write(_PREAMBLE.pack(MAGIC, VERSION, mode.number))
    _compare(words.read(_PREAMBLE.size), mode)


def answer_greeting(words: Words, mode: Mode) -> None:
    """The server's side; says nothing to whoever does not begin as a relay does."""
    preamble = words.read(_PREAMBLE.size)
    if preamble.startswith(MAGIC):
        words.write(_PREAMBLE.pack(MAGIC, VERSION, mode.number))
    _compare(preamble, mode)


def _compare(preamble: bytes, mode: Mode) -> None:
    magic, version, number = _PREAMBLE.unpack(preamble)
    if magic != MAGIC:
        raise HandshakeFailed(Refusal.PROTOCOL, "What answers there is not a relay.")
    if version != VERSION:
        raise HandshakeFailed(Refusal.PROTOCOL, f"The peer speaks version {version} of this protocol, not {VERSION}.")
    if number != mode.number:
        theirs = next((other.value for other in Mode if other.number == number), f"mode {number}")
        raise HandshakeFailed(
            Refusal.MODE, f"The peer's ENCRYPTION is '{theirs}' and this relay's is '{mode}'; they have to be the same."
        )


def prove(words: Words, mode: Mode, certificates: bytes, token: bytes, pair: Pair | None) -> Session:
    """The client's side of the proofs: a push connection without `pair`, the reply connection of `pair` with it.

    `certificates` is what both ends know each other by. Raises HandshakeFailed.
    """
    role = Role.PUSH if pair is None else Role.REPLY
    identity = os.urandom(16) if pair is None else pair.id
    random = os.urandom(RANDOM_SIZE)
    hello = _HELLO.pack(role, identity, random)
    words.write(hello)
    challenge = words.read(RANDOM_SIZE)
    root = _root(token if pair is None else pair.secret, mode, hello, challenge, certificates)
    words.write(_client_proof(root))
    verdict, proof = _VERDICT.unpack(words.read(_VERDICT.size))
    if verdict != _ACCEPTED:
        raise _turned_away(verdict, role)
    if not hmac.compare_digest(proof, _server_proof(root)):
        raise HandshakeFailed(Refusal.PROOF, "The peer does not know this relay's token.")
    return Session(role, pair or Pair(identity, _pair_secret(root)), root)


def _turned_away(verdict: int, role: Role) -> HandshakeFailed:
    if verdict == _FULL:
        return HandshakeFailed(Refusal.FULL, "The peer has no room for another connection.")
    if role is Role.REPLY:
        return HandshakeFailed(Refusal.PROOF, "The peer no longer knows the push connection of this reply connection.")
    return HandshakeFailed(Refusal.PROOF, "The peer refused this relay: the tokens of the two are not the same.")


def check_proof(words: Words, mode: Mode, certificates: bytes, token: bytes, pairs: Pairs) -> Session:
    """The server's side. A push connection's pair then waits in `pairs`. An unknown pair and a wrong proof look the
    same from outside. Raises HandshakeFailed."""
    hello = words.read(_HELLO.size)
    number, identity, _ = _HELLO.unpack(hello)
    if number not in tuple(Role):
        raise HandshakeFailed(Refusal.PROTOCOL, f"The peer asks for a connection of the unknown role {number}.")
    challenge = os.urandom(RANDOM_SIZE)
    words.write(challenge)
    proof = words.read(PROOF_SIZE)
    opens = number == Role.PUSH
    pair = None if opens else pairs.find(identity)
    key = token if opens else pair.secret if pair else os.urandom(RANDOM_SIZE)
    root = _root(key, mode, hello, challenge, certificates)
    pair = pair or Pair(identity, _pair_secret(root))
    if not hmac.compare_digest(proof, _client_proof(root)):
        why = "does not know the token" if opens else "is not the one whose push connection it names"
        raise _refuse(words, _REFUSED, Refusal.PROOF, f"The peer {why}.")
    if not (pairs.add(pair) if opens else pairs.claim(pair)):
        raise _refuse(words, _FULL, Refusal.FULL, "There are too many connections, or this one has been made before.")
    try:
        words.write(_VERDICT.pack(_ACCEPTED, _server_proof(root)))
    except OSError:
        pairs.forget(pair)
        raise
    return Session(Role(number), pair, root)


def _refuse(words: Words, verdict: int, refusal: Refusal, message: str) -> HandshakeFailed:
    words.write(_VERDICT.pack(verdict, bytes(PROOF_SIZE)))
    return HandshakeFailed(refusal, message)


def _root(key: bytes, mode: Mode, hello: bytes, challenge: bytes, certificates: bytes) -> bytes:
    said = bytes([mode.number]) + hello + challenge + certificates
    transcript = hashlib.sha256(_LABEL + b"transcript" + said).digest()
    return hmac.digest(key, hello[-RANDOM_SIZE:] + challenge + transcript, "sha256")


def _expand(root: bytes, label: bytes, size: int) -> bytes:
    return HKDFExpand(SHA256(), size, _LABEL + label).derive(root)


def _client_proof(root: bytes) -> bytes:
    return _expand(root, b"client's proof", PROOF_SIZE)


def _server_proof(root: bytes) -> bytes:
    return _expand(root, b"server's proof", PROOF_SIZE)


def _pair_secret(root: bytes) -> bytes:
    return _expand(root, b"pair", 32)
