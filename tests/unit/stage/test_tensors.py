"""Tensors cross between torch and the wire without a copy, in every element type."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from omni_common.tensor import DType, Tensor
from omni_stage.components.tensors import from_torch, to_torch

TYPES = [getattr(torch, d.name.lower()) for d in DType]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)], ids=str)
def test_a_tensor_comes_back_as_it_was(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape).to(dtype)
    back = to_torch(from_torch(tensor))
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


def test_neither_way_copies() -> None:
    tensor = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    assert to_torch(from_torch(tensor)).data_ptr() == tensor.data_ptr()
    assert to_torch(from_torch(tensor[1:])).data_ptr() == tensor[1:].data_ptr()


def test_the_source_lives_as_long_as_any_view_of_it() -> None:
    class Lease(np.ndarray):
        """Can be watched, as an arena's view can."""

    source = np.zeros(16, dtype=np.uint8).view(Lease)
    watch = weakref.ref(source)
    view = to_torch(Tensor(DType.FLOAT32, (4,), memoryview(source.data)))[1:]
    del source
    gc.collect()
    assert watch() is not None
    del view
    gc.collect()
    assert watch() is None


def test_bytes_at_an_odd_address_are_read_all_the_same() -> None:
    data = memoryview(b"x" + np.arange(4, dtype="<f4").tobytes())[1:]
    assert to_torch(Tensor(DType.FLOAT32, (4,), data)).tolist() == [0.0, 1.0, 2.0, 3.0]
