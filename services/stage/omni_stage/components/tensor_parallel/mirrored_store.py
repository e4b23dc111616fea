"""Rank 0's store of keys and values, which has the other ranks' stores do the same: each has heads of its own.

What is appended comes from each rank's own forward; all else is noted here and goes with the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from omni_stage.components.kv_cache import KvStore
from omni_stage.components.tensor_parallel.message import Op, Operation

# Operations that wait for a step at most: requests that end before their first one have no other end.
_MOST_NOTED = 1024


class MirroredStore:
    """A KvStore. `tell` takes what no step may come for: the end of the last sequence, and what has waited too long."""

    def __init__(self, own: KvStore, tell: Callable[[Sequence[Operation]], None]) -> None:
        self._own = own
        self._tell = tell
        self._noted: list[Operation] = []
        self._opened: set[int] = set()

    @property
    def size(self) -> int:
        return self._own.size

    @property
    def kept(self) -> int:
        return self._own.kept

    @property
    def token_size(self) -> int:
        return self._own.token_size

    def open(self, sequence: int, expected: int) -> None:
        self._own.open(sequence, expected)
        self._opened.add(sequence)
        self._note(Op.OPEN, sequence, expected)

    def append(
        self, sequence: int, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._own.append(sequence, layer, keys, values)

    def length(self, sequence: int) -> int:
        return self._own.length(sequence)

    def free(self, sequence: int) -> None:
        self._own.free(sequence)
        if sequence not in self._opened:
            return
        self._opened.remove(sequence)
        self._note(Op.FREE, sequence)
        if not self._opened:
            self._tell(self.take_noted())

    def keep(self, sequence: int, block: int, start: int, end: int) -> None:
        self._own.keep(sequence, block, start, end)
        self._note(Op.KEEP, sequence, block, start, end)

    def load(self, sequence: int, block: int) -> None:
        self._own.load(sequence, block)
        self._note(Op.LOAD, sequence, block)

    def drop(self, block: int) -> None:
        self._own.drop(block)
        self._note(Op.DROP, block)

    def take_noted(self) -> Sequence[Operation]:
        """What the other ranks have not been told yet."""
        noted, self._noted = self._noted, []
        return noted

    def _note(self, op: Op, *numbers: int) -> None:
        self._noted.append(Operation(op, numbers))
        if len(self._noted) > _MOST_NOTED:
            self._tell(self.take_noted())


def repeat(store: KvStore, operation: Operation) -> None:
    """Does at another rank what was noted at rank 0."""
    numbers = operation.numbers
    match operation.op:
        case Op.OPEN:
            store.open(numbers[0], numbers[1])
        case Op.FREE:
            store.free(numbers[0])
        case Op.KEEP:
            store.keep(numbers[0], numbers[1], numbers[2], numbers[3])
        case Op.LOAD:
            store.load(numbers[0], numbers[1])
        case Op.DROP:
            store.drop(numbers[0])
