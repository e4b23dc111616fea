"""What comes to a stage from another one's GPU: order, what becomes of what cannot be had, and nothing left over."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
import xxhash
from tests.unit.stage.gpus import HERE, REALM, THERE, Files, gpu_side, on_gpu
from tests.unit.stage.test_incoming import given
from tests.unit.stage.upstream import BYTES, SMALL, SOURCE, Parcel, WayIn, way_in

from omni.common.v1.tensor_pb2 import DataRef
from omni.stage.v1 import stage_pb2
from omni_common.deadline import Deadline
from omni_common.errors import Reason
from omni_common.request import RequestKey
from omni_common.tensor import Tensor
from omni_stage.components.cuda_ipc import CannotShare, IpcHandle
from omni_stage.components.device_memory import TorchMemory
from omni_stage.components.device_side import GpuSide, Ipc
from omni_stage.components.pair_group import GlooGroup, GroupFailed
from omni_stage.core.device_way import DeviceWay
from omni_stage.devices import DeviceSide

pytestmark = pytest.mark.anyio

CHECKSUM = xxhash.xxh3_64_intdigest(BYTES)
FIRST = RequestKey("first")
POD = "pod-0"
WAYS = pytest.mark.parametrize("gpu", [pytest.param(HERE, id="opened"), pytest.param(THERE, id="fetched")])


class Before:
    """The stage that sends, as a `Lender`."""

    def __init__(self, side: GpuSide, way: DeviceWay) -> None:
        self._side = side
        self.way = way

    def lend(self, tensor: Tensor, number: int, ref: DataRef) -> bool:
        assert not isinstance(tensor.memory, memoryview)
        return self._side.lend(self.way, number, tensor.memory, ref.device)

    def take_back(self, number: int) -> None:
        self._side.take_back(self.way, number)


class Fetching:
    def __init__(self, way: WayIn, before: Before, sender: GpuSide, files: Files) -> None:
        self.way, self.before, self.sender, self.files = way, before, sender, files
        self._replies: deque[stage_pb2.DeliverReply] = deque()

    def lend(self, request: str = "first", data: bytes = BYTES) -> int:
        return self.way.lend(request, Parcel(on_gpu(data)), self.before)

    async def reply(self) -> stage_pb2.DeliverReply:
        """The next one that is not a credit."""
        while not self._replies:
            frame = await self.way.stream.replies.next()
            self._replies.extend(reply for reply in frame.replies if not reply.HasField("credit"))
        return self._replies.popleft()

    async def released(self) -> int:
        """The next number that is given back; what was opened is said before."""
        gc.collect()
        while not (reply := await self.reply()).HasField("release"):
            assert reply.fetch.opened, reply
        [number] = reply.release.transfers
        return number

    async def wanted(self) -> int:
        [number] = (await self.reply()).fetch.wanted
        return number


@asynccontextmanager
async def fetching(folder: Path, gpu: str, *, receiver: DeviceSide | None = None) -> AsyncIterator[Fetching]:
    """From a stage on the GPU HERE to one on `gpu`."""
    sender, files = gpu_side(folder, SOURCE)
    side = receiver or gpu_side(folder, SOURCE + 1, gpu)[0]
    way = DeviceWay.SHARED if gpu == HERE else DeviceWay.PAIR
    async with way_in(folder, side=side, pod=POD) as into:
        made = Fetching(into, Before(sender, way), sender, files)
        hello = await made.reply()
        assert (hello.device.device, hello.device.pairs) == (side.reach.device, side.reach.pairs)
        yield made
    side.close()
    sender.close()


@WAYS
async def test_tensors_come_in_order_and_are_given_back(tmp_path: Path, gpu: str) -> None:
    async with fetching(tmp_path, gpu) as made:
        numbers = [made.lend()]
        made.way.send("first", SMALL)
        numbers.append(made.lend())
        made.way.end("first", 3)
        whole = ["large", "small", "large", "done"]
        assert await given(made.way, 5) == [("first", "begins"), *(("first", what) for what in whole)]
        assert sorted([await made.released(), await made.released()]) == numbers
        assert made.files.counted == 0


async def test_other_requests_go_on_while_one_waits_for_its_gpu(tmp_path: Path) -> None:
    async with fetching(tmp_path, THERE) as made:
        made.sender.close()  # nobody is found, so it is asked for
        number = made.lend()
        made.way.send("first", SMALL)
        made.way.send("second", SMALL)
        assert await given(made.way, 3) == [("first", "begins"), ("second", "begins"), ("second", "small")]
        assert await made.wanted() == number
        made.way.blob("first", number, CHECKSUM)
        assert await given(made.way, 2) == [("first", "large"), ("first", "small")]


class Breaking(GlooGroup):
    def receive(self, flat: object, deadline: Deadline) -> TorchMemory:
        raise GroupFailed("broke, as the test wants it")


def _without_the_gpu(folder: Path) -> GpuSide:
    """All of CUDA's own way to where the driver says no."""
    return GpuSide(HERE, Ipc(REALM), None)


def _where_nothing_opens(folder: Path) -> GpuSide:
    def refuse(handle: IpcHandle, released: Callable[[], None]) -> TorchMemory:
        raise CannotShare("cannot be opened here, as the test wants it")

    return GpuSide(HERE, replace(Files(folder / "gpu").ipc(), open=refuse), None)


def _where_pairs_break(folder: Path) -> GpuSide:
    return gpu_side(folder, SOURCE + 1, THERE, make=Breaking)[0]


def _without_pairs(folder: Path) -> GpuSide:
    return GpuSide(THERE, Ipc(""), None)


@pytest.mark.parametrize("receiver", [_without_the_gpu, _where_nothing_opens, _where_pairs_break, _without_pairs])
async def test_what_cannot_be_had_is_asked_for_and_comes_as_a_blob(
    tmp_path: Path, receiver: Callable[[Path], GpuSide]
) -> None:
    side = receiver(tmp_path)
    async with fetching(tmp_path, side.reach.device, receiver=side) as made:
        number = made.lend()
        made.way.send("first", SMALL)
        assert await made.wanted() == number
        assert await given(made.way, 1) == [("first", "begins")]
        made.way.blob("first", number, CHECKSUM)
        assert await given(made.way, 2) == [("first", "large"), ("first", "small")]
        if receiver is _where_nothing_opens:
            assert made.files.counted == 0


@WAYS
async def test_what_comes_for_a_request_that_is_over_is_given_back_unread(tmp_path: Path, gpu: str) -> None:
    async with fetching(tmp_path, gpu) as made:
        made.way.stage.abort(FIRST, made.way.owner)
        number = made.lend()
        assert await made.released() == number
        assert made.files.counted == 0


class Slow(GlooGroup):
    """Waits for the test."""

    gate: anyio.Event
    begun: anyio.Event
    token: object

    def receive(self, flat: object, deadline: Deadline) -> TorchMemory:
        anyio.from_thread.run_sync(Slow.begun.set, token=Slow.token)  # type: ignore[arg-type]
        anyio.from_thread.run(Slow.gate.wait, token=Slow.token)  # type: ignore[arg-type]
        return super().receive(flat, deadline)  # type: ignore[arg-type]


async def test_a_request_that_ends_in_the_middle_of_a_fetch_leaves_nothing(tmp_path: Path) -> None:
    Slow.gate, Slow.begun, Slow.token = anyio.Event(), anyio.Event(), anyio.lowlevel.current_token()
    slow = gpu_side(tmp_path, SOURCE + 1, THERE, make=Slow)[0]
    async with fetching(tmp_path, THERE, receiver=slow) as made:
        number, behind = made.lend(), made.lend()
        with anyio.fail_after(20):
            await Slow.begun.wait()
        made.way.stage.abort(FIRST, made.way.owner)
        assert await made.way.owner.aborts.next() == "first"
        Slow.gate.set()
        assert [await made.released(), await made.released()] == [number, behind]
        made.lend("second")
        assert await given(made.way, 3) == [("first", "begins"), ("second", "begins"), ("second", "large")]


@WAYS
async def test_a_request_whose_sender_dies_is_failed_before_it_looks_again(tmp_path: Path, gpu: str) -> None:
    async with fetching(tmp_path, gpu) as made:
        made.way.scheduler.keep = True
        number = made.lend()
        if gpu == THERE:
            assert await given(made.way, 2) == [("first", "begins"), ("first", "large")]
            assert await made.released() == number
            made.sender.close()
            number = made.lend()
            assert await made.wanted() == number
        else:
            assert await given(made.way, 2) == [("first", "begins"), ("first", "large")]
        made.way.hang_up()
        request, error = await made.way.owner.failures.next()
        assert (request, error.reason) == ("first", Reason.STAGE_UNAVAILABLE)
        made.way.scheduler.kept.clear()


async def test_without_a_gpu_nobody_is_told_of_one(tmp_path: Path) -> None:
    async with way_in(tmp_path, pod=POD) as into:
        into.send("first", SMALL)
        assert await given(into, 2) == [("first", "begins"), ("first", "small")]
        assert not into.stream.replies


async def test_a_stage_of_another_pod_is_told_of_no_gpu(tmp_path: Path) -> None:
    side, _ = gpu_side(tmp_path, SOURCE + 1)
    async with way_in(tmp_path, side=side) as into:
        into.send("first", SMALL)
        assert await given(into, 2) == [("first", "begins"), ("first", "small")]
        assert not into.stream.replies
    side.close()
