"""How a relay opens a connection to another one: both lines, the words of greeting, and the carrier of its pieces."""

from __future__ import annotations

from contextlib import ExitStack

from omni_common.deadline import Deadline
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_relay.core.choice import Why
from omni_relay.core.misbehaviour import Misbehaved
from omni_relay.peers import messages
from omni_relay.peers.carriers.carrier import CarrierFailed, PushCarrier
from omni_relay.peers.messages import Welcome
from omni_relay.peers.pushing import Lines
from omni_relay.peers.way import Way
from omni_relay.wire.connect import dial_push, dial_reply
from omni_relay.wire.record import BadRecord, ChannelLost, Kind, Source, receive_control


def dial(address: str, way: Way) -> Lines:
    """Opens a connection to the relay at host:port. Raises ChannelLost, Misbehaved, CarrierFailed."""
    deadline = Deadline.after(way.link.timeout, way.clock)
    with ExitStack() as opened:
        pushing = dial_push(address, way.credentials, way.link, deadline)
        opened.callback(pushing.sink.close)
        source = dial_reply(address, way.credentials, way.link, pushing.pair, deadline)
        opened.callback(source.close)
        pushing.sink.send(Kind.CONTROL, messages.render_hello(way.address, way.carriers.offer(address)))
        welcome = _welcome(source, deadline)
        carrier, name, why = _carrier(welcome, address, way)
        opened.pop_all()
        return Lines(address, pushing.sink, source, carrier, name, why)


def _welcome(source: Source, deadline: Deadline) -> Welcome:
    """The first word of the other relay, but for heartbeats."""
    while (head := source.receive()).kind is Kind.HEARTBEAT:
        if deadline.passed:
            raise ChannelLost("The other relay did not welcome this one in time.")
    if head.kind is not Kind.CONTROL:
        raise BadRecord(f"A {head.kind.name} came before the welcome.")
    welcome = messages.parse_reply(receive_control(source, head))
    if not isinstance(welcome, Welcome):
        raise Misbehaved("said something else before its welcome")
    if welcome.version != CONTRACT_VERSION:
        raise Misbehaved(f"speaks version {welcome.version} of the contract, not {CONTRACT_VERSION}")
    return welcome


def _carrier(welcome: Welcome, address: str, way: Way) -> tuple[PushCarrier, str, Why]:
    if welcome.choice is None:
        raise ChannelLost("The other relay can use none of the transports that this one offers.")
    name, why = welcome.choice.carrier, welcome.choice.why
    if way.carriers.has_failed(address):
        why = Why.FALLBACK
    try:
        return way.carriers.push(name, welcome.details), name, why
    except CarrierFailed:
        way.carriers.failed(name, address)
        raise
