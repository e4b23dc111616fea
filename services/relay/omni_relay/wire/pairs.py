"""The two connections of one peer, and how the second is known to be of the same peer as the first."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

MOST = 256
"""Push connections that may wait for their reply connections: as many as there may be connections at all."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A push connection and its reply connection. The id travels, the secret only proves."""

    id: bytes
    secret: bytes = field(repr=False)


class Pairs:
    """Those whose push connection stands and whose reply connection has not come. Any thread."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Pair] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, pair: Pair) -> bool:
        """False when there are too many, or its id is taken."""
        with self._lock:
            if len(self._waiting) >= MOST or pair.id in self._waiting:
                return False
            self._waiting[pair.id] = pair
            return True

    def find(self, identity: bytes) -> Pair | None:
        return self._waiting.get(identity)

    def claim(self, pair: Pair) -> bool:
        """Once per pair: False for all who come later."""
        with self._lock:
            return self._waiting.pop(pair.id, None) is not None

    def forget(self, pair: Pair) -> None:
        """The push connection is gone, or its reply connection came too late."""
        with self._lock:
            self._waiting.pop(pair.id, None)
