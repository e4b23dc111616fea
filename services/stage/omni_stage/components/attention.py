"""Attention over a packed batch: sequences of different lengths in one row, one after another, without padding.

transformers' modules see one row of all new tokens [1, tokens, …], so that every linear and expert layer runs once
for the whole batch; only here is the row cut into its sequences, each attending to what the store has of it. A module
takes part when it is made with `attn_implementation=PACKED` and called with `packed=` the row's `Packed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from omni_stage.components.kv_cache import KvStore

PACKED = "omni_packed"


@dataclass(frozen=True, slots=True)
class Span:
    """The next `length` tokens of the row are new tokens of this sequence."""

    sequence: int
    length: int


@dataclass(frozen=True, slots=True)
class Packed:
    """A row: its spans in order, and the store that has their sequences."""

    store: KvStore
    spans: Sequence[Span]


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    *,
    packed: Packed,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """One of transformers' attention functions: [1, heads, tokens, dim] in, [1, tokens, heads, dim] out."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    grouped = query.shape[1] != key.shape[1]
    pieces: list[torch.Tensor] = []
    start = 0
    for span in packed.spans:
        end = start + span.length
        keys, values = packed.store.append(span.sequence, layer, key[0, :, start:end], value[0, :, start:end])
        seen = keys.shape[1] - span.length
        pieces.append(
            scaled_dot_product_attention(
                query[:, :, start:end],
                keys[None],
                values[None],
                attn_mask=_mask(span.length, seen),
                is_causal=span.length > 1 and seen == 0,
                scale=scaling,
                enable_gqa=grouped,
            )
        )
        start = end
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous(), None


def _mask(new: int, seen: int) -> torch.Tensor | None:
    """Needed only where several new tokens follow old ones: each may look at the old ones and back to itself.

    It is a rule and no matrix. On a GPU grouped heads and a matrix go together by one way only, which makes all scores
    at once: for a long prompt behind a long one, more than the GPU has.
    """
    if new == 1 or seen == 0:
        return None
    return causal_lower_right(new, seen + new)


AttentionInterface.register(PACKED, packed_attention)
