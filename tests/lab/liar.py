"""A relay that knows the token and the words, and says with them whatever a test wants: to see what others believe."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from tests.lab.pods import PATIENCE, STAGE, TOKEN

from omni.relay.v1.peer_pb2 import BeginTransfer, PushMessage
from omni_common.arena.extents import Extent
from omni_common.deadline import Deadline
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_relay.core.choice import Choice, Why
from omni_relay.peers import messages
from omni_relay.peers.messages import FromReceiver, Granted, Hello, Welcome
from omni_relay.wire.connect import PushAccepted, ReplyAccepted, accept, dial_push, dial_reply
from omni_relay.wire.credentials import Credentials
from omni_relay.wire.pairs import Pairs
from omni_relay.wire.record import Body, ChannelLost, Kind, Sink, Source, receive_control
from omni_relay.wire.sockets import Link

_CREDENTIALS = Credentials(token=TOKEN)
_LINK = Link(timeout=10.0)
Reply = TypeVar("Reply")


class LyingPusher:
    """A connection to a relay that is pushed to, past its welcome."""

    def __init__(self, address: str, *, carriers: tuple[str, ...] = ("tcp",), greet: bool = True) -> None:
        deadline = Deadline.after(PATIENCE)
        pushing = dial_push(address, _CREDENTIALS, _LINK, deadline)
        self.sink = pushing.sink
        self.source = dial_reply(address, _CREDENTIALS, _LINK, pushing.pair, deadline)
        if greet:
            self.sink.send(Kind.CONTROL, messages.render_hello("liar:1", carriers))
            self.hears(Welcome)

    def say(self, message: PushMessage) -> None:
        self.sink.send(Kind.CONTROL, message.SerializeToString())

    def want(self, size: int) -> Extent:
        """Asks honestly."""
        message = PushMessage()
        message.want.size = size
        self.say(message)
        return self.hears(Granted).extent

    def begin(self, number: int, extent: int, offset: int, length: int, consumer: str = STAGE) -> None:
        begin = BeginTransfer(number=number, consumer=consumer, extent=extent, offset=offset, length=length)
        begin.transfer.source, begin.transfer.number = 13, number
        begin.key.request_id = "lies"
        begin.remaining.FromSeconds(60)
        self.say(PushMessage(begin=begin))

    def piece(self, number: int, offset: int, data: Body, kind: Kind = Kind.PIECE) -> None:
        self.sink.send(kind, data, number=number, offset=offset)

    def pieces(self, number: int, *parts: tuple[int, int]) -> None:
        """Zeros: at each offset so many."""
        for offset, length in parts:
            self.piece(number, offset, bytes(length))

    def hears(self, kind: type[Reply]) -> Reply:
        """The next reply, which is of that kind."""
        reply = self._hear()
        assert isinstance(reply, kind), reply
        return reply

    def is_cut(self) -> bool:
        """Waits for the end, whatever is said before it. False when it does not come."""
        try:
            while True:
                self._hear()
        except ChannelLost as lost:
            return "nothing" not in str(lost)

    def close(self) -> None:
        self.sink.cut()
        self.source.cut()
        self.sink.close()
        self.source.close()

    def _hear(self) -> FromReceiver:
        while (head := self.source.receive()).kind is Kind.HEARTBEAT:
            pass
        return messages.parse_reply(receive_control(self.source, head))


@contextmanager
def lying_pusher(address: str) -> Iterator[LyingPusher]:
    made = LyingPusher(address)
    try:
        yield made
    finally:
        made.close()


@dataclass
class Caught:
    """A connection of a relay that pushes to a liar."""

    source: Source
    sink: Sink

    def hear(self) -> messages.FromPusher:
        """The next message, past pieces and heartbeats."""
        while (head := self.source.receive()).kind is not Kind.CONTROL:
            if head.kind is Kind.PIECE:
                self.source.receive_body(memoryview(bytearray(head.length)))
        return messages.parse_push(receive_control(self.source, head), 0.0)

    def say(self, reply: FromReceiver) -> None:
        self.sink.send(Kind.CONTROL, messages.render_reply(reply))

    def is_cut(self) -> bool:
        try:
            while True:
                self.hear()
        except ChannelLost as lost:
            return "nothing" not in str(lost)


class LyingReceiver:
    """Listens as a relay does; a test plays what it answers, beside itself, once for each connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._ends: list[Sink | Source] = []

    def welcome(self, welcome: Welcome | None = None) -> Caught:
        """Takes the next connection, and welcomes it honestly unless told otherwise."""
        pairs = Pairs()
        push = self._accept(pairs)
        reply = self._accept(pairs)
        assert isinstance(push, PushAccepted)
        assert isinstance(reply, ReplyAccepted)
        self._ends += [push.source, reply.sink]
        caught = Caught(push.source, reply.sink)
        assert isinstance(caught.hear(), Hello)
        caught.say(welcome or Welcome(CONTRACT_VERSION, Choice("tcp", Why.PREFERRED), b""))
        return caught

    def close(self) -> None:
        self._listener.close()
        for end in self._ends:
            end.cut()
            end.close()

    def _accept(self, pairs: Pairs) -> PushAccepted | ReplyAccepted:
        self._listener.settimeout(PATIENCE)
        sock, _ = self._listener.accept()
        return accept(sock, _CREDENTIALS, _LINK, pairs, Deadline.after(PATIENCE))


@contextmanager
def lying_receiver() -> Iterator[LyingReceiver]:
    made = LyingReceiver()
    try:
        yield made
    finally:
        made.close()
