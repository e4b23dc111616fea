"""What all connections of one relay share: who it is, how it connects, where its tensors lie."""

from __future__ import annotations

from dataclasses import dataclass

from omni_common.clock import Clock
from omni_relay.peers.carriers.registry import Carriers
from omni_relay.ports import Consumers, Space
from omni_relay.wire.credentials import Credentials
from omni_relay.wire.sockets import Link


@dataclass(frozen=True, slots=True)
class Way:
    """`address` is where other relays reach this one; `heartbeat` is in seconds, as is `link.timeout`, after which a
    silent peer is lost. `arena` is all of the arena, to be written."""

    address: str
    credentials: Credentials
    link: Link
    heartbeat: float
    carriers: Carriers
    arena: memoryview
    space: Space
    consumers: Consumers
    clock: Clock
