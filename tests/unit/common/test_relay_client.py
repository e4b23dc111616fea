"""A stage's line to its relay, against a relay that does what the test says: greetings, space, pushes, losses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from tests.unit.common.arena_refs import noise, octets, ref_to
from tests.unit.common.relay_peer import ADDRESS, EXTENT, WHO, Letters, PeerLine, RelayPeer, connected

from omni.common.v1.request_pb2 import RequestKey as KeyMessage
from omni.common.v1.tensor_pb2 import ArenaSlot, TransferId
from omni.relay.v1 import pod_pb2
from omni_common.arena.extents import render_extent
from omni_common.deadline import Deadline
from omni_common.errors import DataCorrupted, LeaseLost, Reason
from omni_common.relay import CannotConnect, NoRoom, PushResult, RelayClient
from omni_common.relay.client import IDLE, OVERDUE, PROMPT
from omni_common.rpc import convert
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.testing.clock import ManualClock
from omni_common.testing.mail import PATIENCE

pytestmark = pytest.mark.anyio

FOREVER = float("inf")
DATA = noise(5000)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[RelayPeer]:
    peer = RelayPeer(tmp_path)
    yield peer
    peer.close()


class Heard:
    """What the client tells of: pushes that ended, tensors that arrived, room."""

    def __init__(self, client: RelayClient) -> None:
        self.ended: Letters[PushResult] = Letters()
        self.arrived: Letters[pod_pb2.Arrived] = Letters()
        self.room: Letters[None] = Letters()
        client.on_room(lambda: self.room.put(None))
        client.on_arrival(self.arrived.put)


def push(client: RelayClient, slot: ArenaSlot, number: int = 1, *, seconds: float = 60.0) -> pod_pb2.Push:
    return pod_pb2.Push(
        transfer=TransferId(source=client.source, number=number),
        slot=slot,
        length=len(DATA),
        to="elsewhere.invalid:1",
        consumer="other-0",
        key=KeyMessage(request_id="r"),
        remaining=convert.duration_of(seconds),
        edge="a>b",
    )


async def with_space(peer: RelayPeer, client: RelayClient, line: PeerLine, index: int = 0) -> Heard:
    """Grants the client an extent."""
    heard = Heard(client)
    client.want(100)
    assert (await line.next()).want.size == 100
    line.say(extent=render_extent(peer.extent(index)))
    await heard.room.next()
    return heard


def put(client: RelayClient) -> ArenaSlot:
    slot, data = client.slots.reserve(len(DATA), FOREVER)
    data[:] = DATA
    return slot


def has_room(client: RelayClient) -> bool:
    try:
        slot, _ = client.slots.reserve(len(DATA), FOREVER)
    except NoRoom:
        return False
    return client.slots.release(slot)


def is_lost(client: RelayClient, slot: ArenaSlot) -> bool:
    """Whether a view is refused. (`pytest.raises` in a task group would end the loop that all tests share.)"""
    try:
        client.view(ref_to(octets(DATA), slot), lambda _: None)
    except LeaseLost:
        return True
    return False


# Greetings.


async def test_the_first_word_says_who_it_is_and_has_nothing_to_claim(peer: RelayPeer) -> None:
    client = RelayClient(peer.folder, WHO)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.connect, Deadline.after(PATIENCE))
        _, hello = await peer.welcome()
    assert (hello.pipeline, hello.stage, hello.replica) == ("pipeline", "stage", "stage-0")
    assert (hello.contract_version, hello.arena_epoch, len(hello.extents)) == (CONTRACT_VERSION, 0, 0)
    assert client.address == ADDRESS
    client.close()


async def test_a_relay_that_is_only_starting_is_waited_for(tmp_path: Path) -> None:
    client = RelayClient(tmp_path, WHO)
    waiting = anyio.Event()

    async def connect() -> None:
        waiting.set()
        await client.connect(Deadline.after(PATIENCE))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connect)
        await waiting.wait()
        await anyio.lowlevel.checkpoint()
        peer = RelayPeer(tmp_path)
        await peer.welcome()
    client.close()
    peer.close()


async def test_where_no_relay_comes_the_sentence_says_so(tmp_path: Path) -> None:
    with pytest.raises(CannotConnect, match=r"no relay to be reached in .*: it cannot be reached \(No such file"):
        await RelayClient(tmp_path, WHO).connect(Deadline.after(0.2))


async def test_a_folder_that_is_none_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(CannotConnect, match="cannot be used"):
        await RelayClient(tmp_path / "none", WHO).connect(Deadline.after(PATIENCE))


async def test_another_contract_is_refused_at_once(peer: RelayPeer) -> None:
    refused: list[str] = []

    async def connect() -> None:
        try:
            await RelayClient(peer.folder, WHO).connect(Deadline.after(PATIENCE))
        except CannotConnect as error:
            refused.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connect)
        await peer.welcome(version=CONTRACT_VERSION + 1)
    assert refused == [f"The pod's relay speaks contract {CONTRACT_VERSION + 1}, not {CONTRACT_VERSION}."]


# Space.


async def test_space_is_asked_for_once_at_a_time_and_told_of_when_it_comes(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        heard = Heard(client)
        assert not has_room(client)
        for size in (100, 5064, 200):
            client.want(size)
        assert (await line.next()).want.size == 100
        line.say(extent=render_extent(peer.extent(0)))
        await heard.room.next()
        assert has_room(client)
        client.want(EXTENT)
        assert (await line.next()).want.size == EXTENT, "what was wanted before has been answered"


async def test_what_can_never_be_is_remembered(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        heard = Heard(client)
        client.want(1 << 20)
        await line.next()
        line.say(refused=pod_pb2.ExtentRefused(size=1 << 20))
        await heard.room.next()
        assert client.slots.too_large(1 << 20)
        assert not client.slots.too_large(1 << 19)


async def test_a_grant_that_is_void_when_it_comes_gives_no_room(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        heard = Heard(client)
        client.want(100)
        await line.next()
        extent = peer.extent(0)
        peer.arena.set_extent_epoch(extent.index, 0)
        line.say(extent=render_extent(extent))
        await heard.room.next()
        assert not has_room(client)


async def test_a_slot_that_comes_back_makes_room(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        heard = await with_space(peer, client, line)
        slot = put(client)
        client.release(slot)
        await heard.room.next()
        assert client.slots.leases == 0


async def test_a_slot_that_is_lost_makes_room_when_nobody_looks_at_it(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        heard = await with_space(peer, client, line)
        client.lose(put(client))
        assert client.slots.leases == 1
        await heard.room.next()
        assert client.slots.leases == 0


async def test_idle_extents_go_back_but_the_last(peer: RelayPeer) -> None:
    clock = ManualClock(1000.0)
    async with connected(peer, clock=clock) as (client, line):
        heard = await with_space(peer, client, line)
        kept = put(client)
        client.want(EXTENT)
        await line.next()
        line.say(extent=render_extent(peer.extent(1)))
        await heard.room.next()
        clock.advance(IDLE + 1)
        assert (await line.next()).give_back.index == 1
        assert [extent.index for extent in client.slots.extents] == [0]
        assert client.slots.release(kept)


async def test_all_that_is_empty_goes_back_while_a_want_takes_long(peer: RelayPeer) -> None:
    """Or what is waited for would never come: it may have to be made of that."""
    clock = ManualClock(1000.0)
    async with connected(peer, clock=clock) as (client, line):
        await with_space(peer, client, line)
        client.want(2 * EXTENT)
        assert (await line.next()).want.size == 2 * EXTENT
        clock.advance(PROMPT + 0.1)
        client.want(2 * EXTENT)
        assert (await line.next()).give_back.index == 0
        assert client.slots.extents == ()


# Pushes.


async def test_a_push_ends_as_the_relay_says(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        heard = await with_space(peer, client, line)
        slot = put(client)
        for number, failure in ((1, None), (2, convert.failure_of(DataCorrupted()))):
            client.push(push(client, slot, number), heard.ended.put)
            asked = (await line.next()).push
            assert (asked.transfer.number, asked.slot, asked.length) == (number, slot, len(DATA))
            line.say(ended=pod_pb2.PushEnded(transfer=asked.transfer, failure=failure, transport="tcp"))
        good, bad = await heard.ended.next(), await heard.ended.next()
        assert good == PushResult(None, "tcp")
        assert bad.error is not None
        assert (bad.error.reason, bad.quiet) == (Reason.DATA_CORRUPTED, True)


async def test_a_push_is_cancelled_while_it_lasts_and_ends_once(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        heard = await with_space(peer, client, line)
        client.push(push(client, put(client)), heard.ended.put)
        client.cancel(1)
        assert (await line.next()).HasField("push")
        assert (await line.next()).cancel.transfer.number == 1
        for _ in range(2):
            line.say(ended=pod_pb2.PushEnded(transfer=TransferId(source=client.source, number=1)))
        await heard.ended.next()
        client.cancel(1)
        client.want(EXTENT)
        assert (await line.next()).HasField("want"), "what has ended is not cancelled"
        assert not heard.ended


async def test_a_push_that_hangs_beyond_its_deadline_ends_the_line(peer: RelayPeer) -> None:
    clock = ManualClock(1000.0)
    async with connected(peer, clock=clock) as (client, line):
        heard = await with_space(peer, client, line)
        client.push(push(client, put(client), seconds=10), heard.ended.put)
        clock.advance(10 + OVERDUE + 1)
        result = await heard.ended.next()
        assert result.error is not None
        assert (result.error.reason, result.quiet) == (Reason.STAGE_UNAVAILABLE, False)


# What arrives.


def arrived(slot: ArenaSlot, *, request: str = "r") -> pod_pb2.Arrived:
    transfer = TransferId(source=7, number=1)
    return pod_pb2.Arrived(transfer=transfer, slot=slot, length=len(DATA), key=KeyMessage(request_id=request))


async def test_what_arrives_is_viewed_in_place_and_returned_once(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        heard = Heard(client)
        slot = peer.put(DATA)
        line.say(arrived=arrived(slot))
        came = await heard.arrived.next()
        view = client.view(ref_to(octets(DATA), came.slot), client.return_arrived)
        assert bytes(view.data) == DATA
        assert client.arrived == 1
        del view
        client.return_arrived(slot)
        assert list((await line.next()).release.slots) == [slot]
        client.want(1)
        assert (await line.next()).HasField("want")
        assert client.arrived == 0


async def test_what_arrives_where_nobody_takes_it_goes_back(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        slot = peer.put(DATA)
        line.say(arrived=arrived(slot))
        assert list((await line.next()).release.slots) == [slot]
        assert client.arrived == 0


# The relay's death.


async def test_a_lost_line_fails_its_pushes_and_new_ones_until_it_is_back(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        heard = await with_space(peer, client, line)
        slot = put(client)
        client.push(push(client, slot), heard.ended.put)
        await line.next()
        line.close()
        lost = await heard.ended.next()
        assert lost.error is not None
        assert (lost.error.reason, lost.quiet) == (Reason.STAGE_UNAVAILABLE, False)
        client.push(push(client, slot, 2), heard.ended.put)
        refused = await heard.ended.next()
        assert refused.error is not None
        assert refused.quiet, "this relay never heard of it"
        back, _ = await peer.welcome(*client.slots.extents)
        await heard.room.next()
        client.push(push(client, slot, 3), heard.ended.put)
        assert (await back.next()).push.transfer.number == 3


async def test_while_the_relay_is_away_the_pod_goes_on(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        await with_space(peer, client, line)
        line.close()
        await peer.accept()
        slot = put(client)
        assert bytes(client.view(ref_to(octets(DATA), slot), client.release).data) == DATA


async def test_a_relay_that_is_back_hears_what_is_still_held(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        heard = await with_space(peer, client, line)
        there, gone = peer.put(DATA), peer.put(DATA)
        for slot in (there, gone):
            line.say(arrived=arrived(slot))
            await heard.arrived.next()
        client.want(EXTENT)
        await line.next()
        line.close()
        back, hello = await peer.accept()
        assert hello.arena_epoch == peer.arena.epoch
        assert [extent.index for extent in hello.extents] == [0]
        assert list(hello.arrived) == [there, gone]
        back.close()
        client.return_arrived(gone)
        back, hello = await peer.welcome(*client.slots.extents)
        assert list(hello.arrived) == [there]
        assert (await back.next()).want.size == EXTENT, "what was not answered is asked again"


async def test_what_is_returned_between_hello_and_welcome_is_returned_after_it(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        heard = Heard(client)
        slot = peer.put(DATA)
        line.say(arrived=arrived(slot))
        await heard.arrived.next()
        line.close()
        back, hello = await peer.accept()
        assert list(hello.arrived) == [slot]
        client.return_arrived(slot)
        peer.say_welcome(back)
        assert list((await back.next()).release.slots) == [slot]


async def test_an_extent_that_the_relay_has_taken_away_is_used_no_more(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        heard = await with_space(peer, client, line)
        slot = put(client)
        line.close()
        await peer.welcome()
        await heard.room.next()
        assert (client.slots.extents, client.slots.leases, client.slots.release(slot)) == ((), 0, False)
        assert client.slots.data(slot, len(DATA)) is None
        assert not peer.tables.held(slot.offset, slot.offset + 1)


async def test_another_arena_is_taken_up_and_what_was_in_the_old_one_is_lost(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        heard = await with_space(peer, client, line)
        slot = put(client)
        view = client.view(ref_to(octets(DATA), slot), lambda _: None)
        line.say(arrived=arrived(peer.put(DATA)))
        await heard.arrived.next()
        line.close()
        peer.renew()
        back, _ = await peer.welcome()
        await heard.room.next()
        assert (client.slots.extents, client.slots.leases, client.arrived) == ((), 0, 0)
        assert is_lost(client, slot)
        assert bytes(view.data) == DATA
        client.want(100)
        await back.next()
        back.say(extent=render_extent(peer.extent(0)))
        await heard.room.next()
        put(client)


@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param(b"\xff\xff", id="not of the contract"),
        pytest.param(
            pod_pb2.RelayMessage(extent=pod_pb2.Extent(index=5000, epoch=1, offset=64, size=64)).SerializeToString(),
            id="an extent that cannot be",
        ),
        pytest.param(
            pod_pb2.RelayMessage(arrived=pod_pb2.Arrived(length=1)).SerializeToString(), id="a tensor of nobody"
        ),
    ],
)
async def test_nonsense_ends_the_line_and_nothing_else(peer: RelayPeer, nonsense: bytes) -> None:
    def take(message: pod_pb2.Arrived) -> None:
        convert.parse_key(message.key)

    async with connected(peer) as (client, line):
        client.on_arrival(take)
        line.say_bytes(nonsense)
        back, _ = await peer.welcome()
        client.want(100)
        assert (await back.next()).want.size == 100


async def test_a_message_that_only_newer_relays_know_is_skipped(peer: RelayPeer) -> None:
    async with connected(peer) as (client, line):
        line.say()
        client.want(100)
        assert (await line.next()).want.size == 100
