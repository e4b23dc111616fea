"""This process's end of the ways that tensors take from process to process on GPUs: CUDA IPC where two share one, NCCL
where each has its own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from omni.common.v1.tensor_pb2 import CudaIpcHandle, DataRef, DeviceSlot
from omni_common.deadline import Deadline
from omni_common.tensor import DeviceMemory
from omni_stage.components import cuda_ipc
from omni_stage.components.cuda_ipc import CannotShare, IpcHandle, Shares
from omni_stage.components.device_memory import TorchMemory, name_of
from omni_stage.components.pair_group import MakeGroup, NcclGroup, nccl_is_missing
from omni_stage.components.pair_receiver import PairFailed, PairReceiver
from omni_stage.components.pair_sender import PairSender
from omni_stage.core.device_way import DeviceWay, Reach
from omni_stage.devices import Place

logger = logging.getLogger(__name__)

Ended = Callable[[DeviceMemory | None], None]


@dataclass(frozen=True, slots=True)
class Ipc:
    """How memory of one process is opened in another one; `realm` is where."""

    realm: str
    shares: Shares = field(default_factory=Shares)
    open: Callable[[IpcHandle, Callable[[], None]], TorchMemory] = cuda_ipc.open_shared
    count_down: Callable[[IpcHandle], None] = cuda_ipc.count_down


@dataclass(frozen=True, slots=True)
class Pairs:
    """How communicators come about: the pod's folder, the name of this process there, and what makes one; `prepare`
    chooses the device of a thread."""

    folder: Path
    owner: int
    make: MakeGroup
    prepare: Callable[[], None] = lambda: None


class GpuSide:
    """A `DeviceSide`."""

    def __init__(self, device: str, ipc: Ipc, pairs: Pairs | None) -> None:
        """Raises OSError when nobody could find this end of its pairs."""
        self.reach = Reach(device, ipc.realm, pairs is not None)
        self._ipc = ipc
        self._pairs = pairs
        self._sender = (
            None if pairs is None else PairSender(pairs.folder, pairs.owner, pairs.make, prepare=pairs.prepare)
        )

    def lend(self, way: DeviceWay, number: int, memory: DeviceMemory, slot: DeviceSlot) -> bool:
        if not isinstance(memory, TorchMemory):
            return False
        if way is DeviceWay.SHARED:
            return self._share(number, memory, slot)
        if self._sender is None:
            return False
        self._sender.offer(number, memory, lambda: None)
        return True

    def take_back(self, way: DeviceWay, number: int) -> None:
        if way is DeviceWay.SHARED:
            self._ipc.shares.release(number)
        else:
            self._withdraw(number)

    def lose(self, way: DeviceWay, number: int) -> None:
        if way is DeviceWay.SHARED:
            self._ipc.shares.lose(number)
        else:
            self._withdraw(number)

    def catcher(self, owner: int) -> GpuCatcher:
        return GpuCatcher(self._ipc, self._pairs, owner)

    def close(self) -> None:
        if self._sender is not None:
            self._sender.close()

    def _share(self, number: int, memory: TorchMemory, slot: DeviceSlot) -> bool:
        try:
            handle = self._ipc.shares.share(number, memory)
        except CannotShare as error:
            logger.debug("a tensor is not shared on its GPU", extra={"why": str(error)})
            return False
        slot.cuda_ipc.CopyFrom(_render(handle))
        return True

    def _withdraw(self, number: int) -> None:
        if self._sender is not None:
            self._sender.withdraw(number)


class GpuCatcher:
    """A `Catcher`. Its threads begin when they are first needed."""

    def __init__(self, ipc: Ipc, pairs: Pairs | None, owner: int) -> None:
        self._ipc = ipc
        self._pairs = pairs
        self._owner = owner
        self._opener: _Opener | None = None
        self._receiver: PairReceiver | None = None

    def fetch(self, ref: DataRef, deadline: Deadline, ended: Ended, released: Callable[[], None]) -> None:
        slot = ref.device
        if slot.HasField("cuda_ipc"):
            handle = _parse(slot.cuda_ipc, ref.length)
            self._opener = self._opener or _Opener(self._ipc)
            self._opener.jobs.put((handle, ended, released))
        elif self._pairs is None or slot.transfer.source != self._owner:
            ended(None)
        else:
            self._receiver = self._receiver or self._meet(self._pairs)
            self._receiver.fetch(slot.transfer.number, ref.length, deadline, partial(_told, ended))

    def cancel(self, number: int) -> None:
        if self._receiver is not None:
            self._receiver.cancel(number)

    def decline(self, slot: DeviceSlot) -> None:
        if slot.HasField("cuda_ipc"):
            _count_down(self._ipc, _parse(slot.cuda_ipc, 0))

    def close(self) -> None:
        if self._opener is not None:
            self._opener.jobs.put(None)
            self._opener = None
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None

    def _meet(self, pairs: Pairs) -> PairReceiver:
        return PairReceiver(pairs.folder, self._owner, pairs.make, prepare=pairs.prepare)


class _Opener:
    """A thread: to open another process's memory takes the driver up to milliseconds, for which no loop has time."""

    def __init__(self, ipc: Ipc) -> None:
        self._ipc = ipc
        self.jobs: queue.SimpleQueue[tuple[IpcHandle, Ended, Callable[[], None]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="ipc-opener", daemon=True).start()

    def _run(self) -> None:
        while (job := self.jobs.get()) is not None:  # no deadline: there may be nothing to do for long
            handle, ended, released = job
            ended(self._open(handle, released))
            del job, handle, ended, released

    def _open(self, handle: IpcHandle, released: Callable[[], None]) -> TorchMemory | None:
        try:
            return self._ipc.open(handle, released)
        except CannotShare as error:
            logger.warning("a tensor could not be opened on its GPU", extra={"why": str(error)})
            _count_down(self._ipc, handle)
            return None


def open_gpu(place: Place) -> GpuSide | None:
    """The side of a process whose model is on a GPU; None where it is not."""
    if place.device == "cpu" or not (torch.cuda.is_available() and torch.cuda.is_initialized()):  # type: ignore[no-untyped-call]
        return None
    device = torch.device(place.device if place.device.startswith("cuda:") else torch.cuda.current_device())
    missing = nccl_is_missing()
    pairs = None
    if missing is None:
        pairs = Pairs(place.folder, place.owner, NcclGroup, partial(torch.cuda.set_device, device))
    else:
        logger.info("there is no way by NCCL", extra={"why": missing})
    try:
        return GpuSide(name_of(device), Ipc(cuda_ipc.realm()), pairs)
    except OSError as error:
        logger.warning("there is no way by NCCL", extra={"why": error.strerror})
        return GpuSide(name_of(device), Ipc(cuda_ipc.realm()), None)


def _told(ended: Ended, outcome: TorchMemory | PairFailed) -> None:
    if isinstance(outcome, PairFailed):
        logger.info("a tensor did not come from its GPU", extra={"why": str(outcome)})
        ended(None)
    else:
        ended(outcome)


def _count_down(ipc: Ipc, handle: IpcHandle) -> None:
    try:
        ipc.count_down(handle)
    except RuntimeError as error:  # its file is gone with the process that made it
        logger.info("a count of what is open could not be changed", extra={"why": str(error)[:200]})


def _render(handle: IpcHandle) -> CudaIpcHandle:
    return CudaIpcHandle(
        device=handle.device,
        memory=handle.memory,
        offset=handle.offset,
        size=handle.size,
        start=handle.start,
        event=handle.event,
        counter=handle.counter,
        place=handle.place,
    )


def _parse(handle: CudaIpcHandle, length: int) -> IpcHandle:
    return IpcHandle(
        device=handle.device,
        memory=handle.memory,
        offset=handle.offset,
        size=handle.size,
        start=handle.start,
        length=length,
        event=handle.event,
        counter=handle.counter,
        place=handle.place,
    )
