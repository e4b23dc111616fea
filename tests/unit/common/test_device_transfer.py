"""Tensors that lie on a device when they are sent: one copy, straight to where the bytes leave from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from tests.unit.common.arena_refs import EXTENT, Pod, noise

from omni.common.v1.tensor_pb2 import ArenaSlot
from omni_common.payload import PayloadCodec
from omni_common.relay import Slots
from omni_common.rpc.contract import INLINE_LIMIT
from omni_common.tensor import DType, Tensor
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
