"""Pure: what rank 0 tells its followers before a step, as a row of 64-bit integers.

    operations, spans, tensors | 4 integers an operation | 2 a span | kind, dimensions, 4 sizes a tensor

Operations are those of the cache since the last message, in order; a message without spans has no step. The tensors'
bytes follow by a broadcast, one after another, each from a multiple of ALIGNMENT on.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

ALIGNMENT = 16
MAX_DIMENSIONS = 4


class Op(IntEnum):
    """An operation of a `KvStore`, but for those of the model's own forward."""

    OPEN = 0
    FREE = 1
    KEEP = 2
    LOAD = 3
    DROP = 4


@dataclass(frozen=True, slots=True)
class Operation:
    """The numbers are the call's arguments; those that it does not have are 0."""

    op: Op
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorShape:
    """`kind` is the number of an element type, `width` its bytes; ABSENT for a tensor that this step does not have."""

    kind: int
    width: int = 0
    sizes: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        return self.width * math.prod(self.sizes) if self.width else 0


ABSENT = TensorShape(-1)


@dataclass(frozen=True, slots=True)
class Message:
    operations: tuple[Operation, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    tensors: tuple[TensorShape, ...] = ()


# How many numbers each operation has.
_NUMBERS = {Op.OPEN: 2, Op.FREE: 1, Op.KEEP: 4, Op.LOAD: 2, Op.DROP: 1}
_MOST_NUMBERS = 4
_OF_TENSOR = 3 + MAX_DIMENSIONS


def encode(message: Message) -> bytes:
    row = array("q", (len(message.operations), len(message.spans), len(message.tensors)))
    for operation in message.operations:
        row.append(operation.op)
        row.extend((*operation.numbers, *[0] * (_MOST_NUMBERS - len(operation.numbers))))
    for span in message.spans:
        row.extend(span)
    for tensor in message.tensors:
        padding = [0] * (MAX_DIMENSIONS - len(tensor.sizes))
        row.extend((tensor.kind, tensor.width, len(tensor.sizes), *tensor.sizes, *padding))
    return row.tobytes()


def decode(data: bytes) -> Message:
    """Raises ValueError when it is no message."""
    row = array("q")
    row.frombytes(data)
    if len(row) < 3:
        raise ValueError("a message without its counts")
    operations, spans, tensors = row[:3]
    ends = (3, 3 + (1 + _MOST_NUMBERS) * operations)
    starts = (*ends, ends[1] + 2 * spans)
    if min(row[:3]) < 0 or len(row) != starts[2] + _OF_TENSOR * tensors:
        raise ValueError(f"a message of {len(row)} numbers announces {operations}, {spans} and {tensors} parts")
    return Message(
        operations=tuple(map(_operation, _cut(row[starts[0] : starts[1]], 1 + _MOST_NUMBERS))),
        spans=tuple((sequence, length) for sequence, length in _cut(row[starts[1] : starts[2]], 2)),
        tensors=tuple(map(_tensor, _cut(row[starts[2] :], _OF_TENSOR))),
    )


def places(tensors: Sequence[TensorShape]) -> tuple[Sequence[int], int]:
    """Where the bytes of each tensor begin in the broadcast, and how many bytes that has."""
    starts: list[int] = []
    end = 0
    for tensor in tensors:
        starts.append(end)
        end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    return starts, end


def _operation(numbers: Sequence[int]) -> Operation:
    op = Op(numbers[0])
    return Operation(op, tuple(numbers[1 : 1 + _NUMBERS[op]]))


def _tensor(numbers: Sequence[int]) -> TensorShape:
    kind, width, dimensions, *sizes = numbers
    if not 0 <= dimensions <= MAX_DIMENSIONS:
        raise ValueError(f"a tensor of {dimensions} dimensions")
    return TensorShape(kind, width, tuple(sizes[:dimensions]))


def _cut(row: array[int], length: int) -> Iterator[Sequence[int]]:
    return (row[start : start + length] for start in range(0, len(row), length))
