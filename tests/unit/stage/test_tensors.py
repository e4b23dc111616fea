"""Tensors cross between torch and the wire without a copy, in every element type."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client import REGISTRY

from omni_common.arena import Arena
from omni_common.tensor import DType, Tensor
from omni_stage.components.device_memory import TorchMemory, device_of, name_of
from omni_stage.components.tensors import from_torch, to_torch
from omni_stage.pinning import Pinning

TYPES = [getattr(torch, d.name.lower()) for d in DType]

# torch says so of complex32, which is like any other to who only carries it.
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning")


def _numbered(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Bytes that differ from place to place, in any element type; none of them is a bool but 0 and 1."""
    octets = torch.arange(int(np.prod(shape)) * dtype.itemsize, dtype=torch.uint8)
    return (octets % 2 if dtype is torch.bool else octets).view(dtype).reshape(shape)


def _bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _copies(reason: str) -> float:
    return REGISTRY.get_sample_value("omni_tensor_copies_total", {"reason": reason}) or 0.0


def test_every_element_type_of_torch_that_is_plain_memory_can_travel() -> None:
    every = {found for found in vars(torch).values() if isinstance(found, torch.dtype)}
    not_plain = re.compile(r"torch\.(q?u?int[1-7]|q?u?int[24]x[24]|q(u?int8|int32)|bits.*)")
    assert {dtype for dtype in every if not not_plain.fullmatch(str(dtype))} == set(TYPES)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)], ids=str)
def test_a_tensor_comes_back_as_it_was(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = _numbered(dtype, *shape)
    sent = from_torch(tensor)
    assert (sent.dtype.itemsize, sent.shape) == (dtype.itemsize, shape)
    back = to_torch(sent)
    assert (back.dtype, back.shape) == (dtype, tensor.shape)
    assert _bytes(back) == _bytes(tensor)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    "pick",
    [
        pytest.param(lambda t: t.transpose(0, 1), id="transposed"),
        pytest.param(lambda t: t[:, 1:3], id="some columns"),
        pytest.param(lambda t: t[1, ::2], id="every other of a row"),
        pytest.param(lambda t: t[0, 0].expand(3), id="one repeated"),
    ],
)
def test_what_is_not_contiguous_is_copied_once_and_counted(
    dtype: torch.dtype, pick: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    tensor = pick(_numbered(dtype, 3, 4))
    before = _copies("not_contiguous")
    back = to_torch(from_torch(tensor))
    assert (back.shape, _bytes(back)) == (tensor.shape, _bytes(tensor))
    assert _copies("not_contiguous") == before + 1


@pytest.mark.parametrize("promise", [torch.conj, lambda t: t.conj().imag], ids=["conjugated", "negated"])
def test_a_change_that_torch_has_only_promised_is_made(promise: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensor = promise(torch.tensor([1 + 2j, 3 - 4j]))
    assert torch.equal(to_torch(from_torch(tensor)), tensor)


def test_neither_way_copies() -> None:
    before = _copies("not_contiguous")
    tensor = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    assert to_torch(from_torch(tensor)).data_ptr() == tensor.data_ptr()
    assert to_torch(from_torch(tensor[1:])).data_ptr() == tensor[1:].data_ptr()
    assert _copies("not_contiguous") == before


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


def test_what_lies_on_a_device_is_given_back_as_it_lies_there() -> None:
    # The host's own memory stands in for a device's; see test_gpu_tensors.py.
    there = torch.arange(6, dtype=torch.float32)
    memory = TorchMemory(there)
    back = to_torch(Tensor(DType.FLOAT32, (2, 3), memory))
    assert (back.data_ptr(), back.tolist()) == (there.data_ptr(), [[0, 1, 2], [3, 4, 5]])
    received = TorchMemory(there.view(torch.uint8))
    assert to_torch(Tensor(DType.FLOAT32, (2, 3), received)).tolist() == back.tolist()


def test_what_lies_on_a_device_comes_to_the_host_once_or_straight_to_its_place() -> None:
    memory = TorchMemory(torch.arange(6, dtype=torch.int32))
    before = _copies("device")
    into = bytearray(24)
    memory.copy_to(memoryview(into))
    assert _copies("device") == before
    first, second = memory.host(), memory.host()
    assert (bytes(first), first.readonly) == (bytes(into), True)
    assert first.obj is second.obj
    assert _copies("device") == before + 1


def test_a_device_is_known_by_its_name() -> None:
    assert device_of(name_of(torch.device("cpu"))) == torch.device("cpu")
    assert device_of("GPU-of-another-machine") is None


def test_without_a_gpu_an_arena_is_followed_and_left_alone(tmp_path: Path) -> None:
    arena = Arena.create(tmp_path, 1 << 20)
    pinning = Pinning()
    assert pinning.is_behind(arena)
    pinning.follow(arena)
    assert not pinning.is_behind(arena)
    pinning.close()
    arena.close()
