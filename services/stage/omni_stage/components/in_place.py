"""Tensors of torch that are made where they leave the stage from."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from omni_stage.program import Space


def empty_in_place(space: Space, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A CPU tensor to be filled, such as by `out=` or `copy_`, and then sent: `from_torch` of it, whole, leaves without
    a copy. Where there is no space for it, ordinary memory, which is copied once when it is sent.

    It must not be written to any more once it has been sent; the next step takes another.
    """
    elements = prod(shape)
    data = space.allocate(elements * dtype.itemsize) if elements else None
    if data is None:
        return torch.empty(tuple(shape), dtype=dtype)
    return torch.frombuffer(data, dtype=dtype, count=elements).reshape(tuple(shape))
