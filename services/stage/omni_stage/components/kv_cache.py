"""Keys and values of the tokens that a sequence has seen: one cache per sequence.

`SequenceCache` is all that attention knows, so that a cache of shared pages can take the place of `GrowingCache`.
"""

from __future__ import annotations

from typing import Protocol

import torch


class SequenceCache(Protocol):
    """One sequence's keys and values in every layer."""

    @property
    def length(self) -> int:
        """Tokens that the last layer has seen."""

    @property
    def size(self) -> int:
        """Bytes that it takes, with its room to grow."""

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds [heads, new, dim] and gives all there is, [heads, tokens, dim], valid until the next append."""

    def free(self) -> None:
        """Gives the memory back. Idempotent."""


class GrowingCache:
    """One buffer per layer that doubles when it is full: an append copies only the new tokens."""

    def __init__(self, layers: int, expected: int = 256) -> None:
        self._buffers: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * layers
        self._lengths = [0] * layers
        self._size = 0
        self._expected = expected  # tokens to make room for at first

    @property
    def length(self) -> int:
        return self._lengths[-1]

    @property
    def size(self) -> int:
        return self._size

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        start = self._lengths[layer]
        end = start + keys.shape[1]
        all_keys, all_values = self._room(layer, end, keys, values)
        all_keys[:, start:end] = keys
        all_values[:, start:end] = values
        self._lengths[layer] = end
        return all_keys[:, :end], all_values[:, :end]

    def free(self) -> None:
        self._buffers = [None] * len(self._buffers)
        self._lengths = [0] * len(self._lengths)
        self._size = 0

    def _room(
        self, layer: int, end: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        held = self._buffers[layer]
        if held is not None and held[0].shape[1] >= end:
            return held
        room = max(end, self._expected, 2 * held[0].shape[1] if held else 0)
        grown = (
            keys.new_empty(keys.shape[0], room, keys.shape[2]),
            values.new_empty(values.shape[0], room, values.shape[2]),
        )
        if held is not None:
            seen = self._lengths[layer]
            for new, old in zip(grown, held, strict=True):
                new[:, :seen] = old[:, :seen]
        self._buffers[layer] = grown
        self._size += sum(new.nbytes for new in grown) - sum(old.nbytes for old in held or ())
        return grown
