"""Tensors without a tensor library: what crosses an edge, for processes that have neither numpy nor torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Protocol


class DType(Enum):
    """Element types: number and size in bytes. Names and numbers are those of `omni.common.v1.DataType`."""

    number: int
    itemsize: int

    def __init__(self, number: int, itemsize: int) -> None:
        self.number, self.itemsize = number, itemsize

    BOOL = (1, 1)
    UINT8 = (2, 1)
    INT8 = (3, 1)
    INT16 = (4, 2)
    INT32 = (5, 4)
    INT64 = (6, 8)
    FLOAT16 = (7, 2)
    BFLOAT16 = (8, 2)
    FLOAT32 = (9, 4)
    FLOAT64 = (10, 8)
    UINT16 = (11, 2)
    UINT32 = (12, 4)
    UINT64 = (13, 8)
    COMPLEX32 = (14, 4)
    COMPLEX64 = (15, 8)
    COMPLEX128 = (16, 16)
    FLOAT8_E4M3FN = (17, 1)
    FLOAT8_E4M3FNUZ = (18, 1)
    FLOAT8_E5M2 = (19, 1)
    FLOAT8_E5M2FNUZ = (20, 1)
    FLOAT8_E8M0FNU = (21, 1)
    FLOAT4_E2M1FN_X2 = (22, 1)


class DeviceMemory(Protocol):
    """A tensor's bytes that lie on a device, contiguous and in C order. They do not change any more once whoever makes
    them has done so; every method waits for that. Thread-safe."""

    @property
    def device(self) -> str:
        """Which device, by a name that means the same one in every process: a GPU's UUID."""

    @property
    def nbytes(self) -> int: ...

    def host(self) -> memoryview:
        """A read-only copy of the bytes in the host's memory, made once."""

    def copy_to(self, into: memoryview) -> None:
        """Writes the bytes there, straight from the device; they are there when it returns."""


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A contiguous little-endian array in C order.

    `memory` is a flat view of bytes (format 'B', one dimension), read-only when it comes from a peer: it may lie in
    the pod's arena, where it stays valid as long as any view of it lives. Or it is on a device, and the bytes come to
    the host for whoever asks for `data`: at most once, and in that thread.

    Raises ValueError when the bytes do not fit the shape or the view is not such a one.
    """

    dtype: DType
    shape: tuple[int, ...]
    memory: memoryview | DeviceMemory

    def __post_init__(self) -> None:
        memory = self.memory
        if isinstance(memory, memoryview) and not (memory.ndim == 1 and memory.format == "B" and memory.c_contiguous):
            raise ValueError("a tensor's data is a flat, contiguous view of bytes")
        wanted = prod(self.shape) * self.dtype.itemsize
        if memory.nbytes != wanted:
            raise ValueError(
                f"a {self.dtype.name} tensor of shape {self.shape} has {wanted} bytes, not {memory.nbytes}"
            )

    @property
    def data(self) -> memoryview:
        """The bytes in the host's memory."""
        return self.memory if isinstance(self.memory, memoryview) else self.memory.host()

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes

    @property
    def on_device(self) -> bool:
        """Whether asking for `data` means a copy from a device."""
        return not isinstance(self.memory, memoryview)

    def copy_to(self, into: memoryview) -> None:
        """Writes the bytes there: one copy, wherever they are."""
        if isinstance(self.memory, memoryview):
            into[:] = self.memory
        else:
            self.memory.copy_to(into)
