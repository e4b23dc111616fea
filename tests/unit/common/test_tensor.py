"""Tensors without a tensor library."""

from __future__ import annotations

import array

import numpy as np
import pytest

from omni.common.v1.tensor_pb2 import DataRef, DataType
from omni_common.data_ref import checksum, describe, tensor_from
from omni_common.errors import Internal, LeaseLost
from omni_common.tensor import DType, Tensor


def test_element_types_are_those_of_the_wire() -> None:
    wire = {name.removeprefix("DATA_TYPE_"): number for name, number in DataType.items()}
    assert {dtype.name: dtype.number for dtype in DType} | {"UNSPECIFIED": 0} == wire


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if hasattr(np, dtype.name.lower())])
def test_element_sizes_are_those_of_numpy(dtype: DType) -> None:
    assert np.dtype(dtype.name.lower()).itemsize == dtype.itemsize


@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 5), (2, 3)])
def test_a_reference_describes_its_tensor(dtype: DType, shape: tuple[int, ...]) -> None:
    data = memoryview(bytes(int(np.prod(shape)) * dtype.itemsize))
    again = tensor_from(DataRef.FromString(describe(Tensor(dtype, shape, data)).SerializeToString()), data)
    assert (again.dtype, again.shape, again.nbytes) == (dtype, shape, data.nbytes)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(memoryview(bytes(11)), id="too few bytes"),
        pytest.param(memoryview(bytes(13)), id="too many bytes"),
        pytest.param(memoryview(array.array("f", [1, 2, 3])), id="no bytes but floats"),
        pytest.param(memoryview(bytes(12)).cast("B", (3, 4)), id="not flat"),
        pytest.param(memoryview(bytes(24))[::2], id="not contiguous"),
    ],
)
def test_bytes_that_do_not_fit_are_no_tensor(data: memoryview) -> None:
    with pytest.raises(ValueError, match="tensor"):
        Tensor(DType.FLOAT32, (3,), data)


class Elsewhere:
    """Bytes that have to be fetched."""

    device = "GPU-0"

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.fetched = 0

    @property
    def nbytes(self) -> int:
        return len(self._data)

    def host(self) -> memoryview:
        self.fetched += 1
        return memoryview(self._data)

    def copy_to(self, into: memoryview) -> None:
        into[:] = self._data


def test_a_tensor_on_a_device_is_fetched_by_whoever_asks_for_its_bytes_and_by_nobody_else() -> None:
    memory = Elsewhere(b"abcd")
    tensor = Tensor(DType.INT16, (2,), memory)
    into = bytearray(4)
    tensor.copy_to(memoryview(into))
    assert (tensor.nbytes, tensor.on_device, bytes(into), memory.fetched) == (4, True, b"abcd", 0)
    assert describe(tensor).length == 4
    assert (bytes(tensor.data), memory.fetched) == (b"abcd", 1)
    with pytest.raises(ValueError, match="6 bytes, not 4"):
        Tensor(DType.INT16, (3,), memory)


def test_a_tensor_of_the_host_is_copied_from_where_it_is() -> None:
    tensor = Tensor(DType.UINT8, (4,), memoryview(b"abcd"))
    into = bytearray(4)
    tensor.copy_to(memoryview(into))
    assert (tensor.on_device, bytes(into)) == (False, b"abcd")


@pytest.mark.parametrize(
    "ref",
    [
        pytest.param(DataRef(data_type=DataType.DATA_TYPE_UNSPECIFIED, shape=[4], length=4), id="no element type"),
        pytest.param(DataRef(data_type=DataType.DATA_TYPE_UINT8, shape=[5], length=4), id="another shape"),
        pytest.param(DataRef(data_type=DataType.DATA_TYPE_INT32, shape=[4], length=4), id="larger elements"),
        pytest.param(DataRef(data_type=DataType.DATA_TYPE_UINT8, shape=[1 << 63] * 64, length=4), id="absurd shape"),
    ],
)
def test_a_reference_that_contradicts_itself_is_an_internal_error(ref: DataRef) -> None:
    with pytest.raises(Internal):
        tensor_from(ref, memoryview(bytes(4)))


def test_an_element_type_of_a_later_version_is_an_internal_error() -> None:
    wire = describe(Tensor(DType.UINT8, (4,), memoryview(bytes(4)))).SerializeToString()
    later = DataRef.FromString(wire.replace(b"\x08\x02", b"\x08\x63", 1))
    with pytest.raises(Internal, match="element type 99"):
        tensor_from(later, memoryview(bytes(4)))


def test_a_reference_to_other_bytes_than_are_there_is_a_lost_lease() -> None:
    with pytest.raises(LeaseLost):
        tensor_from(DataRef(data_type=DataType.DATA_TYPE_UINT8, shape=[5], length=5), memoryview(bytes(4)))


def test_the_checksum_is_xxh3_64_with_seed_0() -> None:
    # The published value for no input, so that another implementation can be checked against the same.
    assert checksum(b"") == 0x2D06800538D394C2
    assert checksum(memoryview(b"a")) != checksum(b"b")
