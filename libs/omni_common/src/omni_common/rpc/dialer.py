"""Keeps one session to every address behind some names, for as long as the caller lives.

A name may stand for many peers (a headless Service) and change: names are resolved again every few seconds, a new
address gets a session, one that is gone keeps its session until that ends by itself, since a name server's slip must
not cut live requests.
"""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Awaitable, Callable, Sequence

import anyio
import anyio.abc

from omni_common.clock import Clock, monotonic
from omni_common.errors import OmniError

logger = logging.getLogger(__name__)

Session = Callable[[str], Awaitable[None]]
Resolve = Callable[[str], Awaitable[frozenset[str]]]

FIRST_DELAY = 0.1
LAST_DELAY = 2.0


class Backoff:
    """Seconds to wait before the next try: doubling from 0.1 to 2, each jittered so that peers do not come together."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()  # noqa: S311  # spreads load, guards nothing
        self._delay = FIRST_DELAY

    def reset(self) -> None:
        self._delay = FIRST_DELAY

    def next(self) -> float:
        delay, self._delay = self._delay, min(LAST_DELAY, self._delay * 2)
        return delay * self._rng.uniform(0.5, 1.0)


async def resolve(target: str) -> frozenset[str]:
    """The addresses of host:port, as host:port; none when the name does not resolve (yet).

    Of a name with both families only IPv4 counts: they lead to the same peer, which must not get two sessions.
    """
    host, _, port = target.rpartition(":")
    try:
        found = await anyio.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        logger.debug("name does not resolve", extra={"target": target})
        return frozenset()
    v4 = {f"{at[0]}:{at[1]}" for family, *_, at in found if family == socket.AF_INET}
    v6 = {f"[{at[0]}]:{at[1]}" for family, *_, at in found if family == socket.AF_INET6}
    return frozenset(v4 or v6)


class _Sessions:
    def __init__(self, tasks: anyio.abc.TaskGroup, session: Session, clock: Clock) -> None:
        self._tasks = tasks
        self._session = session
        self._clock = clock
        self._kept: set[str] = set()
        self._wanted: frozenset[str] = frozenset()

    def want(self, addresses: frozenset[str]) -> None:
        self._wanted = addresses
        for address in sorted(addresses - self._kept):
            self._kept.add(address)
            self._tasks.start_soon(self._keep, address)

    async def _keep(self, address: str) -> None:
        backoff = Backoff()
        while address in self._wanted:
            began = self._clock()
            try:
                await self._session(address)
            except* OmniError as errors:
                logger.info("session ended", extra={"peer": address, "why": _first(errors).message})
            if self._clock() - began > LAST_DELAY:
                backoff.reset()
            await anyio.sleep(backoff.next())
        self._kept.discard(address)


def _first(errors: BaseExceptionGroup[OmniError]) -> OmniError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def keep_sessions(
    targets: Sequence[str],
    session: Session,
    *,
    refresh: float = 3.0,
    clock: Clock = monotonic,
    resolve: Resolve = resolve,
) -> None:
    """Runs `session(address)` for every address of `targets`, one at a time per address, until cancelled.

    A session that returns or raises an OmniError is started again after a while; anything else it raises is a bug
    and ends the caller.
    """
    async with anyio.create_task_group() as tasks:
        sessions = _Sessions(tasks, session, clock)
        while True:
            addresses: set[str] = set()
            for target in targets:
                addresses |= await resolve(target)
            sessions.want(frozenset(addresses))
            await anyio.sleep(refresh)
