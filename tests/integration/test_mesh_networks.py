"""The echo pipeline in two pods while requests are answered, and the network between them is harmed, or relays die."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.integration.mesh import Layout, Mesh, mesh, say
from tests.integration.mesh_requests import ask, ended
from tests.integration.test_mesh_relays import Since
from tests.lab.proxy import Proxy, proxy

from omni_common.errors import SURFACE, OmniError, Reason
from omni_common.request import Media, Modality, TerminalResult

pytestmark = pytest.mark.anyio

MARK = b"a mark that a proxy finds in a tensor"
FILE = Media(Modality.AUDIO, MARK * 20_000)
WATCHFUL = {"HEARTBEAT": "200ms", "PEER_TIMEOUT": "1s"}


@asynccontextmanager
async def harmed(folder: Path) -> AsyncIterator[tuple[Mesh, Proxy]]:
    """A mesh, and what lies before the pod of `count`: at its relay's own port, on another address of this machine."""
    with proxy("nobody:1") as line:
        line.target = f"127.0.0.2:{line.address.rpartition(':')[2]}"
        behind = {"elsewhere": {"BIND": line.target, "ADVERTISE": "127.0.0.1"}}
        async with mesh(folder, Layout(pods={"count": "elsewhere"}, relay=WATCHFUL, relays=behind)) as made:
            with anyio.fail_after(20):
                while line.connections < 2:  # on a busy machine the relays may need more than their second
                    await look(made)
            yield made, line


async def look(made: Mesh) -> None:
    text, _, _ = await ask(made, "look", FILE)
    assert str(len(FILE.data)) in text


async def outcome(made: Mesh) -> TerminalResult | OmniError:
    ticket = made.gateway.submit(say("look", FILE))
    await ticket.admitted()
    return await ended(ticket)


def caught(made: Mesh) -> float:
    return made.relays["elsewhere"].metrics().get('omni_relay_checksum_failures_total{transport="tcp"}', 0.0)


async def until_way_is(made: Mesh, way: str) -> None:
    with anyio.fail_after(40):
        while True:
            crossed = Since("split>count")
            await look(made)
            if set(crossed()) == {way}:
                return


async def test_bytes_that_are_damaged_once_are_sent_again_and_nobody_notices(tmp_path: Path) -> None:
    async with harmed(tmp_path) as (made, line):
        line.up.damage(MARK)
        crossed = Since("split>count")
        await look(made)
        assert (caught(made), set(crossed())) == (1, {"tcp"})
        await made.until_idle()


async def test_bytes_that_are_damaged_twice_fail_their_request_and_no_other(tmp_path: Path) -> None:
    async with harmed(tmp_path) as (made, line):
        line.up.damage(MARK, times=100)
        end = await outcome(made)
        assert isinstance(end, OmniError)
        assert end.reason is Reason.DATA_CORRUPTED
        assert SURFACE[end.reason].http == 503
        assert caught(made) >= 2
        line.up.harms.clear()
        await look(made)
        await made.until_idle()


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "reset"])
async def test_a_network_that_parts_two_pods_costs_no_request(tmp_path: Path, silent: bool) -> None:
    async with harmed(tmp_path) as (made, line):
        target = line.target
        if silent:
            line.up.stall()
            line.down.stall()
        else:
            line.target = "127.0.0.2:1"
            line.reset()
        with anyio.fail_after(15):
            await look(made)
        await until_way_is(made, "grpc")
        line.target = target
        line.up.flowing.set()
        line.down.flowing.set()
        await until_way_is(made, "tcp")
        await made.until_idle()


@pytest.mark.parametrize(
    ("pods", "ways"),
    [pytest.param({}, {"arena"}, id="one pod"), pytest.param({"count": "elsewhere"}, {"grpc", "tcp"}, id="two pods")],
)
async def test_relays_that_die_under_requests_cost_none(tmp_path: Path, pods: dict[str, str], ways: set[str]) -> None:
    """Within a pod its tensors even stay in the arena."""
    ends: list[object] = []
    async with mesh(tmp_path, Layout(pods=pods, relay=WATCHFUL)) as made:
        await look(made)
        crossed = Since("split>count")
        over = False

        async def ask_on() -> None:
            while not over:
                ends.append(await outcome(made))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask_on)
            for pod in [*made.relays] * 3:
                made.relays[pod].process.kill()
                count = len(ends)
                with anyio.fail_after(20):
                    while len(ends) < count + 4:  # noqa: ASYNC110  # requests are answered while it is dead
                        await anyio.sleep(0.01)
                await made.start_relay(pod)
            over = True
        assert [end for end in ends if isinstance(end, OmniError)] == []
        assert set(crossed()) <= ways
        await made.until_idle()
        await until_way_is(made, "tcp" if pods else "arena")
        await made.until_idle()
