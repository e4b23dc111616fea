"""Tensors that stay on a device on their way: what the two ends of a stream need of whoever knows devices."""

from __future__ import annotations

from typing import Protocol

from omni.common.v1.tensor_pb2 import DataRef, DeviceSlot
from omni_common.tensor import DeviceMemory, Tensor


class Lender(Protocol):
    """At the sender, for one payload."""

    def lend(self, tensor: Tensor, number: int, ref: DataRef) -> bool:
        """Whether the receiver can get at it on its device; then `ref` says how, and it is lent under that number."""

    def take_back(self, number: int) -> None:
        """The payload does not leave, so nobody has heard of the number."""


class DeviceTensors(Protocol):
    """At the receiver: what has come from devices, by the numbers of their transfers."""

    def has(self, slot: DeviceSlot) -> bool: ...

    def take(self, slot: DeviceSlot) -> DeviceMemory | None:
        """It, which is the caller's now. None where its bytes come another way."""

    def give_up(self, slot: DeviceSlot) -> None:
        """Nobody will take it, or it was taken: nothing changes then."""
