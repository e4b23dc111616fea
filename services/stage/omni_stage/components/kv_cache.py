"""Keys and values of the tokens that sequences have seen, and blocks of them that outlive their sequence.

`KvStore` is all that attention and runners know, so that another store can take the place of `GrowingStore`. Sequences
and blocks are small integers that the caller chooses, and no call depends on anything but the calls before it: the
same calls in the same order make the same store in another process.
"""

from __future__ import annotations

from typing import Protocol

import torch


class KvStore(Protocol):
    """All keys and values of one model in one process."""

    @property
    def size(self) -> int:
        """Bytes that sequences take, with their room to grow."""

    @property
    def kept(self) -> int:
        """Bytes that blocks take."""

    @property
    def token_size(self) -> int:
        """Bytes of one token's keys and values in all layers; 0 as long as there was none."""

    def open(self, sequence: int, expected: int) -> None:
        """A new, empty sequence, which is expected to have so many tokens; its memory comes with its first tokens."""

    def append(
        self, sequence: int, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds [heads, new, dim] and gives all there is, [heads, tokens, dim], valid until the next append."""

    def length(self, sequence: int) -> int:
        """Tokens that the last layer has seen."""

    def free(self, sequence: int) -> None:
        """Gives the sequence's memory back. Idempotent."""

    def keep(self, sequence: int, block: int, start: int, end: int) -> None:
        """Copies the sequence's tokens [start, end), of every layer, into a new block."""

    def load(self, sequence: int, block: int) -> None:
        """Appends the block's tokens to the sequence, in every layer."""

    def drop(self, block: int) -> None:
        """Gives the block's memory back. Idempotent."""


class GrowingStore:
    """For each sequence one buffer per layer that doubles when it is full: an append copies only the new tokens."""

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self._sequences: dict[int, _Buffers] = {}
        self._blocks: dict[int, torch.Tensor] = {}  # [layers, 2, heads, tokens, dim]
        self._kept = 0
        self.token_size = 0

    @property
    def size(self) -> int:
        return sum(buffers.size for buffers in self._sequences.values())

    @property
    def kept(self) -> int:
        return self._kept

    def open(self, sequence: int, expected: int) -> None:
        if sequence in self._sequences:
            raise ValueError(f"Sequence {sequence} is open already.")
        self._sequences[sequence] = _Buffers(self._layers, expected)

    def append(
        self, sequence: int, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.token_size = 2 * self._layers * keys.shape[0] * keys.shape[2] * keys.itemsize
        return self._sequences[sequence].append(layer, keys, values)

    def length(self, sequence: int) -> int:
        return self._sequences[sequence].length

    def free(self, sequence: int) -> None:
        self._sequences.pop(sequence, None)

    def keep(self, sequence: int, block: int, start: int, end: int) -> None:
        if block in self._blocks:
            raise ValueError(f"Block {block} is kept already.")
        self._blocks[block] = copied = self._sequences[sequence].copy(start, end)
        self._kept += copied.nbytes

    def load(self, sequence: int, block: int) -> None:
        buffers = self._sequences[sequence]
        for layer, (keys, values) in enumerate(self._blocks[block]):
            buffers.append(layer, keys, values)

    def drop(self, block: int) -> None:
        dropped = self._blocks.pop(block, None)
        self._kept -= 0 if dropped is None else dropped.nbytes


class _Buffers:
    """One sequence: per layer its keys and values, [2, heads, room, dim]."""

    def __init__(self, layers: int, expected: int) -> None:
        self._buffers: list[torch.Tensor | None] = [None] * layers
        self._lengths = [0] * layers
        self._expected = expected
        self.size = 0

    @property
    def length(self) -> int:
        return self._lengths[-1]

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        start = self._lengths[layer]
        end = start + keys.shape[1]
        held = self._room(layer, end, keys)
        held[0, :, start:end] = keys
        held[1, :, start:end] = values
        self._lengths[layer] = end
        return held[0, :, :end], held[1, :, :end]

    def copy(self, start: int, end: int) -> torch.Tensor:
        if not 0 <= start < end <= self.length:
            raise ValueError(f"There are no tokens {start} to {end}; the sequence has {self.length}.")
        return torch.stack([held[:, :, start:end] for held in self._buffers if held is not None])

    def _room(self, layer: int, end: int, like: torch.Tensor) -> torch.Tensor:
        held = self._buffers[layer]
        if held is not None and held.shape[2] >= end:
            return held
        room = max(end, self._expected, 2 * held.shape[2] if held is not None else 0)
        grown = like.new_empty(2, like.shape[0], room, like.shape[2])
        if held is not None:
            seen = self._lengths[layer]
            grown[:, :, :seen] = held[:, :, :seen]
            self.size -= held.nbytes
        self._buffers[layer] = grown
        self.size += grown.nbytes
        return grown
