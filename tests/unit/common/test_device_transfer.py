"""Tensors that lie on a device when they are sent: one copy, straight to where the bytes leave from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from tests.unit.common.arena_refs import EXTENT, Pod, noise

from omni.common.v1.tensor_pb2 import ArenaSlot, BlobChunk, DataRef, DeviceSlot
from omni_common.data_ref import checksum
from omni_common.errors import Internal, LeaseLost
from omni_common.payload import PayloadCodec
from omni_common.relay import Slots
from omni_common.request import RequestKey
from omni_common.rpc.contract import INLINE_LIMIT
from omni_common.tensor import DeviceMemory, DType, Tensor
from omni_common.transfer import TensorReceiver, TensorSender, Way

LENGTH = INLINE_LIMIT + 1


@dataclass(frozen=True)
class Features:
    rows: Tensor


CODEC = PayloadCodec([Features])


class Device:
    """The memory of one."""

    device = "GPU-0"

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.copies: list[str] = []

    @property
    def nbytes(self) -> int:
        return len(self._data)

    def host(self) -> memoryview:
        self.copies.append("host")
        return memoryview(self._data)

    def copy_to(self, into: memoryview) -> None:
        self.copies.append("place")
        into[:] = self._data


@pytest.fixture
def memory() -> Device:
    return Device(noise(LENGTH, 7))


def _copies() -> float:
    return REGISTRY.get_sample_value("omni_tensor_copies_total", {"reason": "not_in_place"}) or 0.0


def test_it_is_copied_once_into_its_slot(tmp_path: Path, memory: Device) -> None:
    pod, returned, before = Pod(tmp_path), list[ArenaSlot](), _copies()
    slots = Slots(pod.arena, pod.writer(pod.grant(size=2 * EXTENT)))
    features = Features(Tensor(DType.UINT8, (LENGTH,), memory))
    encoded = TensorSender(slots).encode(CODEC, features, "r", Way.POD)
    assert memory.copies == ["place"]
    received = TensorReceiver(pod.reader(), 0, returned.append).decode(CODEC, encoded.payload)
    assert isinstance(received, Features)
    assert (bytes(received.rows.data), received.rows.on_device) == (noise(LENGTH, 7), False)
    assert _copies() == before


def test_it_comes_to_the_host_where_there_is_no_arena(memory: Device) -> None:
    encoded = TensorSender().encode(CODEC, Features(Tensor(DType.UINT8, (LENGTH,), memory)), "r")
    assert (memory.copies[0], bytes(encoded.blobs[0].data)) == ("host", noise(LENGTH, 7))


class Lends:
    """A `Lender`, and the other end."""

    def __init__(self) -> None:
        self.lent: dict[int, DeviceMemory] = {}
        self.given_up: list[int] = []

    def lend(self, tensor: Tensor, number: int, ref: DataRef) -> bool:
        assert not isinstance(tensor.memory, memoryview)
        self.lent[number] = tensor.memory
        return True

    def take_back(self, number: int) -> None:
        del self.lent[number]

    def has(self, slot: DeviceSlot) -> bool:
        return slot.transfer.number in self.lent

    def take(self, slot: DeviceSlot) -> DeviceMemory | None:
        return self.lent.pop(slot.transfer.number, None)

    def give_up(self, slot: DeviceSlot) -> None:
        self.given_up.append(slot.transfer.number)


def test_it_stays_where_it_is_for_a_receiver_that_can_get_at_it(memory: Device) -> None:
    lends = Lends()
    encoded = TensorSender(None, 7).encode(
        CODEC, Features(Tensor(DType.UINT8, (LENGTH,), memory)), "r", Way.POD, lender=lends
    )
    assert (len(encoded.devices), encoded.blobs, encoded.lent, encoded.sent) == (1, (), (), ())
    receiver = TensorReceiver(None, 0, lambda _: None, devices=lends)
    assert receiver.on_devices(encoded.payload) == []
    received = receiver.decode(CODEC, encoded.payload)
    assert isinstance(received, Features)
    assert (received.rows.memory, memory.copies) == (memory, [])


def test_it_comes_as_a_blob_where_that_fails(memory: Device) -> None:
    lends = Lends()
    encoded = TensorSender(None, 7).encode(
        CODEC, Features(Tensor(DType.UINT8, (LENGTH,), memory)), "r", Way.POD, lender=lends
    )
    [number] = encoded.devices
    lends.take_back(number)
    receiver = TensorReceiver(None, 1 << 20, lambda _: None, devices=lends)
    [ref] = receiver.on_devices(encoded.payload)
    assert (ref.device.transfer.source, ref.device.transfer.number) == (7, number)
    data = noise(LENGTH, 7)
    receiver.add(BlobChunk(blob=number, request_id="r", total_length=LENGTH, data=data, checksum=checksum(data)))
    assert receiver.on_devices(encoded.payload) == []
    received = receiver.decode(CODEC, encoded.payload, RequestKey("r"))
    assert isinstance(received, Features)
    assert (bytes(received.rows.data), received.rows.on_device, receiver.pending_bytes) == (data, False, 0)


def test_what_is_refused_or_never_read_is_given_up(memory: Device) -> None:
    lends = Lends()
    encoded = TensorSender().encode(CODEC, Features(Tensor(DType.UINT8, (LENGTH,), memory)), "r", lender=lends)
    receiver = TensorReceiver(None, 0, lambda _: None, devices=lends)
    receiver.discard(encoded.payload)
    encoded.payload.fields[0].tensor.shape[0] += 1
    with pytest.raises(Internal):
        receiver.decode(CODEC, encoded.payload)
    assert lends.given_up == [*encoded.devices] * 2


def test_without_devices_a_reference_to_one_is_refused(memory: Device) -> None:
    encoded = TensorSender().encode(CODEC, Features(Tensor(DType.UINT8, (LENGTH,), memory)), "r", lender=Lends())
    with pytest.raises(LeaseLost):
        TensorReceiver(None, 0, lambda _: None).decode(CODEC, encoded.payload)
