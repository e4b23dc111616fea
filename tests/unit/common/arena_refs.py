"""Tensors, and references to them in an arena, as a sender makes them."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import shake_128

from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef
from omni_common.arena import ArenaWriter
from omni_common.data_ref import checksum, describe
from omni_common.tensor import DType, Tensor

FOREVER = float("inf")


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes without a pattern, the same ones every time."""
    return shake_128(bytes([seed])).digest(size)


def octets(data: bytes) -> Tensor:
    return Tensor(DType.UINT8, (len(data),), memoryview(data))


def ref_to(tensor: Tensor, slot: ArenaSlot, *, checked: bool = True) -> DataRef:
    ref = describe(tensor)
    ref.arena.CopyFrom(slot)
    ref.checksum = checksum(tensor.data) if checked else 0
    return ref


def put(
    writer: ArenaWriter, data: bytes, request_id: str = "r", expires: float = FOREVER, *, checked: bool = True
) -> DataRef:
    tensor = octets(data)
    slot = writer.put(tensor, request_id, expires)
    assert slot is not None, "the arena has no room for what the test puts into it"
    return ref_to(tensor, slot, checked=checked)


def never() -> Callable[[ArenaSlot], None]:
    """A `released` for references that must be refused."""

    def released(slot: ArenaSlot) -> None:
        raise AssertionError(f"slot {slot.generation} was released")

    return released
