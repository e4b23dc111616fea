"""A real Prometheus looks at a real mesh through work and trouble: every panel has something to draw."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
import httpx2
import pytest
from tests.integration.up_process import Up, up
from tests.observability.exempt import NOT_LIVE
from tests.observability.flood import flood
from tests.observability.load import (
    LONG,
    MOST_AT_A_TIME,
    Caller,
    addresses_of,
    chat,
    crowd,
    departures,
    knock,
    refusals,
    rush,
    spoken,
    stopped,
    with_photo,
    work,
    write_keys,
)
from tests.observability.server import Prometheus, prometheus
from tests.observability.written import drawn

from omni_cli.launcher.child import kernel_name
from omni_cli.launcher.state import newest_state

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]

# As of Grafana, for scrapes a second apart.
WINDOW = "10s"
# A rate is between two looks: what has happened once has no rate.
ROUNDS = 3
# Of sixteen processes, most of them stages with their histograms.
MOST_SERIES = 3_000


@dataclass(frozen=True, slots=True)
class World:
    """A mesh, somebody who asks it, and somebody who looks at it."""

    mesh: Up
    caller: Caller
    server: Prometheus

    async def loss(self) -> None:
        """The first stage dies with its place in the arena and under a request, and comes again."""
        async with self.caller.begun(chat(LONG, stream=True)):
            os.kill(self.mesh.children()["echo-split-0"].pid, signal.SIGKILL)
            await self.server.until("sum(omni_failovers_total) > bool 0")
        with anyio.fail_after(40):
            while await self.caller.code(chat(with_photo())) != 200:
                pass

    async def load(self) -> None:
        """Of each kind once."""
        await work(self.caller)
        await crowd(self.caller)
        await refusals(self.caller)
        await rush(self.caller)
        await departures(self.caller)
        await self.strangers()
        await self.hang()

    async def strangers(self) -> None:
        """At each port of a stage and of its relay."""
        children = self.mesh.children()
        for name in ("relay-echo-count-0", "echo-count-0"):
            for address in sorted(addresses_of(children[kernel_name(name)])):
                await knock(address)

    async def hang(self) -> None:
        """A stage that answers no abort, until that has been seen."""
        unanswered = "sum(omni_abort_timeouts_total)"
        before = await self.server.value(unanswered) or 0
        async with stopped(self.mesh.children()["echo-beep-0"]):
            async with self.caller.begun(spoken(LONG)):
                pass
            await self.server.until(f"{unanswered} > bool {before}")


@pytest.fixture(scope="module")
async def world(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    run = tmp_path_factory.mktemp("mesh")
    write_keys(run / "keys.json")
    settings = {
        "OMNI_STAGE_INLINE_LIMIT": "0",
        "OMNI_GATEWAY_API_KEYS": str(run / "keys.json"),
        "OMNI_COORDINATOR_MAX_LIVE_REQUESTS": str(MOST_AT_A_TIME),
    }
    async with up(run, "--apart", "--encryption", "aead", "--arena", "16MiB", settings=settings) as mesh:
        await mesh.ready()
        state = newest_state(run)
        assert state is not None
        url = f"http://127.0.0.1:{mesh.port}"
        async with (
            prometheus(run / "prometheus", state.processes) as server,
            httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30) as http,
        ):
            await server.sees_what_is_now()
            yield World(mesh, Caller(http), server)
        assert await mesh.stop(signal.SIGTERM) == 0


async def test_every_panel_has_something_to_draw(world: World) -> None:
    await world.loss()
    for _ in range(ROUNDS):
        await world.load()
        await world.server.sees_what_is_now()
    await world.server.until("sum(omni_relay_reclaimed_bytes_total) > bool 0")
    await world.server.sees_what_is_now()
    silent = []
    for query in drawn():
        exempt = any(query.name.startswith(prefix) for prefix in NOT_LIVE)
        if not exempt and not await world.server.samples(query.over(WINDOW)):
            silent.append(query.name)
    assert not silent, "\n".join(silent)


async def test_every_rule_can_be_evaluated(world: World) -> None:
    assert not await world.server.broken_rules()


async def test_strangers_do_not_make_series(world: World) -> None:
    """What callers choose is in no label: once each kind has been seen, more of it adds nothing."""
    series = 'count({job="omni"})'
    await flood(world.mesh.port, 500, seed=1)
    await world.server.sees_what_is_now()
    before = await world.server.value(series)
    await flood(world.mesh.port, 9_500, seed=2)
    await world.server.sees_what_is_now()
    after = await world.server.value(series)
    assert before is not None
    assert after is not None
    assert after - before <= 20  # pairs of a route and a code that the first few had not met
    assert after <= MOST_SERIES
