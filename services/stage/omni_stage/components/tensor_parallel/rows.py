"""A step's tensors as one row of bytes: one broadcast takes as long as the next, whatever is in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from omni_stage.components.tensor_parallel.message import ABSENT, TensorShape, places

Rows = Sequence[torch.Tensor | None]
"""What goes into a model's forward, in the model's own order; None for what a step does not have."""

# Their order is what the messages carry; both ends are of one build.
_KINDS = (torch.float32, torch.bfloat16, torch.float16, torch.bool, torch.int32, torch.int64)


def shape_of(tensor: torch.Tensor | None) -> TensorShape:
    if tensor is None:
        return ABSENT
    return TensorShape(_KINDS.index(tensor.dtype), tensor.itemsize, tuple(tensor.shape))


def pack(rows: Rows, shapes: Sequence[TensorShape]) -> torch.Tensor:
    """Their bytes, on their device."""
    there = [row for row in rows if row is not None]
    starts, length = places(shapes)
    packed = torch.zeros(length, dtype=torch.uint8, device=there[0].device)
    for row, start, shape in zip(rows, starts, shapes, strict=True):
        if row is not None:
            packed[start : start + shape.nbytes] = row.contiguous().view(-1).view(torch.uint8)
    return packed


def unpack(packed: torch.Tensor, shapes: Sequence[TensorShape]) -> Rows:
    """Views of the bytes."""
    starts, _ = places(shapes)
    return [
        None if shape == ABSENT else _view(packed[start : start + shape.nbytes], shape)
        for start, shape in zip(starts, shapes, strict=True)
    ]


def _view(flat: torch.Tensor, shape: TensorShape) -> torch.Tensor:
    return flat.view(_KINDS[shape.kind]).view(shape.sizes)
