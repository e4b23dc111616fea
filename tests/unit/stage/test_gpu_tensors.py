"""Tensors on a GPU: they stay there, come to the host in one copy, and wait for whoever makes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from omni_common.arena import Arena
from omni_common.rpc.contract import INLINE_LIMIT
from omni_common.tensor import DType, Tensor
from omni_stage.components.device_memory import TorchMemory, device_of, name_of
from omni_stage.components.pinned import Registration, register
from omni_stage.components.tensors import from_torch, to_torch
from omni_stage.pinning import Pinning

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]

GPU = "cuda:0"
MANY = 1 << 24


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    torch.zeros(1, device=GPU)
    arena = Arena.create(tmp_path, 64 << 20)
    yield arena
    arena.close()


def _slow(device: str = GPU) -> torch.Tensor:
    """Numbers that the GPU takes a while to make, after this has returned."""
    torch.cuda._sleep(200_000_000)  # type: ignore[no-untyped-call]  # cycles: about 0.1 s
    return torch.arange(MANY, dtype=torch.int32, device=device)


def test_a_large_tensor_stays_on_its_gpu_and_comes_back_without_a_copy() -> None:
    tensor = torch.arange(MANY, dtype=torch.float32, device=GPU).reshape(2, -1)
    sent = from_torch(tensor)
    assert sent.on_device
    assert to_torch(sent, GPU).data_ptr() == tensor.data_ptr()
    assert to_torch(sent, "cuda").data_ptr() == tensor.data_ptr()
    assert torch.equal(to_torch(sent), tensor.cpu())


def test_a_small_tensor_leaves_its_gpu_at_once() -> None:
    assert not from_torch(torch.zeros(INLINE_LIMIT, dtype=torch.uint8, device=GPU)).on_device


def test_a_gpu_is_known_by_its_uuid() -> None:
    name = name_of(torch.device(GPU))
    assert name.startswith("GPU-")
    assert device_of(name) == torch.device(GPU)


def test_a_copy_to_the_host_waits_for_the_stream_that_makes_the_tensor() -> None:
    with torch.cuda.stream(torch.cuda.Stream(GPU)):  # type: ignore[no-untyped-call]
        memory = TorchMemory(_slow())
    into = bytearray(memory.nbytes)
    memory.copy_to(memoryview(into))
    assert torch.equal(torch.frombuffer(into, dtype=torch.int32), torch.arange(MANY, dtype=torch.int32))


def test_another_stream_waits_for_the_one_that_makes_the_tensor() -> None:
    with torch.cuda.stream(torch.cuda.Stream(GPU)):  # type: ignore[no-untyped-call]
        memory = TorchMemory(_slow())
    with torch.cuda.stream(torch.cuda.Stream(GPU)):  # type: ignore[no-untyped-call]
        total = memory.tensor().sum(dtype=torch.int64)
    assert total.item() == MANY * (MANY - 1) // 2


def test_a_registered_arena_is_pinned_memory_both_to_write_and_to_read(arena: Arena) -> None:
    written, read = register(arena.view), register(arena.readonly.view)
    assert isinstance(written, Registration)
    assert isinstance(read, Registration)
    assert torch.frombuffer(arena.view, dtype=torch.uint8).is_pinned()
    written.close()
    read.close()
    assert not torch.frombuffer(arena.view, dtype=torch.uint8).is_pinned()


@pytest.mark.parametrize("registered", [True, False], ids=["registered", "pageable"])
def test_a_tensor_goes_through_the_arena_to_a_gpu_and_back(arena: Arena, registered: bool) -> None:
    kept = [register(arena.view), register(arena.readonly.view)] if registered else []
    tensor = torch.arange(4 << 20, dtype=torch.int32, device=GPU)
    slot = slice(1 << 20, (1 << 20) + tensor.nbytes)
    from_torch(tensor).copy_to(arena.view[slot])
    again = to_torch(Tensor(DType.INT32, tuple(tensor.shape), arena.readonly.view[slot]), GPU)
    assert torch.equal(again, tensor)
    for registration in kept:
        assert registration is not None
        registration.close()


def test_what_cuda_refuses_to_register_is_said_and_leaves_no_error_behind(arena: Arena) -> None:
    registration = register(arena.view)
    assert registration is not None
    assert register(arena.view) is None
    assert torch.ones(1, device=GPU).item() == 1
    registration.close()


def test_a_stage_registers_its_pods_arena_and_lets_go_of_one_that_was_replaced(arena: Arena, tmp_path: Path) -> None:
    (tmp_path / "next").mkdir()
    following = Arena.create(tmp_path / "next", 1 << 20)
    pinning = Pinning()
    pinning.follow(arena)
    assert not pinning.is_behind(arena)
    assert pinning.is_behind(following)
    pinning.follow(following)
    assert torch.frombuffer(following.view, dtype=torch.uint8).is_pinned()
    assert not torch.frombuffer(arena.view, dtype=torch.uint8).is_pinned()
    pinning.close()
    following.close()
