"""The sending end: values to payloads, and their tensors to wherever their bytes go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from itertools import count

from omni.common.v1.payload_pb2 import Payload
from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef, DataType
from omni_common.data_ref import checksum, describe_in
from omni_common.errors import OmniError
from omni_common.payload import PayloadCodec
from omni_common.relay.slots import FOREVER, NoRoom, Slots
from omni_common.rpc.contract import INLINE_LIMIT, POD_INLINE_LIMIT
from omni_common.rpc.frames import Blob
from omni_common.telemetry import names
from omni_common.telemetry.names import Transport
from omni_common.tensor import Tensor
from omni_common.transfer.devices import Lender


class Way(Enum):
    """What lies between a stage and a peer of it."""

    STREAM = auto()
    """Nothing but the stream of frames."""
    POD = auto()
    """An arena, which they share."""
    RELAYS = auto()
    """A relay at either end."""


class Why(StrEnum):
    """Why a large tensor goes the way that it goes; a label of metrics."""

    SAME_PROCESS = "same_process"
    SAME_POD = "same_pod"
    OTHER_POD = "other_pod"
    NO_RELAY = "no_relay"
    TOO_LARGE = "too_large"
    """The arena can never hold it."""
    FALLBACK = "fallback"
    """The better way has failed, or had no room for too long."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A tensor's bytes, how they leave, and why so; `why` is None for those inside the payload."""

    transport: Transport
    length: int
    why: Why | None = None


@dataclass(frozen=True, slots=True)
class Pushed:
    """A tensor that the relays are to move: its transfer's number, and the slot that has one use for it."""

    number: int
    slot: ArenaSlot
    length: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """A payload on its way out. `blobs` leave before it; `lent` are the slots that its references name, `pushes` what
    the relay has to be told of, `devices` the numbers of what was lent on devices; `sent` is about all the others."""

    payload: Payload
    blobs: tuple[Blob, ...]
    lent: tuple[ArenaSlot, ...]
    pushes: tuple[Pushed, ...]
    sent: tuple[Sent, ...]
    devices: tuple[int, ...] = ()


class TensorSender:
    """Turns values into payloads for one process's peers. Blobs and transfers share one count, and no number of it is
    used twice.

    A tensor's memory must not change until its blob is sent; a change makes the receiver refuse it, never use it. Nor
    may one that was made in the arena change once it is sent. `arena_checksums` adds a checksum to what the heads of
    slots guard already, for one pass over the bytes at either end.
    """

    def __init__(
        self,
        slots: Slots | None = None,
        source: int = 0,
        *,
        arena_checksums: bool = False,
        inline_limit: int = INLINE_LIMIT,
    ) -> None:
        """`source` names this process in transfers. Within a pod `inline_limit` is POD_INLINE_LIMIT at most."""
        self._slots = slots
        self._source = source
        self._arena_checksums = arena_checksums
        self._inline_limit = inline_limit
        self._numbers = count(1)

    def encode(
        self,
        codec: PayloadCodec,
        value: object,
        request_id: str,
        way: Way = Way.STREAM,
        *,
        expires: float = FOREVER,
        patient: bool = False,
        lender: Lender | None = None,
    ) -> Encoded:
        """Raises Internal when the value is not what its type declares, and NoRoom when a tensor has to wait for room
        in the arena; nothing is held then. Who is not `patient` takes a blob instead of NoRoom. `expires` ends the
        leases in the arena: the request's deadline on the arena's clock. The `lender` is asked first for what lies on a
        device."""
        parcel = _Parcel(self, request_id, way, expires, patient, lender)
        try:
            payload = codec.encode(value, parcel.put)
        except (OmniError, NoRoom):
            self._release(parcel.slots)
            parcel.take_back()
            raise
        parcel.fill()
        return Encoded(
            payload,
            tuple(parcel.blobs),
            tuple(parcel.lent),
            tuple(parcel.pushes),
            tuple(parcel.sent),
            tuple(parcel.devices),
        )

    def media(self, data: bytes | memoryview, request_id: str) -> tuple[DataRef, Blob]:
        """A media file as a blob."""
        ref = DataRef(data_type=DataType.DATA_TYPE_UINT8, shape=[len(data)], length=len(data))
        return ref, self._blob(ref, memoryview(data), request_id)

    def release(self, encoded: Encoded) -> None:
        """Frees the slots of a payload that was never sent. What was lent on devices its lender takes back."""
        self._release([*encoded.lent, *(pushed.slot for pushed in encoded.pushes)])

    def _release(self, slots: Iterable[ArenaSlot]) -> None:
        if self._slots is not None:
            for slot in slots:
                self._slots.release(slot)

    def _blob(self, ref: DataRef, data: memoryview, request_id: str) -> Blob:
        blob = Blob(next(self._numbers), request_id, data)
        ref.blob = blob.id
        ref.checksum = checksum(data)
        return blob


class _Parcel:
    """One payload's tensors on their way out. Slots are taken first and filled last, so that nothing is copied for a
    payload that has to wait for room."""

    def __init__(
        self,
        sender: TensorSender,
        request_id: str,
        way: Way,
        expires: float,
        patient: bool,
        lender: Lender | None,
    ) -> None:
        self._sender = sender
        self._slots = sender._slots if way is not Way.STREAM else None
        self._inline_limit = sender._inline_limit
        if way is Way.POD:
            self._inline_limit = min(self._inline_limit, POD_INLINE_LIMIT)
        self._request_id = request_id
        self._way = way
        self._expires = expires
        self._patient = patient
        self._lender = lender
        self._copies: list[tuple[memoryview, Tensor]] = []
        self.blobs: list[Blob] = []
        self.lent: list[ArenaSlot] = []
        self.pushes: list[Pushed] = []
        self.sent: list[Sent] = []
        self.devices: list[int] = []

    @property
    def slots(self) -> list[ArenaSlot]:
        return [*self.lent, *(pushed.slot for pushed in self.pushes)]

    def put(self, tensor: Tensor, ref: DataRef) -> None:
        """Raises NoRoom."""
        describe_in(ref, tensor)
        if tensor.nbytes <= self._inline_limit:
            ref.inline = bytes(tensor.data)
            self.sent.append(Sent(Transport.INLINE, tensor.nbytes))
        elif tensor.on_device and self._lender is not None and self._on_its_device(self._lender, tensor, ref):
            pass
        elif self._slots is None:
            self._as_blob(ref, tensor, Why.NO_RELAY)
        elif self._slots.too_large(tensor.nbytes):
            self._as_blob(ref, tensor, Why.TOO_LARGE)
        elif (slot := self._place(self._slots, tensor)) is None:
            self._as_blob(ref, tensor, Why.FALLBACK)
        elif self._way is Way.POD:
            self._lend(ref, tensor, slot)
        else:
            self._push(ref, tensor, slot)

    def fill(self) -> None:
        for data, tensor in self._copies:
            tensor.copy_to(data)
            if not tensor.on_device:  # else there is no other way
                names.TENSOR_COPIES.labels("not_in_place").inc()

    def take_back(self) -> None:
        for number in self.devices:
            assert self._lender is not None, "it lent them"  # noqa: S101
            self._lender.take_back(number)

    def _on_its_device(self, lender: Lender, tensor: Tensor, ref: DataRef) -> bool:
        number = next(self._sender._numbers)
        if not lender.lend(tensor, number, ref):
            return False
        ref.device.transfer.source, ref.device.transfer.number = self._sender._source, number
        self.devices.append(number)
        return True

    def _place(self, slots: Slots, tensor: Tensor) -> ArenaSlot | None:
        slot = None if tensor.on_device else slots.made_in_place(tensor)
        if slot is not None:
            return slot
        try:
            slot, data = slots.reserve(tensor.nbytes, self._expires)
        except NoRoom:
            if self._patient:
                raise
            return None
        self._copies.append((data, tensor))
        return slot

    def _lend(self, ref: DataRef, tensor: Tensor, slot: ArenaSlot) -> None:
        self.lent.append(slot)
        ref.arena.CopyFrom(slot)
        if self._sender._arena_checksums:
            ref.checksum = checksum(tensor.data)
        self.sent.append(Sent(Transport.ARENA, tensor.nbytes, Why.SAME_POD))

    def _push(self, ref: DataRef, tensor: Tensor, slot: ArenaSlot) -> None:
        number = next(self._sender._numbers)
        self.pushes.append(Pushed(number, slot, tensor.nbytes))
        ref.transfer.source, ref.transfer.number = self._sender._source, number

    def _as_blob(self, ref: DataRef, tensor: Tensor, why: Why) -> None:
        self.blobs.append(self._sender._blob(ref, tensor.data, self._request_id))
        self.sent.append(Sent(Transport.GRPC, tensor.nbytes, why))
