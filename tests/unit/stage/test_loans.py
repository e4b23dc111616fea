"""What leaves a stage on its GPU: to whom, until when it is lent, and by which way it goes when that one fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
import torch
import xxhash
from prometheus_client import REGISTRY
from tests.unit.common.arena_refs import octets
from tests.unit.stage.downstream import BYTES, POD, SMALL, TARGET, Parcel, Two, Way, way_out
from tests.unit.stage.gpus import HERE, REALM, THERE, Files, gpu_side, on_gpu
from tests.unit.stage.test_outgoing import FIRST, ref_of

from omni.common.v1.tensor_pb2 import DataRef
from omni.stage.v1 import stage_pb2
from omni_common.clock import monotonic
from omni_common.deadline import Deadline
from omni_common.errors import Reason
from omni_common.rpc import convert
from omni_common.tensor import DeviceMemory
from omni_stage.components.device_memory import TorchMemory
from omni_stage.components.device_side import GpuSide, Ipc
from omni_stage.core.device_way import DeviceWay

pytestmark = pytest.mark.anyio

OWNER = 7
Reply = stage_pb2.DeliverReply
LARGE = Parcel(on_gpu(BYTES))


class Lending:
    """A way out, the GPU of its stage, and what the replica there says."""

    def __init__(self, way: Way, side: GpuSide, files: Files) -> None:
        self.way, self.side, self.files = way, side, files

    async def hear(self, reply: Reply) -> None:
        """The stage has heard it."""
        self.way.replica.say(reply)
        self.way.replica.credit(FIRST)
        await self.way.heard.granted.next()

    async def reach(self, gpu: str) -> None:
        """The first event goes the default way, and tells the link who is there."""
        self.way.links.chunk(self.way.envelope("first"), TARGET, 0, SMALL)
        await self.way.replica.next()
        await self.hear(Reply(device=stage_pb2.DeviceReply(device=gpu, realm=REALM, pairs=True)))

    async def send(self, parcel: Parcel = LARGE, request: str = "first") -> DataRef:
        self.way.links.chunk(self.way.envelope(request), TARGET, 1, parcel)
        return ref_of(await self.way.replica.next())

    async def want(self, number: int) -> None:
        await self.hear(Reply(fetch=stage_pb2.FetchReply(key=convert.render_key(FIRST), wanted=[number])))

    async def open(self, number: int) -> None:
        await self.hear(Reply(fetch=stage_pb2.FetchReply(key=convert.render_key(FIRST), opened=[number])))

    async def release(self, number: int) -> None:
        await self.hear(Reply(release=stage_pb2.ReleaseReply(transfers=[number])))

    async def fetch(self, ref: DataRef) -> bytes | None:
        """As a receiver does it, on the other GPU."""
        done = anyio.Event()
        came: list[DeviceMemory | None] = []
        catcher = self.side.catcher(OWNER)
        token = anyio.lowlevel.current_token()

        def ended(memory: DeviceMemory | None) -> None:
            came.append(memory)
            anyio.from_thread.run_sync(done.set, token=token)

        catcher.fetch(ref, Deadline.after(20, monotonic), ended, lambda: None)
        with anyio.fail_after(20):
            await done.wait()
        catcher.close()
        return None if came[0] is None else bytes(came[0].host())


@asynccontextmanager
async def lending(folder: Path) -> AsyncIterator[Lending]:
    side, files = gpu_side(folder, OWNER)
    async with way_out(folder, pod=POD, side=side) as way:
        try:
            yield Lending(way, side, files)
        finally:
            side.close()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # more of them would spin against each other


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"edge": "here>next", **labels}) or 0.0


async def test_until_the_replica_has_said_what_it_has_tensors_go_by_the_host(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        await lent.way.grant(0)
        assert (await lent.send()).HasField("arena")
        assert lent.way.links.on_devices == 0


@pytest.mark.parametrize("transport", ["nccl", "cuda_ipc"])
async def test_a_tensor_is_lent_until_it_is_released_and_its_request_waits_until_it_is_in_hand(
    tmp_path: Path, transport: str
) -> None:
    before = sample("omni_edge_transfers_total", transport=transport)
    async with lending(tmp_path) as lent:
        await lent.reach(THERE if transport == "nccl" else HERE)
        ref = await lent.send()
        number = ref.device.transfer.number
        assert ref.device.transfer.source == lent.way.client.source
        assert (ref.device.HasField("cuda_ipc"), ref.checksum) == (transport == "cuda_ipc", 0)
        assert (lent.way.links.busy(FIRST), lent.way.links.on_devices) == (True, 1)
        if transport == "cuda_ipc":
            await lent.open(number)
            assert await lent.way.heard.over.next() == (FIRST, None)
            assert (lent.way.links.busy(FIRST), lent.way.links.on_devices) == (False, 1)
            await lent.release(number)
        else:
            ref.device.transfer.source = OWNER
            assert await lent.fetch(ref) == BYTES
            assert lent.way.links.busy(FIRST), "the receiver has not said so"
            await lent.release(number)
            assert await lent.way.heard.over.next() == (FIRST, None)
        assert (lent.way.links.busy(FIRST), lent.way.links.on_devices) == (False, 0)
        assert sample("omni_edge_transport_info", transport=transport, reason="same_pod") == 1
        await lent.release(number)
    assert sample("omni_edge_transfers_total", transport=transport) == before + 1


@pytest.mark.parametrize("gpu", [HERE, THERE])
async def test_what_is_asked_for_comes_as_a_blob_and_what_follows_goes_by_the_host(tmp_path: Path, gpu: str) -> None:
    retries = sample("omni_edge_retries_total", transport="grpc")
    async with lending(tmp_path) as lent:
        await lent.reach(gpu)
        number = (await lent.send()).device.transfer.number
        await lent.want(number)
        piece = (await lent.way.replica.next()).blob
        assert (piece.blob, piece.request_id, piece.data) == (number, "first", BYTES)
        assert piece.checksum == xxhash.xxh3_64_intdigest(BYTES)
        assert await lent.way.heard.over.next() == (FIRST, None)
        assert (lent.way.links.busy(FIRST), lent.way.links.on_devices) == (False, 0)
        assert sample("omni_edge_transport_info", transport="grpc", reason="fallback") == 1
        await lent.way.grant(0)
        assert (await lent.send()).HasField("arena")
    assert sample("omni_edge_retries_total", transport="grpc") == retries + 1


async def test_a_tensor_of_another_process_or_another_gpu_goes_by_the_host(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        await lent.way.grant(0)
        await lent.reach(HERE)
        opened = lent.files.open(lent.files.share(LARGE.tensor.memory), lambda: None)  # type: ignore[arg-type]
        foreign = Parcel(type(LARGE.tensor)(LARGE.tensor.dtype, LARGE.tensor.shape, opened))
        assert (await lent.send(foreign)).HasField("arena")
        assert (await lent.send(Parcel(on_gpu(BYTES, "GPU-3")))).HasField("arena")


async def test_a_fetched_tensor_that_was_aborted_is_gone(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        await lent.reach(THERE)
        ref = await lent.send()
        lent.way.links.abandon(FIRST)
        assert (lent.way.links.busy(FIRST), lent.way.links.on_devices) == (False, 0)
        ref.device.transfer.source = OWNER
        assert await lent.fetch(ref) is None
        await lent.want(ref.device.transfer.number)
        assert not lent.way.replica.events, "nothing was sent again"


async def test_a_shared_tensor_that_was_aborted_is_kept_until_the_replica_looks_no_more(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        await lent.reach(HERE)
        number = (await lent.send()).device.transfer.number
        lent.way.links.abandon(FIRST)
        assert (lent.way.links.busy(FIRST), lent.way.links.on_devices) == (False, 1)
        await lent.release(number)
        assert lent.way.links.on_devices == 0


@pytest.mark.parametrize("gpu", [HERE, THERE])
async def test_what_never_left_is_not_lent(tmp_path: Path, gpu: str) -> None:
    async with lending(tmp_path) as lent:
        await lent.reach(gpu)
        lent.way.links.chunk(lent.way.envelope("first"), TARGET, 1, LARGE)
        lent.way.links.abandon(FIRST)  # before the loop has written it
        assert lent.way.links.on_devices == 0
        assert lent.files.counted == 0


async def test_what_waits_for_room_holds_no_device(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        await lent.reach(HERE)
        lent.way.links.payload(lent.way.envelope("first"), TARGET, Two(on_gpu(BYTES), octets(BYTES)), ())
        assert (lent.way.links.busy(FIRST), lent.way.links.on_devices, lent.files.counted) == (True, 0, 0)
        await lent.way.grant(0)
        fields = (await lent.way.replica.next()).payload.payload.fields
        assert [field.tensor.WhichOneof("location") for field in fields] == ["device", "arena"]


@pytest.mark.parametrize("gpu", [HERE, THERE])
async def test_a_replica_that_is_gone_holds_nothing_and_its_requests_fail(tmp_path: Path, gpu: str) -> None:
    async with lending(tmp_path) as lent:
        await lent.reach(gpu)
        await lent.send()
        lent.way.replica.leave()
        key, error = await lent.way.heard.failed.next()
        assert (key, error.reason) == (FIRST, Reason.STAGE_UNAVAILABLE)
        assert (lent.way.links.on_devices, lent.files.counted) == (0, 0)


async def test_a_stage_ends_when_what_it_has_lent_is_back(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent, anyio.create_task_group() as tasks:
        await lent.reach(HERE)
        number = (await lent.send()).device.transfer.number
        await lent.open(number)
        finished = anyio.Event()

        async def finish() -> None:
            await lent.way.links.finish()
            finished.set()

        tasks.start_soon(finish)
        await lent.hear(Reply())
        assert not finished.is_set()
        lent.way.replica.say(Reply(release=stage_pb2.ReleaseReply(transfers=[number])))
        with anyio.fail_after(10):
            await finished.wait()


async def test_what_a_replica_never_gives_back_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omni_stage.loans.MAX_LOANS", 2)
    async with lending(tmp_path) as lent:
        await lent.way.grant(0)
        await lent.reach(HERE)
        locations = [(await lent.send()).WhichOneof("location") for _ in range(3)]
        assert locations == ["device", "device", "arena"]


def test_what_the_driver_cannot_share_is_left_to_the_next_way() -> None:
    side = GpuSide("cpu", Ipc(REALM), None)
    ref = DataRef()
    assert not side.lend(DeviceWay.SHARED, 1, TorchMemory(torch.zeros(4)), ref.device)
    assert not ref.HasField("device")
