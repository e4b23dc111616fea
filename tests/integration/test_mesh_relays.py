"""The echo pipeline in several pods, each with a real relay: which way its tensors take, and what becomes of them when
relays die, arenas are full, and requests end in the middle."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest
from prometheus_client import REGISTRY
from tests.integration.mesh import Layout, Mesh, mesh, say
from tests.integration.mesh_requests import answer, ask, ended

from omni_common.errors import OmniError
from omni_common.request import Media, Modality
from omni_common.testing.gateway import Piece

pytestmark = pytest.mark.anyio

APART = {"count": "elsewhere", "join": "third"}
FILE = Media(Modality.AUDIO, bytes(range(256)) * 8 * 1024)


def sent(edge: str) -> Mapping[str, float]:
    """Tensors that have crossed the edge in this process, by transport."""
    return {
        sample.labels["transport"]: sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "omni_edge_transfers_total" and sample.labels["edge"] == edge
    }


def chosen(edge: str) -> set[tuple[str, str]]:
    """Transports of the edge's living links, and why."""
    return {
        (sample.labels["transport"], sample.labels["reason"])
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "omni_edge_transport_info" and sample.labels["edge"] == edge
    }


def total(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


class Since:
    """What has crossed an edge since this was made."""

    def __init__(self, edge: str) -> None:
        self._edge = edge
        self._before = sent(edge)

    def __call__(self) -> dict[str, float]:
        now = sent(self._edge)
        return {
            way: count - self._before.get(way, 0) for way, count in now.items() if count != self._before.get(way, 0)
        }


async def look(made: Mesh, file: Media = FILE) -> None:
    """A file crosses the mesh unharmed."""
    text, _, _ = await ask(made, "look", file)
    assert str(len(file.data)) in text


@pytest.mark.parametrize(
    ("pods", "arena", "way"),
    [
        pytest.param({}, True, ("arena", "same_pod"), id="in one pod"),
        pytest.param({"count": "elsewhere"}, True, ("tcp", "other_pod"), id="between pods"),
        pytest.param({"count": "elsewhere"}, False, ("grpc", "no_relay"), id="without relays"),
    ],
)
async def test_large_tensors_take_the_way_that_the_pods_have(
    tmp_path: Path, pods: dict[str, str], arena: bool, way: tuple[str, str]
) -> None:
    crossed = Since("split>count")
    async with mesh(tmp_path, Layout(pods=pods, arena=arena)) as made:
        await look(made)
        assert (set(crossed()), chosen("split>count")) == ({way[0]}, {way})
        await made.until_idle()
    assert chosen("split>count") == set()


async def test_everything_is_the_same_with_every_tensor_through_the_relays(tmp_path: Path) -> None:
    pods = {name: name for name in ("split", "upper", "count", "join", "say", "write", "beep")}
    async with mesh(tmp_path, Layout(pods=pods, inline_limit=0)) as made:
        await look(made)
        text, audio, _ = await ask(made, "hello mesh", spoken=True)
        assert text.split() == ["HELLO", "MESH"]
        assert len(audio) == 2 * 1920 * 2
        await made.until_idle()


async def test_while_a_pods_relay_is_dead_tensors_go_beside_the_frames_and_the_pod_itself_goes_on(
    tmp_path: Path,
) -> None:
    async with mesh(tmp_path, Layout(pods={"count": "elsewhere"})) as made:
        await look(made)
        abroad = Since("split>count")
        made.relays["all"].process.kill()
        await look(made)
        assert set(abroad()) == {"grpc"}
        assert chosen("split>count") == {("grpc", "fallback")}
        await made.start_relay("all")
        with anyio.fail_after(40):
            while "tcp" not in abroad():
                await look(made)
        await made.until_idle()


async def test_the_other_pods_relay_dies_and_comes_back(tmp_path: Path) -> None:
    async with mesh(tmp_path, Layout(pods={"count": "elsewhere"})) as made:
        await look(made)
        abroad = Since("split>count")
        made.relays["elsewhere"].process.kill()
        await look(made)
        assert set(abroad()) == {"grpc"}
        await made.start_relay("elsewhere")
        with anyio.fail_after(40):
            while "tcp" not in abroad():
                await look(made)
        await made.until_idle()


async def test_a_relay_that_hangs_holds_requests_up_no_longer_than_its_peers_wait_for_it(tmp_path: Path) -> None:
    layout = Layout(pods={"count": "elsewhere"}, relay={"HEARTBEAT": "200ms", "PEER_TIMEOUT": "1s"})
    async with mesh(tmp_path, layout) as made:
        await look(made)
        abroad = Since("split>count")
        hanging = made.relays["elsewhere"].process
        hanging.send_signal(signal.SIGSTOP)
        try:
            await look(made)
        finally:
            hanging.send_signal(signal.SIGCONT)
        assert set(abroad()) == {"grpc"}
        await made.until_idle(within=10)
        with anyio.fail_after(40):
            while "tcp" not in abroad():
                await look(made)
        await made.until_idle()


async def test_a_full_arena_makes_requests_wait_and_none_fail(tmp_path: Path) -> None:
    waited = total("omni_arena_full_total")
    layout = Layout(pods={"count": "elsewhere"}, relay={"ARENA_SIZE": "18MiB", "EXTENT_SIZE": "2MiB"})
    async with mesh(tmp_path, layout) as made:
        files = [Media(Modality.AUDIO, bytes([n]) * (1500_000 + n)) for n in range(24)]
        tickets = [made.gateway.submit(say("look", file)) for file in files]
        for file, ticket in zip(files, tickets, strict=True):
            assert str(len(file.data)) in (await answer(ticket))[0]
        assert total("omni_arena_full_total") > waited
        await made.until_idle()


async def test_what_no_arena_of_this_size_can_hold_goes_beside_the_frames(tmp_path: Path) -> None:
    abroad = Since("split>count")
    layout = Layout(pods={"count": "elsewhere"}, relay={"ARENA_SIZE": "1MiB", "EXTENT_SIZE": "64KiB"})
    async with mesh(tmp_path, layout) as made:
        await look(made)
        assert (set(abroad()), chosen("split>count")) == ({"grpc"}, {("grpc", "too_large")})
        await made.until_idle()


async def test_aborts_at_every_moment_leave_nothing_in_any_arena(tmp_path: Path) -> None:
    async with mesh(tmp_path, Layout(pods=APART, inline_limit=0)) as made:
        for turns in range(0, 400, 8):
            ticket = made.gateway.submit(say("a few words to say", FILE, spoken=True))
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            ticket.cancel()
        await made.until_idle(within=10)
        await look(made)


async def test_a_replica_that_dies_with_tensors_under_way_takes_only_its_requests_along(tmp_path: Path) -> None:
    layout = Layout(pods={"count": "elsewhere"}, replicas={"count": 2})
    async with mesh(tmp_path, layout) as made:
        tickets = [made.gateway.submit(say("look", FILE)) for _ in range(12)]
        for ticket in tickets:
            await ticket.admitted()
        await made.stages["count-0"].kill()
        del made.stages["count-0"]
        ends = [await ended(ticket) for ticket in tickets]
        assert sum(not isinstance(end, OmniError) for end in ends) >= 6
        await made.until_idle(within=10)


async def test_a_caller_that_does_not_read_stops_the_stream_between_pods_too(tmp_path: Path) -> None:
    words = " ".join(["word"] * 200)
    layout = Layout(pods={"write": "elsewhere"}, inline_limit=0, changes={"write": {"credits": 4}})
    async with mesh(tmp_path, layout) as made:
        ticket = made.gateway.submit(say(words), output_credits=3)
        await ticket.admitted()
        pieces = [await ticket.piece() for _ in range(3)]
        text, _, _ = await ask(made, "others go on")
        assert text.split() == ["OTHERS", "GO", "ON"]
        ticket.read(text=1000)
        while isinstance(notice := await ticket.notices.next(), Piece):
            pieces.append(notice)
        assert [piece.index for piece in pieces] == list(range(len(pieces)))
        assert len(pieces) >= 200
        await made.until_idle()
