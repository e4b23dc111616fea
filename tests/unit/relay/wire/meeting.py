"""Two relays that meet over loopback TCP."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from omni_common.deadline import Deadline
from omni_relay.wire.connect import PushAccepted, PushDialled, ReplyAccepted, accept, dial_push, dial_reply
from omni_relay.wire.credentials import Credentials
from omni_relay.wire.pairs import Pairs
from omni_relay.wire.record import Sink, Source
from omni_relay.wire.sockets import Link

TOKEN = b"a token that nobody guesses"
LINK = Link(timeout=20.0)
PATIENCE = 20.0
"""Seconds: what no test gets near unless something hangs."""

Value = TypeVar("Value")


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that look random and are the same in every run."""
    return Random(size * 1000 + seed).randbytes(size)  # noqa: S311  # not a secret


class Door:
    """Where one relay listens. What it answers is the future's result."""

    def __init__(self, credentials: Credentials, link: Link = LINK) -> None:
        self._credentials = credentials
        self._link = link
        self._threads = ThreadPoolExecutor(4)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.pairs = Pairs()
        self.port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._threads.shutdown()

    def answer(self, seconds: float = PATIENCE) -> Future[PushAccepted | ReplyAccepted]:
        return self.beside(self._answer, seconds)

    def beside(self, work: Callable[..., Value], *args: object) -> Future[Value]:
        """In a thread of its own, as the other end of what the test does."""
        return self._threads.submit(work, *args)

    def _answer(self, seconds: float) -> PushAccepted | ReplyAccepted:
        sock, _ = self._listener.accept()
        return accept(sock, self._credentials, self._link, self.pairs, Deadline.after(seconds))

    def push(self, credentials: Credentials | None = None) -> tuple[PushDialled, PushAccepted]:
        answer = self.answer()
        dialled = dial_push(self.address, credentials or self._credentials, self._link, Deadline.after(PATIENCE))
        accepted = answer.result(PATIENCE)
        assert isinstance(accepted, PushAccepted)
        return dialled, accepted


@dataclass(frozen=True)
class Met:
    """Both ends of both connections."""

    push: PushDialled
    pushed: PushAccepted
    reply: ReplyAccepted
    replied: Source

    @property
    def directions(self) -> tuple[tuple[Sink, Source], ...]:
        return (self.push.sink, self.pushed.source), (self.reply.sink, self.replied)


@contextmanager
def meeting(credentials: Credentials, link: Link = LINK) -> Iterator[Met]:
    """A whole pair; all of it is closed afterwards."""
    with Door(credentials, link) as door:
        push, pushed = door.push()
        answer = door.answer()
        replied = dial_reply(door.address, credentials, link, push.pair, Deadline.after(PATIENCE))
        reply = answer.result(PATIENCE)
        assert isinstance(reply, ReplyAccepted)
        try:
            yield Met(push, pushed, reply, replied)
        finally:
            for end in (push.sink, pushed.source, reply.sink, replied):
                end.close()
