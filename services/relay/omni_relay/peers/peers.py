"""The relay's side towards other pods: pushes go out, and what others push comes in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from omni_common.address import join_host_port
from omni_common.clock import Clock, monotonic
from omni_common.deadline import Deadline
from omni_common.errors import Overloaded
from omni_relay.peers.carriers.registry import AUTO, CARRIERS, TCP, Carriers
from omni_relay.peers.listener import Listener, listen
from omni_relay.peers.outbound import Outbound
from omni_relay.peers.way import Way
from omni_relay.ports import Consumers, PushOrder, PushResult, Space, Transfer
from omni_relay.wire.credentials import Credentials
from omni_relay.wire.sockets import Link

# Relays that this one pushes to at a time; a mesh has one for each pod.
MAX_PEERS = 1024


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """`bind` is where to listen (port 0 takes a free one), `advertise` the host under which other pods reach that.
    `heartbeat` in seconds; `link.timeout` is how long a peer may be silent. `carriers` are the modules that there are
    for the names in `transports`."""

    bind: tuple[str, int]
    advertise: str
    credentials: Credentials
    link: Link = field(default_factory=Link)
    heartbeat: float = 1.0
    transports: Sequence[str] = (AUTO,)
    carriers: Mapping[str, str] = field(default_factory=lambda: CARRIERS)


class Peers:
    """All other relays. Implements ports.Pushers; any thread.

    Its threads end the process if they meet what nobody expects: threading.excepthook hears of it. Raises OSError when
    it cannot listen.
    """

    def __init__(
        self, settings: PeerSettings, arena: memoryview, space: Space, consumers: Consumers, clock: Clock = monotonic
    ) -> None:
        carriers = Carriers(
            settings.transports,
            settings.credentials.mode,
            arena,
            timeout=settings.link.timeout,
            clock=clock,
            known=settings.carriers,
        )
        listening = listen(settings.bind)
        self.address = join_host_port(settings.advertise, listening.getsockname()[1])
        """host:port where other relays reach this one."""
        self._way = Way(
            address=self.address,
            credentials=settings.credentials,
            link=settings.link,
            heartbeat=settings.heartbeat,
            carriers=carriers,
            arena=arena,
            space=space,
            consumers=consumers,
            clock=clock,
        )
        self._listener = Listener(listening, self._way)
        self._lock = threading.Lock()
        self._outbound: dict[str, Outbound] = {}

    @property
    def pushes(self) -> int:
        """Pushes that have not ended."""
        with self._lock:
            return sum(outbound.live for outbound in self._outbound.values())

    @property
    def connections(self) -> int:
        """Sockets on which other relays push here."""
        return self._listener.connections

    def start(self) -> None:
        """Other relays are let in from now on."""
        self._listener.start()

    def submit(self, order: PushOrder, ended: Callable[[PushResult], None]) -> None:
        """See ports.Pushers. May block while a tensor of up to a piece is taken by the kernel, for `link.timeout` at
        the very most."""
        if (outbound := self._to(order.to)) is not None:
            outbound.submit(order, ended)
        else:
            ended(PushResult(Overloaded("Tensors go to too many pods."), self._way.carriers.label(TCP)))

    def cancel(self, transfer: Transfer) -> None:
        """See ports.Pushers."""
        for outbound in self._all():
            outbound.cancel(transfer)

    def tick(self, now: float) -> None:
        """To be called several times a second: deadlines are kept, idle space and connections given up."""
        for outbound in self._all():
            outbound.tick(now)
        self._listener.tick(now)
        with self._lock:
            for address in [name for name, outbound in self._outbound.items() if outbound.dormant(now)]:
                del self._outbound[address]

    def close(self, deadline: Deadline) -> None:
        """Ends all pushes and cuts all connections; threads that have not noticed by the deadline are left behind."""
        threads = [outbound.close() for outbound in self._all()]
        self._listener.close(deadline)
        for thread in threads:
            if thread is not None:
                thread.join(deadline.remaining)

    def _to(self, address: str) -> Outbound | None:
        with self._lock:
            outbound = self._outbound.get(address)
            if outbound is None and len(self._outbound) < MAX_PEERS:
                outbound = self._outbound[address] = Outbound(address, self._way)
            if outbound is not None:
                outbound.touch()
            return outbound

    def _all(self) -> list[Outbound]:
        with self._lock:
            return list(self._outbound.values())
