"""The receiving end of one stream: payloads to values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol

from omni.common.v1.payload_pb2 import Payload
from omni.common.v1.tensor_pb2 import ArenaSlot, BlobChunk, DataRef, DeviceSlot
from omni_common.arena.reader import Released
from omni_common.data_ref import checksum, tensor_from
from omni_common.errors import Internal, LeaseLost, OmniError
from omni_common.payload import PayloadCodec
from omni_common.request import RequestKey
from omni_common.tensor import Tensor
from omni_common.transfer.arrivals import Arrivals, Transfer, transfer_of
from omni_common.transfer.blobs import Blobs
from omni_common.transfer.devices import DeviceTensors
from omni_common.transfer.refs import refs_in

NOBODY = RequestKey("")
"""The request of payloads that belong to none."""


class Views(Protocol):
    """The pod's arena, to be looked at."""

    def view(self, ref: DataRef, released: Released) -> Tensor:
        """See `arena.ArenaReader.view`."""


class TensorReceiver:
    """Collects the blobs of one stream and turns its payloads into values.

    `max_bytes` bounds the blobs that are incomplete or unread; what is over it is refused before memory is claimed,
    and its later pieces are ignored. `released` gets every slot of the pod's own that came, exactly once per
    reference: when its last view is gone, or at once where its payload was refused or discarded (see
    `arena.reader.Released`). What came from other pods is in `arrivals`, and goes back there; what came from devices
    is in `devices`.
    """

    def __init__(
        self,
        views: Views | None,
        max_bytes: int,
        released: Released,
        arrivals: Arrivals | None = None,
        devices: DeviceTensors | None = None,
    ) -> None:
        self._views = views
        self._released = released
        self._arrivals = arrivals
        self._devices = devices
        self._blobs = Blobs(max_bytes)

    @property
    def pending_bytes(self) -> int:
        """What the blobs that are incomplete or unread claim."""
        return self._blobs.pending_bytes

    def add(self, chunk: BlobChunk) -> bool:
        """See `Blobs.add`."""
        return self._blobs.add(chunk)

    def missing(self, payload: Payload) -> list[Transfer]:
        """The transfers that the payload refers to and that have come neither by the relay nor as blobs."""
        return [transfer for transfer in _transfers_in(payload) if not self._has(transfer)]

    def on_devices(self, payload: Payload) -> list[DataRef]:
        """What the payload refers to on devices and has come neither from there nor as blobs."""
        refs = [ref for ref in refs_in(payload) if ref.HasField("device")]
        return [ref for ref in refs if not self._has_from_device(ref.device)]

    def decode(self, codec: PayloadCodec, payload: Payload, key: RequestKey = NOBODY) -> object:
        """The value of a payload of that request, whose blobs and arrivals it uses up.

        Raises LeaseLost when a tensor is not what was sent, and Internal when the payload fits no declared type;
        what it refers to is given back then.
        """
        lent: list[DataRef] = []

        def get(ref: DataRef) -> Tensor:
            tensor = self._tensor(ref, key)
            if ref.HasField("arena"):
                lent.append(ref)
            return tensor

        try:
            return codec.decode(payload, get)
        except OmniError:
            # Views that were lent are released when the half-made value dies; what nobody looked at ends here.
            self._give_up(_without(refs_in(payload), lent))
            raise

    def discard(self, payload: Payload) -> None:
        """Gives back what a payload refers to, unread: its request is over."""
        self._give_up(refs_in(payload))

    def media(self, ref: DataRef) -> memoryview:
        """The bytes of a media file that came as a blob."""
        return self._from_blob(ref, ref.blob).data

    def drop(self, request_id: str) -> None:
        """Forgets the blobs of a request."""
        self._blobs.drop(request_id)

    def _has(self, transfer: Transfer) -> bool:
        return self._blobs.has(transfer[1]) or (self._arrivals is not None and self._arrivals.has(transfer))

    def _has_from_device(self, slot: DeviceSlot) -> bool:
        return self._blobs.has(slot.transfer.number) or (self._devices is not None and self._devices.has(slot))

    def _tensor(self, ref: DataRef, key: RequestKey) -> Tensor:
        match ref.WhichOneof("location"):
            case "inline":
                return tensor_from(ref, memoryview(ref.inline))
            case "arena" if self._views is not None:
                return self._views.view(ref, self._released)
            case "arena":
                raise LeaseLost("it came through an arena that this process does not share")
            case "blob":
                return self._from_blob(ref, ref.blob)
            case "transfer":
                return self._from_transfer(ref, key)
            case "device":
                return self._from_device(ref, key)
        raise Internal("A tensor came without its bytes.")

    def _from_transfer(self, ref: DataRef, key: RequestKey) -> Tensor:
        transfer = transfer_of(ref.transfer)
        arrival = None if self._arrivals is None else self._arrivals.take(transfer, key)
        self._blobs.pass_over(transfer[1], key.lane)
        if arrival is None or self._arrivals is None or self._views is None:
            return self._from_blob(ref, transfer[1])
        self._blobs.take(transfer[1])
        placed = DataRef(data_type=ref.data_type, shape=ref.shape, length=arrival.length, arena=arrival.slot)
        try:
            if arrival.length != ref.length:
                raise LeaseLost(f"the reference is to {ref.length} bytes and {arrival.length} have arrived")
            return self._views.view(placed, self._arrivals.released)
        except OmniError:
            self._arrivals.released(arrival.slot)
            raise

    def _from_device(self, ref: DataRef, key: RequestKey) -> Tensor:
        number = ref.device.transfer.number
        memory = None if self._devices is None else self._devices.take(ref.device)
        self._blobs.pass_over(number, key.lane)
        if memory is None:
            return self._from_blob(ref, number)
        self._blobs.take(number)
        return tensor_from(ref, memory)

    def _from_blob(self, ref: DataRef, number: int) -> Tensor:
        blob = self._blobs.take(number)
        if blob is None or not blob.complete:
            raise LeaseLost("not all of its bytes have come")
        tensor = tensor_from(ref, memoryview(blob.data).toreadonly())
        if checksum(tensor.data) != (ref.checksum or blob.checksum):
            raise LeaseLost("its bytes are not those that were sent")
        return tensor

    def _give_up(self, refs: Iterable[DataRef]) -> None:
        for ref in refs:
            match ref.WhichOneof("location"):
                case "arena":
                    slot = ArenaSlot()
                    slot.CopyFrom(ref.arena)
                    self._released(slot)
                case "blob":
                    self._blobs.take(ref.blob)
                case "transfer":
                    self._blobs.take(ref.transfer.number)
                    if self._arrivals is not None:
                        self._arrivals.give_up(transfer_of(ref.transfer))
                case "device":
                    self._blobs.take(ref.device.transfer.number)
                    if self._devices is not None:
                        self._devices.give_up(ref.device)


def _transfers_in(payload: Payload) -> Iterator[Transfer]:
    for ref in refs_in(payload):
        if ref.HasField("transfer"):
            yield transfer_of(ref.transfer)


def _slot_of(ref: DataRef) -> tuple[int, int]:
    return ref.arena.epoch, ref.arena.generation


def _without(refs: Iterable[DataRef], lent: Iterable[DataRef]) -> Iterator[DataRef]:
    """Those that were not lent; a slot may be referred to more than once. Blobs and arrivals are gone once they are
    used, so giving them up again changes nothing."""
    uses = Counter(map(_slot_of, lent))
    for ref in refs:
        if ref.HasField("arena") and uses[_slot_of(ref)]:
            uses[_slot_of(ref)] -= 1
        else:
            yield ref
