"""A relay that pushes has connected: its greeting, its connection's work, and what is left when that ends."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.telemetry import names
from omni_relay.core.choice import Choice
from omni_relay.core.misbehaviour import Misbehaved
from omni_relay.peers import messages
from omni_relay.peers.carriers.carrier import CarrierFailed, CatchCarrier
from omni_relay.peers.catching import Catching
from omni_relay.peers.messages import Hello, Welcome
from omni_relay.peers.meters import IN
from omni_relay.peers.replies import Replies
from omni_relay.peers.way import Way
from omni_relay.watched import start_thread
from omni_relay.wire.record import BadRecord, ChannelLost, Kind, Sink, Source, receive_control

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lines:
    """`peer` says who it is, for logs; `name` is the connection's own in this life of the relay."""

    name: str
    peer: str
    source: Source
    sink: Sink


class Inbound:
    """One connection, from its hello to its end."""

    def __init__(self, lines: Lines, way: Way) -> None:
        self._lines = lines
        self._way = way
        self._replies = Replies(lines.sink, way.heartbeat, way.clock)

    def run(self) -> None:
        """Serves it until it is over. The thread that calls this is the one that reads."""
        speaker = start_thread(f"replies to {self._lines.peer}", self._speak)
        try:
            self._serve()
        except Misbehaved as error:
            self._cut_off("misbehaved", f"It {error}.")
        except BadRecord as error:
            self._cut_off("bad_record", str(error))
        except ChannelLost as error:
            logger.info("a relay's connection ended", extra={"peer": self._lines.peer, "why": str(error)})
        finally:
            self.cut()
            speaker.join()  # no deadline: its line is cut
            self._lines.source.close()
            self._replies.close()

    def cut(self) -> None:
        """Ends it soon. Any thread."""
        self._lines.source.cut()
        self._replies.cut()

    def _cut_off(self, reason: str, why: str) -> None:
        names.RELAY_REFUSED_PEERS.labels(reason).inc()
        logger.warning("a relay was cut off", extra={"peer": self._lines.peer, "why": why})

    def _speak(self) -> None:
        try:
            self._replies.run()
        except ChannelLost:
            self.cut()

    def _serve(self) -> None:
        hello = self._hello()
        choice, carrier = self._choose(hello)
        self._welcome(choice, carrier.details)
        transport = self._way.carriers.label(choice.carrier)
        about = {"peer": self._lines.peer, "address": hello.address, "transport": transport, "reason": choice.why}
        logger.info("a relay has connected", extra=about)
        peers = names.RELAY_PEERS.labels(IN, transport, choice.why)
        peers.inc()
        try:
            Catching(self._lines.name, self._lines.source, self._replies, carrier, transport, self._way).run()
        except CarrierFailed as error:
            self._way.carriers.failed(choice.carrier, hello.address)
            raise ChannelLost(f"The carrier {error}.") from error
        finally:
            peers.dec()

    def _hello(self) -> Hello:
        head = self._lines.source.receive()
        if head.kind is not Kind.CONTROL:
            raise BadRecord(f"A {head.kind.name} came before the hello.")
        hello = messages.parse_push(receive_control(self._lines.source, head), self._way.clock())
        if not isinstance(hello, Hello):
            raise Misbehaved("said something else before its hello")
        if hello.version != CONTRACT_VERSION:
            self._welcome(None)
            raise Misbehaved(f"speaks version {hello.version} of the contract, not {CONTRACT_VERSION}")
        return hello

    def _choose(self, hello: Hello) -> tuple[Choice, CatchCarrier]:
        """The carrier of this connection, and its end of it. One that cannot be made makes way for the next."""
        carriers = self._way.carriers
        while (choice := carriers.choose(hello.carriers, hello.address)) is not None:
            try:
                return choice, carriers.catch(choice.carrier)
            except CarrierFailed:
                carriers.failed(choice.carrier, hello.address)
        self._welcome(None)
        raise ChannelLost("It offers no transport that this relay can use.")

    def _welcome(self, choice: Choice | None, details: bytes = b"") -> None:
        self._replies.send(messages.render_reply(Welcome(CONTRACT_VERSION, choice, details)))
