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
from omni_relay.wire.pairs import Pair, Pairs
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
    """Where one relay listens. All connections that were made by it are closed with it."""

    def __init__(self, credentials: Credentials, link: Link = LINK) -> None:
        self._credentials = credentials
        self._link = link
        self._threads = ThreadPoolExecutor(4)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[Sink | Source] = []
        self.pairs = Pairs()
        self.port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._threads.shutdown()
        for end in self._ends:
            end.close()

    def beside(self, work: Callable[..., Value], *args: object) -> Future[Value]:
        """In a thread of its own, as the other end of what the test does."""
        return self._threads.submit(work, *args)

    def answer(self, seconds: float = PATIENCE) -> Future[PushAccepted | ReplyAccepted]:
        """To the next connection that comes in."""
        return self.beside(self._answer, seconds)

    def _answer(self, seconds: float) -> PushAccepted | ReplyAccepted:
        sock, _ = self._listener.accept()
        accepted = accept(sock, self._credentials, self._link, self.pairs, Deadline.after(seconds))
        self._ends.append(accepted.source if isinstance(accepted, PushAccepted) else accepted.sink)
        return accepted

    def push(self, credentials: Credentials | None = None, address: str = "") -> tuple[PushDialled, PushAccepted]:
        """A push connection by a client with these credentials; the door's own by default."""
        answer = self.answer()
        to, mine = address or self.address, credentials or self._credentials
        dialled = dial_push(to, mine, self._link, Deadline.after(PATIENCE))
        self._ends.append(dialled.sink)
        accepted = answer.result(PATIENCE)
        assert isinstance(accepted, PushAccepted)
        return dialled, accepted

    def reply(self, pair: Pair) -> tuple[Source, ReplyAccepted]:
        answer = self.answer()
        source = dial_reply(self.address, self._credentials, self._link, pair, Deadline.after(PATIENCE))
        self._ends.append(source)
        accepted = answer.result(PATIENCE)
        assert isinstance(accepted, ReplyAccepted)
        return source, accepted


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
        replied, reply = door.reply(push.pair)
        yield Met(push, pushed, reply, replied)
