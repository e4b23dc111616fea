"""References to bytes: how their checksum is made and how they become tensors."""

from __future__ import annotations

import xxhash

from omni.common.v1.tensor_pb2 import DataRef
from omni_common.errors import Internal, LeaseLost
from omni_common.tensor import DeviceMemory, DType, Tensor

_DTYPES = {dtype.number: dtype for dtype in DType}


def checksum(data: bytes | memoryview) -> int:
    """xxh3_64, which reads as fast as memory can be read. Never zero: zero in a reference means that there is none."""
    return xxhash.xxh3_64_intdigest(data) or 1


def describe(tensor: Tensor) -> DataRef:
    """A reference to the tensor that does not say yet where its bytes are."""
    ref = DataRef()
    describe_in(ref, tensor)
    return ref


def describe_in(ref: DataRef, tensor: Tensor) -> None:
    """As `describe`, in an empty reference that is part of a message."""
    ref.data_type = tensor.dtype.number  # type: ignore[assignment]  # numbers are those of the message's enumeration
    ref.shape.extend(tensor.shape)
    ref.length = tensor.nbytes


def tensor_from(ref: DataRef, data: memoryview | DeviceMemory) -> Tensor:
    """The tensor that `ref` describes, over `data`.

    Raises LeaseLost when there are not `length` bytes, and Internal when `ref` contradicts itself.
    """
    if data.nbytes != ref.length:
        raise LeaseLost(f"the reference is to {ref.length} bytes and {data.nbytes} are there")
    if (dtype := _DTYPES.get(ref.data_type)) is None:
        raise Internal(f"A tensor came with the unknown element type {ref.data_type}.")
    try:
        return Tensor(dtype, tuple(ref.shape), data)
    except ValueError as error:
        raise Internal(f"A tensor does not fit its shape: {error}.") from error
