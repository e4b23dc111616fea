"""What relays send each other: records, each a head of 40 bytes and a body.

    kind u8 · flags u8 · zero u16 · length u32 · number u64 · offset u64 · checksum u64 · check u64    (little endian)

`checksum` is the xxh3_64 of the body, there if the flag CHECKED is set. `check` is the xxh3_64 of the 32 bytes before
it, seeded with the connection's salt plus the count of the records before this one. That count is not sent: a head
that is damaged, lost, repeated, out of its order or another connection's does not match, is never acted upon, and no
damaged length is ever waited for. Both find accidents; whether they also find an enemy is the channel's affair (see
aead.py). Pure: bytes in, heads out.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import NamedTuple, Protocol

from xxhash import xxh3_64_intdigest

Body = bytes | bytearray | memoryview
"""Bytes; a memoryview is contiguous and of bytes (`cast("B")`)."""

KIB = 1024
MAX_CONTROL = 64 * KIB
MAX_PIECE = 4096 * KIB
HEAD_SIZE = 40
CHECKED = 1
"""Flag: `checksum` is that of the body."""

_FIELDS = Struct("<BBHIQQQ")
_CHECK = Struct("<Q")
_MASK = 2**64 - 1


class Kind(IntEnum):
    """What a record is."""

    CONTROL = 1
    """A protobuf message: PushMessage or ReplyMessage."""
    PIECE = 2
    """A part of a tensor, at `offset` of the transfer `number`."""
    LANDED = 3
    """As PIECE, but its bytes travel outside of this connection; `length` and `checksum` are theirs. No body."""
    HEARTBEAT = 4
    """Nothing, so that a silent peer is a lost one."""


_MOST = {Kind.CONTROL: MAX_CONTROL, Kind.PIECE: MAX_PIECE, Kind.LANDED: 2**32 - 1, Kind.HEARTBEAT: 0}
_KINDS = {kind.value: kind for kind in Kind}


class ChannelLost(Exception):
    """The connection is over: a sentence that says why. Nothing more can be sent or received on it."""


class BadRecord(ChannelLost):
    """What came is not a record of this connection. The stream cannot be trusted any more; it has to be closed."""


class BodyDamaged(Exception):
    """A piece's body, read to its end, does not match its checksum. The connection goes on: it can be sent again."""


class Head(NamedTuple):
    """A record's head. `length` is that of the body; of the bytes elsewhere if the kind is LANDED."""

    kind: Kind
    flags: int
    length: int
    number: int
    offset: int
    checksum: int

    def fits(self, data: Body) -> bool:
        """Whether these are the bytes that the head speaks of, as far as its checksum can tell."""
        return len(data) == self.length and (not self.flags & CHECKED or xxh3_64_intdigest(data) == self.checksum)


class Sink(Protocol):
    """The sending end of a connection. Any thread may send, one after the other, and any may cut."""

    @property
    def longest(self) -> int:
        """Bytes of the pieces that cost it least for each byte."""

    def send(self, kind: Kind, body: Body = b"", *, number: int = 0, offset: int = 0, more: bool = False) -> None:
        """The whole record is in the kernel's hands when this returns. `more` says that another one follows at once,
        with which it may travel: until then it may wait here.

        Raises ChannelLost, after which the sink is of no more use, and ValueError for a body that is too long. The
        bytes of a LANDED are not sent, only checksummed.
        """

    def cut(self) -> None:
        """Ends the connection for both sides and wakes whoever waits in it, who meets ChannelLost."""

    def close(self) -> None:
        """Frees the descriptor. Only when no thread is in the sink any more: first `cut`, then join."""


class Source(Protocol):
    """The receiving end of a connection. One thread receives; any may cut."""

    def receive(self) -> Head:
        """The next record's head. Its body, of PIECE and CONTROL, must be taken before the next call.

        Raises ChannelLost, also when the peer was silent for its timeout, and BadRecord.
        """

    def receive_body(self, into: memoryview) -> None:
        """Writes the body straight to its place; `into` has exactly the head's length.

        Raises BodyDamaged when a PIECE came whole but does not match its checksum, ChannelLost, and BadRecord; then
        what `into` holds is not to be used.
        """

    def fileno(self) -> int:
        """The socket's descriptor, for whoever waits beside it for the peer to hang up."""

    def cut(self) -> None: ...

    def close(self) -> None: ...


class HeadWriter:
    """Makes the heads of one connection, in their order."""

    def __init__(self, salt: int) -> None:
        self._salt = salt
        self._count = 0
        self._head = bytearray(HEAD_SIZE)
        self._covered = memoryview(self._head)[: _FIELDS.size]

    def write(self, kind: Kind, body: Body, number: int, offset: int, *, checked: bool) -> bytearray:
        """The head of the next record, valid until the next call. Raises ValueError for a body that is too long."""
        length = len(body)
        if length > _MOST[kind]:
            raise ValueError(f"a {kind.name} of {length} bytes is longer than the {_MOST[kind]} that may be sent")
        checksum = xxh3_64_intdigest(body) if checked else 0
        _FIELDS.pack_into(self._head, 0, kind, CHECKED if checked else 0, 0, length, number, offset, checksum)
        check = xxh3_64_intdigest(self._covered, (self._salt + self._count) & _MASK)
        _CHECK.pack_into(self._head, _FIELDS.size, check)
        self._count += 1
        return self._head


class HeadReader:
    """Reads the heads of one connection, in their order, from `buffer`, which the caller has filled."""

    def __init__(self, salt: int) -> None:
        self._salt = salt
        self._count = 0
        self.buffer = memoryview(bytearray(HEAD_SIZE))
        self._covered = self.buffer[: _FIELDS.size]

    def read(self) -> Head:
        """Raises BadRecord."""
        check = xxh3_64_intdigest(self._covered, (self._salt + self._count) & _MASK)
        if _CHECK.unpack_from(self.buffer, _FIELDS.size)[0] != check:
            raise BadRecord(f"What came after {self._count} records is not the next one of this connection.")
        number_of_kind, flags, zero, length, number, offset, checksum = _FIELDS.unpack_from(self.buffer)
        kind = _KINDS.get(number_of_kind)
        if kind is None or zero or flags & ~CHECKED:
            raise BadRecord(f"A record came whose kind {number_of_kind} or flags {flags} this version does not know.")
        if length > _MOST[kind]:
            raise BadRecord(f"A {kind.name} of {length} bytes came; {_MOST[kind]} are allowed.")
        self._count += 1
        return Head(kind, flags, length, number, offset, checksum)


def sent_length(head: Head) -> int:
    """How many bytes follow the head on the connection."""
    return 0 if head.kind is Kind.LANDED else head.length


def receive_control(source: Source, head: Head) -> bytes:
    """The message of a CONTROL record. Raises what `receive_body` raises."""
    message = bytearray(head.length)
    source.receive_body(memoryview(message))
    return bytes(message)
