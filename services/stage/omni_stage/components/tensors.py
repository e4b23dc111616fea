"""`omni_common.tensor.Tensor` ⇄ torch, without a copy on the CPU."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch

from omni_common.telemetry import names
from omni_common.tensor import DType, Tensor

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

    Copied only to another device, or where the bytes are not aligned to their element size.
    """
    dtype = _TORCH[tensor.dtype]
    if prod(tensor.shape) == 0:
        return torch.empty(tensor.shape, dtype=dtype, device=device)
    borrowed = _Borrowed(tensor.data)
    flat = torch.from_numpy(np.asarray(borrowed))
    if not borrowed.aligned(tensor.dtype.itemsize):
        flat = flat.clone()
    return flat.view(dtype).reshape(tensor.shape).to(device)


def from_torch(tensor: torch.Tensor) -> Tensor:
    """The tensor's own memory where it is contiguous and on the CPU; do not write to it afterwards.

    What is not is copied once, on its device, and counted; so is what leaves a device.
    """
    # Conjugation and negation may be promised only, by a bit beside the memory.
    dense = tensor.detach().resolve_conj().resolve_neg()
    if not dense.is_contiguous():
        names.TENSOR_COPIES.labels("not_contiguous").inc()
        dense = dense.contiguous()
    if dense.device.type != "cpu":
        names.TENSOR_COPIES.labels("device").inc()
        dense = dense.to("cpu")
    flat = dense.reshape(-1).view(torch.uint8).numpy()
    return Tensor(_OMNI[tensor.dtype], tuple(tensor.shape), flat.data.toreadonly())
