"""The dialer: one session an address, kept alive, whatever the name server says."""

from __future__ import annotations

import random
from collections.abc import Callable

import anyio
import pytest

from omni_common.errors import InvalidRequest
from omni_common.rpc.dialer import LAST_DELAY, Backoff, keep_sessions, resolve
from omni_common.rpc.duplex import PeerGone

pytestmark = pytest.mark.anyio


class Names:
    """A name server that says what it is told, and lets a test wait until it was asked again."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = frozenset(addresses)
        self._asked = anyio.Event()

    async def resolve(self, target: str) -> frozenset[str]:
        self._asked.set()
        self._asked = anyio.Event()
        return self.addresses

    async def asked_twice(self) -> None:
        for _ in range(2):  # the first answer may have been under way
            await self._asked.wait()


class Sessions:
    """Sessions that last until a test ends them."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.alive: dict[str, anyio.Event] = {}
        self._changed = anyio.Event()

    async def __call__(self, address: str) -> None:
        assert address not in self.alive, "two sessions to one address"
        self.begun.append(address)
        self.alive[address] = anyio.Event()
        self._change()
        try:
            await self.alive[address].wait()
        finally:
            del self.alive[address]
            self._change()
        raise PeerGone

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


async def test_every_address_gets_one_session_and_an_ended_one_is_begun_again() -> None:
    names, sessions = Names("10.0.0.1:1", "10.0.0.2:1"), Sessions()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: keep_sessions(["a:1", "b:1"], sessions, resolve=names.resolve))
            await sessions.until(lambda: len(sessions.alive) == 2)
            sessions.alive["10.0.0.1:1"].set()
            await sessions.until(lambda: sessions.begun.count("10.0.0.1:1") == 2)
            tasks.cancel_scope.cancel()
    assert sorted(sessions.begun) == ["10.0.0.1:1", "10.0.0.1:1", "10.0.0.2:1"]


async def test_a_new_address_gets_a_session_and_a_vanished_one_keeps_its_own() -> None:
    names, sessions = Names("10.0.0.1:1"), Sessions()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: keep_sessions(["a:1"], sessions, refresh=0.01, resolve=names.resolve))
            await sessions.until(lambda: set(sessions.alive) == {"10.0.0.1:1"})
            names.addresses = frozenset({"10.0.0.2:1"})
            await sessions.until(lambda: "10.0.0.2:1" in sessions.alive)
            assert set(sessions.alive) == {"10.0.0.1:1", "10.0.0.2:1"}
            sessions.alive["10.0.0.1:1"].set()
            await sessions.until(lambda: "10.0.0.1:1" not in sessions.alive)
            names.addresses = frozenset({"10.0.0.2:1", "10.0.0.3:1"})
            await sessions.until(lambda: "10.0.0.3:1" in sessions.alive)
            tasks.cancel_scope.cancel()
    assert sessions.begun == ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]


async def test_an_address_that_comes_back_gets_a_session_again() -> None:
    names, sessions = Names("10.0.0.1:1"), Sessions()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: keep_sessions(["a:1"], sessions, refresh=0.01, resolve=names.resolve))
            await sessions.until(lambda: "10.0.0.1:1" in sessions.alive)
            names.addresses = frozenset()
            await names.asked_twice()
            sessions.alive["10.0.0.1:1"].set()
            await sessions.until(lambda: not sessions.alive)
            names.addresses = frozenset({"10.0.0.1:1"})
            await sessions.until(lambda: "10.0.0.1:1" in sessions.alive)
            tasks.cancel_scope.cancel()
    assert sessions.begun == ["10.0.0.1:1"] * 2


async def test_a_refusal_from_inside_a_task_group_is_tried_again() -> None:
    tries: list[str] = []
    done = anyio.Event()

    async def session(address: str) -> None:
        tries.append(address)
        if len(tries) == 2:
            done.set()
        async with anyio.create_task_group():
            raise InvalidRequest("Contract version 2 is not spoken here.")

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: keep_sessions(["a:1"], session, resolve=Names("10.0.0.1:1").resolve))
            await done.wait()
            tasks.cancel_scope.cancel()


async def test_a_bug_in_a_session_is_not_retried() -> None:
    async def session(address: str) -> None:
        raise ZeroDivisionError

    with anyio.fail_after(10), pytest.raises(BaseExceptionGroup) as raised:
        await keep_sessions(["a:1"], session, resolve=Names("10.0.0.1:1").resolve)
    assert raised.group_contains(ZeroDivisionError)


async def test_addresses_resolve_to_themselves_and_unknown_names_to_nothing() -> None:
    assert await resolve("127.0.0.1:7000") == {"127.0.0.1:7000"}
    assert await resolve("[::1]:7000") == {"[::1]:7000"}
    assert await resolve("localhost:7000") == {"127.0.0.1:7000"}
    assert await resolve("nowhere.invalid:7000") == frozenset()


def test_backoff_doubles_to_its_bound_and_starts_again() -> None:
    backoff = Backoff(random.Random(1))  # noqa: S311  # must repeat itself
    delays = [backoff.next() for _ in range(8)]
    assert all(0.05 * 2**i <= delay <= 0.1 * 2**i for i, delay in enumerate(delays[:5]))
    assert all(LAST_DELAY / 2 <= delay <= LAST_DELAY for delay in delays[5:])
    backoff.reset()
    assert backoff.next() <= 0.1
