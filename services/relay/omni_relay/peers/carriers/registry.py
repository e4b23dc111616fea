"""Which carriers this relay can use, with whom, and which of them a new connection takes."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Protocol, cast

from omni_common.clock import Clock
from omni_common.telemetry.names import Transport
from omni_relay.core.choice import Choice, choose
from omni_relay.peers.carriers.carrier import CarrierFailed, CatchCarrier, PushCarrier
from omni_relay.wire.credentials import Mode

logger = logging.getLogger(__name__)

CARRIERS: Mapping[str, str] = {
    "tcp": "omni_relay.peers.carriers.tcp",
    "ucx": "omni_relay.peers.carriers.ucx",
    "nixl": "omni_relay.peers.carriers.nixl",
}
"""The last resort is tcp, whose pieces travel in the connection's own records, protected as those are. The others
neither authenticate nor encrypt, so only an operator who names them gets them."""

TCP = "tcp"
AUTO = "auto"

# Seconds for which a carrier that failed between two relays is not tried again.
PAUSE = 60.0

# Pairs of carrier and peer that are remembered; above it the oldest is forgotten, and tried again too early.
_MAX_FAILED = 1024

_TCP_AS: Mapping[Mode, Transport] = {Mode.NONE: Transport.TCP, Mode.TLS: Transport.TLS, Mode.AEAD: Transport.AEAD}


class _Module(Protocol):
    def available(self, arena: memoryview | None = None) -> str | None: ...

    def Catch(self, arena: memoryview, timeout: float) -> CatchCarrier: ...

    def Push(self, arena: memoryview, details: bytes, timeout: float) -> PushCarrier: ...


class Carriers:
    """The carriers of one relay. Any thread.

    `wanted` is the setting TRANSPORTS: names in the order of preference; "auto" is tcp, which is always the last.
    `timeout` in seconds is how long one piece may take.
    """

    def __init__(
        self,
        wanted: Sequence[str],
        mode: Mode,
        arena: memoryview,
        *,
        timeout: float,
        clock: Clock,
        known: Mapping[str, str] = CARRIERS,
    ) -> None:
        self._known = known
        self._mode = mode
        self._arena = arena
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: dict[tuple[str, str], float] = {}
        self._modules = {name: module for name in _order(wanted) if (module := self._load(name)) is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """Those that work here, the preferred one first."""
        return tuple(self._modules)

    def label(self, name: str) -> Transport:
        """As metrics and results name it."""
        return _TCP_AS[self._mode] if name == TCP else Transport(name)

    def offer(self, peer: str) -> list[str]:
        """What to offer to a relay: not what has just failed with it."""
        failed = self._failed_with(peer)
        return [name for name in self._modules if name not in failed]

    def choose(self, offered: Sequence[str], peer: str) -> Choice | None:
        """The answer to an offer; None when nothing of it works here."""
        return choose(offered, self._modules, self._failed_with(peer))

    def failed(self, name: str, peer: str) -> None:
        """Leaves a carrier out between these two for a while; tcp never."""
        if name == TCP:
            return
        logger.warning("a carrier failed", extra={"carrier": name, "peer": peer})
        with self._lock:
            self._failed.pop((name, peer), None)
            self._failed[name, peer] = self._clock() + PAUSE
            if len(self._failed) > _MAX_FAILED:
                del self._failed[next(iter(self._failed))]

    def has_failed(self, peer: str) -> bool:
        """Whether any is left out with that relay just now."""
        return bool(self._failed_with(peer))

    def catch(self, name: str) -> CatchCarrier:
        """The receiver's end of a connection. Raises CarrierFailed."""
        return self._modules[name].Catch(self._arena, self._timeout)

    def push(self, name: str, details: bytes) -> PushCarrier:
        """The pusher's end. Raises CarrierFailed, also for one that was not offered."""
        if name not in self._modules:
            raise CarrierFailed(f"'{name}' was chosen by the other relay and is not known here")
        return self._modules[name].Push(self._arena, details, self._timeout)

    def _failed_with(self, peer: str) -> set[str]:
        now = self._clock()
        with self._lock:
            return {name for (name, of), until in self._failed.items() if of == peer and until > now}

    def _load(self, name: str) -> _Module | None:
        why = self._unusable(name)
        if why is None:
            module = cast("_Module", importlib.import_module(self._known[name]))
            why = module.available(self._arena)
            if why is None:
                return module
        logger.warning("a transport cannot be used", extra={"transport": name, "why": why})
        return None

    def _unusable(self, name: str) -> str | None:
        if name not in self._known:
            return f"there is none of that name; there are {', '.join(self._known)}"
        if name != TCP and self._mode is not Mode.NONE:
            return f"its bytes would not be protected, and ENCRYPTION is '{self._mode}'"
        return None if find_spec(self._known[name]) else "it is not part of this installation"


def _order(wanted: Sequence[str]) -> list[str]:
    """Each once, tcp last unless it was named earlier."""
    names = [TCP if name == AUTO else name for name in wanted]
    return list(dict.fromkeys([*names, TCP]))
