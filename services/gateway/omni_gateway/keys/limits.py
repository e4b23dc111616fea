"""How much each key has used: a bucket of requests that fills up again in a minute, and the requests under way. Pure.

A key may use its whole minute at once and then waits for single requests to come back. A refused request costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from omni_gateway.keys.ring import Key

_MINUTE = 60.0
# What sums of floats lose: without it a key would wait once more after the time that it was told.
_NEARLY = 1e-6


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a key's minute; `reset` is the seconds until all of it is back."""

    limit: int
    remaining: int
    reset: float


@dataclass(frozen=True, slots=True)
class Refused:
    """Which limit is used up, in words and as a label, and after how many seconds it is worth another try."""

    limit: str
    message: str
    wait: float
    allowance: Allowance | None


@dataclass(slots=True)
class _Use:
    left: float
    at: float
    live: int = 0


class Limits:
    """Holds an entry for each key that was used and is still there, and for those with requests under way."""

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}

    def __len__(self) -> int:
        return len(self._uses)

    def enter(self, key: Key, now: float) -> Allowance | Refused | None:
        """Counts a request that begins; after anything but Refused, `leave` counts its end. None: unlimited."""
        use = self._uses.setdefault(key.name, _Use(float(key.requests_per_minute or 0), now))
        allowance = _refill(use, key.requests_per_minute, now)
        if key.concurrent_requests is not None and use.live >= key.concurrent_requests:
            message = f"This key has {use.live} requests under way, as many as it may."
            return Refused("concurrent_requests", message, 1.0, allowance)
        if key.requests_per_minute is not None:
            if use.left < 1 - _NEARLY:
                wait = (1 - use.left) * _MINUTE / key.requests_per_minute
                message = f"This key may make {key.requests_per_minute} requests a minute and has made them."
                return Refused("requests_per_minute", message, wait, allowance)
            use.left -= 1
            allowance = _refill(use, key.requests_per_minute, now)
        use.live += 1
        return allowance

    def leave(self, key: Key) -> None:
        self._uses[key.name].live -= 1

    def keep(self, names: Iterable[str]) -> None:
        """Forgets all other keys, but for those with requests under way."""
        kept = set(names)
        self._uses = {name: use for name, use in self._uses.items() if name in kept or use.live}


def _refill(use: _Use, limit: int | None, now: float) -> Allowance | None:
    """Brings the bucket up to date, also when its size has changed."""
    if limit is None:
        return None
    use.left = min(float(limit), use.left + max(0.0, now - use.at) * limit / _MINUTE)
    use.at = now
    return Allowance(limit, int(use.left + _NEARLY), (limit - use.left) * _MINUTE / limit)
