"""What a link has lent on this process's device: the replica looks at it there, or fetches it, and says so when it has
done.

A loan keeps its request going until the replica has it in hand, since until then it may ask for the bytes another way.
What it has opened in place it may keep for longer, beyond the request's end: that holds up only the end of this
process, with which the memory would go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from math import inf

import anyio

from omni.common.v1.tensor_pb2 import DataRef
from omni.stage.v1 import stage_pb2
from omni_common.clock import Clock
from omni_common.data_ref import checksum
from omni_common.errors import OmniError
from omni_common.request import RequestKey
from omni_common.rpc.frames import Blob, FrameWriter
from omni_common.telemetry.names import Transport
from omni_common.tensor import Tensor
from omni_common.transfer import Lender, Why
from omni_common.transfer.refs import refs_in
from omni_stage.core.device_way import DeviceWay, Reach, way_between
from omni_stage.devices import Devices
from omni_stage.edges import EdgeMeter
from omni_stage.pushes import Hearer
from omni_stage.spans import STAGE_SPANS

# Loans of one link at a time; above it tensors go through the host. Far above what the credits of an edge allow, so
# this is for a replica that keeps what it has opened.
MAX_LOANS = 1024

# Seconds without device ways once one has failed.
REST = 30.0

_TRANSPORTS = {DeviceWay.SHARED: Transport.CUDA_IPC, DeviceWay.PAIR: Transport.NCCL}


@dataclass(frozen=True, slots=True)
class _Loan:
    key: RequestKey
    tensor: Tensor
    way: DeviceWay
    since: float


class Loans:
    """One link's. Belongs to the event loop."""

    def __init__(
        self,
        devices: Devices,
        frames: FrameWriter[stage_pb2.DeliverEvent],
        *,
        hearer: Hearer,
        meter: EdgeMeter,
        clock: Clock,
    ) -> None:
        self._devices = devices
        self._frames = frames
        self._hearer = hearer
        self._meter = meter
        self._clock = clock
        self._there: Reach | None = None
        self._rests_until = -inf
        self._loans: dict[int, _Loan] = {}
        self._awaited: dict[RequestKey, set[int]] = {}
        self._all_back = anyio.Event()

    def __contains__(self, key: RequestKey) -> bool:
        """Whether the replica has something of the request not in hand yet."""
        return key in self._awaited

    def __len__(self) -> int:
        return len(self._loans)

    @property
    def keys(self) -> Collection[RequestKey]:
        """Of what the replica does not have in hand."""
        return self._awaited.keys()

    async def all_back(self) -> None:
        """Until nothing is lent, or the replica is gone. The caller holds the deadline."""
        while self._loans:
            self._all_back = anyio.Event()
            await self._all_back.wait()

    # What is sent.

    def lender(self, key: RequestKey) -> Lender | None:
        """For a payload of the request; None where no device way leads to the replica."""
        if self._devices.side is None or self._there is None or self._clock() < self._rests_until:
            return None
        return _RequestLender(self, key)

    def lend(self, key: RequestKey, tensor: Tensor, number: int, ref: DataRef) -> bool:
        """See `Lender`."""
        side, memory = self._devices.side, tensor.memory
        if side is None or self._there is None or isinstance(memory, memoryview) or len(self._loans) >= MAX_LOANS:
            return False
        way = way_between(memory.device, side.reach, self._there)
        if way is None or not side.lend(way, number, memory, ref.device):
            return False
        self._loans[number] = _Loan(key, tensor, way, self._clock())
        self._awaited.setdefault(key, set()).add(number)
        return True

    def never_left(self, numbers: Iterable[int]) -> None:
        """The replica has not heard of them and will not."""
        for number in numbers:
            self._lose(number)

    def unsent(self, events: Iterable[stage_pb2.DeliverEvent]) -> None:
        """As `never_left`, of events that were dropped."""
        for event in events:
            for payload in (event.payload.payload, event.chunk.payload):
                self.never_left(ref.device.transfer.number for ref in refs_in(payload) if ref.HasField("device"))

    # What the replica says.

    def heard(self, reply: stage_pb2.DeviceReply) -> None:
        self._there = Reach(reply.device, reply.realm, reply.pairs)

    def opened(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if (loan := self._loans.get(number)) is not None:
                self._arrived(number, loan)

    def released(self, numbers: Iterable[int]) -> None:
        """One that was not lent, or that was lost before, changes nothing."""
        for number in numbers:
            if (loan := self._take_back(number)) is not None:
                self._arrived(number, loan)

    def wanted(self, numbers: Iterable[int]) -> None:
        """The replica cannot get at them where they are: their bytes follow beside the frames."""
        for number in numbers:
            if (loan := self._take_back(number)) is not None and self._settle(number, loan.key):
                self._rests_until = self._clock() + REST
                self._send_again(number, loan)
                self._hearer.delivered(loan.key)

    # The end.

    def abandon(self, key: RequestKey) -> None:
        """The request was aborted: the replica does not get what it has not asked for. It may look already at what it
        was to open, and says when it does no more."""
        for number in self._awaited.pop(key, ()):
            if self._loans[number].way is DeviceWay.PAIR:
                self._lose(number)

    def lose_all(self) -> None:
        """The replica is gone."""
        for number in list(self._loans):
            self._lose(number)

    # Inside.

    def _arrived(self, number: int, loan: _Loan) -> None:
        if self._settle(number, loan.key):
            seconds = self._clock() - loan.since
            transport, size = _TRANSPORTS[loan.way], loan.tensor.nbytes
            self._meter.moved(transport, size, seconds, Why.SAME_POD)
            STAGE_SPANS.moved(self._meter.name, loan.key, transport, size, seconds)
            self._hearer.delivered(loan.key)

    def _send_again(self, number: int, loan: _Loan) -> None:
        data = loan.tensor.data
        blob = Blob(number, loan.key.lane, data, checksum=checksum(data))
        try:
            self._frames.put_blob(blob, lane=loan.key.lane)
        except OmniError as error:
            self._hearer.lost(loan.key, error)
        else:
            self._meter.sent_again(loan.tensor.nbytes)

    def _settle(self, number: int, key: RequestKey) -> bool:
        """Whether the replica had it not in hand before, and its request is still wanted."""
        numbers = self._awaited.get(key, set())
        if number not in numbers:
            return False
        numbers.discard(number)
        if not numbers:
            del self._awaited[key]
        return True

    def _take_back(self, number: int) -> _Loan | None:
        loan = self._pop(number)
        if loan is not None and self._devices.side is not None:
            self._devices.side.take_back(loan.way, number)
        return loan

    def _lose(self, number: int) -> None:
        loan = self._pop(number)
        if loan is not None and self._devices.side is not None:
            self._settle(number, loan.key)
            self._devices.side.lose(loan.way, number)

    def _pop(self, number: int) -> _Loan | None:
        loan = self._loans.pop(number, None)
        if not self._loans:
            self._all_back.set()
        return loan


class _RequestLender:
    """A `Lender`."""

    def __init__(self, loans: Loans, key: RequestKey) -> None:
        self.lend = partial(loans.lend, key)
        self._loans = loans

    def take_back(self, number: int) -> None:
        self._loans.never_left((number,))
