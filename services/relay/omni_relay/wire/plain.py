"""Records as they are, on a line that protects them (tls.py) or one that does not.

On a bare line nothing is secret, and the checks find accidents, not a person who writes into the connection; who may
open one at all is the handshake's affair.
"""

from __future__ import annotations

import threading

from omni_relay.wire.line import Line
from omni_relay.wire.record import (
    CHECKED,
    MAX_PIECE,
    BadRecord,
    Body,
    BodyDamaged,
    Head,
    HeadReader,
    HeadWriter,
    Kind,
    sent_length,
)


class PlainSink:
    """The sending end; see record.Sink. `checked` are the kinds whose bodies get a checksum."""

    longest = MAX_PIECE

    def __init__(self, line: Line, salt: int, checked: frozenset[Kind]) -> None:
        self._line = line
        self._checked = checked
        self._heads = HeadWriter(salt)
        self._turn = threading.Lock()

    def send(self, kind: Kind, body: Body = b"", *, number: int = 0, offset: int = 0, more: bool = False) -> None:
        with self._turn:
            head = self._heads.write(kind, body, number, offset, checked=kind in self._checked)
            self._line.write(head, b"" if kind is Kind.LANDED else body, more=more)

    def cut(self) -> None:
        self._line.cut()

    def close(self) -> None:
        self._line.close()


class PlainSource:
    """The receiving end; see record.Source."""

    def __init__(self, line: Line, salt: int) -> None:
        self._line = line
        self._heads = HeadReader(salt)
        self._head: Head | None = None

    def receive(self) -> Head:
        self._line.read(self._heads.buffer)
        self._head = head = self._heads.read()
        return head

    def receive_body(self, into: memoryview) -> None:
        head = self._head
        if head is None or len(into) != sent_length(head):
            raise ValueError(f"{len(into)} bytes are no place for the body of {head}")
        self._head = None
        if into:
            self._line.read(into)
        if head.flags & CHECKED and not head.fits(into):
            if head.kind is Kind.PIECE:
                raise BodyDamaged("A piece does not match its checksum.")
            raise BadRecord("A message does not match its checksum.")

    def fileno(self) -> int:
        return self._line.fileno()

    def cut(self) -> None:
        self._line.cut()

    def close(self) -> None:
        self._line.close()
