"""`omni_common.tensor.Tensor` ⇄ torch, without a copy where the tensor stays where it is."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch

from omni_common.rpc.contract import INLINE_LIMIT
from omni_common.telemetry import names
from omni_common.tensor import DType, Tensor
from omni_stage.components.device_memory import TorchMemory, bytes_of
from omni_stage.components.pinned import upload

_TORCH: dict[DType, torch.dtype] = {dtype: getattr(torch, dtype.name.lower()) for dtype in DType}
_OMNI = {theirs: ours for ours, theirs in _TORCH.items()}


class _Borrowed:
    """A peer's bytes as numpy's array interface shows them, said to be writable.

    torch has no read-only tensors and warns about read-only buffers; nobody writes to a tensor made by `to_torch`.
    The array made of this object keeps it, and with it the view and its lease, alive.
    """

    def __init__(self, view: memoryview) -> None:
        self._view = view
        address = np.frombuffer(view, dtype=np.uint8).__array_interface__["data"][0]
        self.__array_interface__: dict[str, Any] = {
            "shape": (view.nbytes,),
            "typestr": "|u1",
            "data": (address, False),
            "version": 3,
        }

    def aligned(self, itemsize: int) -> bool:
        return int(self.__array_interface__["data"][0]) % itemsize == 0


def to_torch(tensor: Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
    """The same bytes as a torch tensor, to be read only; the source stays alive as long as any view of it.

    Copied only to another device, or where the bytes are not aligned to their element size. On a GPU it is ready for
    whatever the current stream does with it.
    """
    dtype = _TORCH[tensor.dtype]
    if prod(tensor.shape) == 0:
        return torch.empty(tensor.shape, dtype=dtype, device=device)
    if isinstance(tensor.memory, TorchMemory):
        there = tensor.memory.tensor()
        return there.view(dtype).reshape(tensor.shape).to(device)
    borrowed = _Borrowed(tensor.data)
    flat = torch.from_numpy(np.asarray(borrowed))
    if not borrowed.aligned(tensor.dtype.itemsize):
        flat = flat.clone()
    return upload(flat, torch.device(device)).view(dtype).reshape(tensor.shape)


def from_torch(tensor: torch.Tensor) -> Tensor:
    """The tensor's own memory where it is contiguous; do not write to it afterwards, nor let the next step do so: it
    is read when it is sent, and later.

    What is not contiguous is copied once, on its device, and counted. What is on a GPU stays there, unless it is so
    small that it rides inside a frame anyway.
    """
    # Conjugation and negation may be promised only, by a bit beside the memory.
    dense = tensor.detach().resolve_conj().resolve_neg()
    if not dense.is_contiguous():
        names.TENSOR_COPIES.labels("not_contiguous").inc()
        dense = dense.contiguous()
    if dense.device.type == "cuda" and dense.nbytes > INLINE_LIMIT:
        return Tensor(_OMNI[tensor.dtype], tuple(tensor.shape), _resting(dense))
    if dense.device.type != "cpu":
        names.TENSOR_COPIES.labels("device").inc()
        dense = dense.to("cpu")
    return Tensor(_OMNI[tensor.dtype], tuple(tensor.shape), bytes_of(dense).numpy().data.toreadonly())


def _resting(dense: torch.Tensor) -> TorchMemory:
    memory = TorchMemory(dense)
    # Its bytes may be asked for on the event loop, which must not wait for a model's step.
    torch.cuda.current_stream(dense.device).synchronize()
    return memory
