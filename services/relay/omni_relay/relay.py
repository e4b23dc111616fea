"""The relay: the pod's memory, its stages, and the relays of other pods, put together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from omni_common.arena import ArenaReader, HoldTable, HoldTables
from omni_common.arena.memory import Arena
from omni_common.clock import Clock, monotonic
from omni_common.deadline import Deadline
from omni_common.lifecycle import CannotStart
from omni_relay.core.shares import Bounds
from omni_relay.folder import PodFolder
from omni_relay.ledger import Ledger
from omni_relay.peers import Peers, PeerSettings
from omni_relay.ports import Consumers, Pushers, Space
from omni_relay.settings import RelaySettings
from omni_relay.space import ArenaSpace
from omni_relay.stages.server import StageServer
from omni_relay.stages.session import Pod
from omni_relay.wire.credentials import load_credentials
from omni_relay.wire.sockets import Link

logger = logging.getLogger(__name__)

# Seconds between two looks for the holds of processes that have died.
_SWEEP = 5.0


class OtherPods(Pushers, Protocol):
    """The relays of other pods: what `peers.Peers` is."""

    @property
    def address(self) -> str:
        """host:port where they reach this one."""

    def start(self) -> None: ...

    def tick(self, now: float) -> None: ...

    def close(self, deadline: Deadline) -> None: ...


Dial = Callable[[Arena, Space, Consumers], OtherPods]


class Relay:
    """All threads but the one that builds, ticks and stops it are started here or below.

    Raises CannotStart where the folder, the settings or the port forbid it.
    """

    def __init__(self, settings: RelaySettings, dial: Dial | None = None, clock: Clock = monotonic) -> None:
        """`dial` makes the other side, if not out of the settings."""
        self._clock = clock
        dial = dial or other_pods(settings, clock)
        self._folder = PodFolder(settings.folder)
        self._tables = HoldTables(settings.folder)
        self._sweep = clock()
        arena, self._space = self._make_space(settings)
        self._stages = StageServer(settings.folder)
        self._peers = dial(arena, self._space, self._stages)
        self._pod = Pod(
            arena=arena,
            space=self._space,
            reader=ArenaReader(arena, HoldTable.create(settings.folder, "relay"), clock),
            memory=arena.view.toreadonly(),
            pushers=self._peers,
            address=self._peers.address,
            clock=clock,
        )

    @property
    def address(self) -> str:
        """host:port where other relays reach this one."""
        return self._peers.address

    @property
    def idle(self) -> bool:
        """No push of this pod's stages is under way."""
        return not self._pod.under_way

    @property
    def draining(self) -> bool:
        return self._pod.draining

    def start(self) -> None:
        """Takes stages and other relays from now on."""
        self._peers.start()
        self._stages.start(self._pod)

    def tick(self) -> None:
        """To be called four times a second, by one thread."""
        now = self._clock()
        self._space.tick()
        self._stages.tick()
        self._peers.tick(now)
        if now >= self._sweep:
            self._sweep = now + _SWEEP
            self._tables.remove_dead()

    def drain(self) -> None:
        """Takes no more pushes; those under way go on."""
        self._pod.draining = True

    def stop(self, deadline: Deadline) -> None:
        """Ends everything. Where stages are still connected their memory stays, for the next life to adopt."""
        self._peers.close(deadline)
        if self._stages.stop(deadline.remaining):
            self._folder.clear()
        self._pod.reader.close()
        self._tables.close()
        self._folder.unlock()

    def _make_space(self, settings: RelaySettings) -> tuple[Arena, ArenaSpace]:
        size = int(settings.arena_size)
        if (adopted := self._folder.adopt(size)) is not None:
            try:
                space = self._space_of(*adopted, settings)
            except ValueError as error:
                logger.warning("the arena of a former life is not sound", extra={"why": str(error)})
            else:
                logger.info("the arena is adopted", extra={"extents": len(adopted[1].grants())})
                return adopted[0], space
        arena, ledger = self._folder.create(size)
        logger.info("the arena is made", extra={"bytes": arena.size})
        return arena, self._space_of(arena, ledger, settings)

    def _space_of(self, arena: Arena, ledger: Ledger, settings: RelaySettings) -> ArenaSpace:
        bounds = Bounds(arena.size, int(settings.extent_size), settings.inbound)
        return ArenaSpace(arena, ledger, bounds, self._tables, self._clock)


def other_pods(settings: RelaySettings, clock: Clock) -> Dial:
    """The relays of other pods as the settings have them. Raises CannotStart where these leave the port open to all."""
    host, port = _host_and_port(settings.bind)
    credentials = load_credentials(
        settings.encryption,
        token_file=settings.token_file,
        cert=settings.tls_cert,
        key=settings.tls_key,
        ca=settings.tls_ca,
        peer_names=settings.tls_peer_names,
    )
    if credentials.open_to_all:
        if not _is_loopback(host):
            raise CannotStart("Without TLS a relay that other machines reach needs a TOKEN_FILE.")
        logger.warning("whoever is on this machine may push here: there is neither a token nor TLS")
    if not settings.advertise and host in _ANYWHERE:
        raise CannotStart(f"BIND is '{settings.bind}', which says no host: name the pod's address as ADVERTISE.")
    peers = PeerSettings(
        bind=(host, port),
        advertise=settings.advertise or host,
        credentials=credentials,
        link=Link(
            timeout=settings.peer_timeout.total_seconds(),
            congestion=settings.congestion,
            checksums=settings.checksums,
        ),
        heartbeat=settings.heartbeat.total_seconds(),
        transports=settings.transports,
    )

    def dial(arena: Arena, space: Space, consumers: Consumers) -> OtherPods:
        try:
            return Peers(peers, arena.view, space, consumers, clock)
        except OSError as error:
            raise CannotStart(f"The relay cannot listen on {settings.bind}: {error.strerror}.") from error

    return dial


_ANYWHERE = {"", "0.0.0.0", "::"}  # noqa: S104  # compared with, not bound to


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


def _host_and_port(bind: str) -> tuple[str, int]:
    """Raises CannotStart for what is no host:port; an IPv6 host stands in brackets."""
    host, colon, port = bind.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise CannotStart(f"BIND is '{bind}', which is no host:port.")
    return host.removeprefix("[").removesuffix("]"), int(port)
