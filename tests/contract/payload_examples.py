"""Values of payload types, made from their annotations alone, and whether two of them are the same."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from enum import Enum

from omni_common.tensor import DType, Tensor

_SCALARS: Mapping[object, tuple[object, ...]] = {
    type(None): (None,),
    bool: (True, False),
    int: (-3, 1 << 40),
    float: (0.5, -1e300),
    str: ("", "größer →"),
    bytes: (b"", bytes(range(256))),
    Tensor: (
        Tensor(DType.FLOAT32, (2, 3), memoryview(bytes(range(24)))),
        Tensor(DType.INT16, (0, 4), memoryview(b"")),
        Tensor(DType.UINT8, (100_000,), memoryview(bytes(100_000))),  # above the inline limit
    ),
}


def examples(hint: object) -> tuple[object, ...]:
    """Some values of an annotation: every member of a union, empty and filled containers."""
    if (scalars := _SCALARS.get(hint)) is not None:
        return scalars
    parts = [examples(part) for part in typing.get_args(hint) if part is not Ellipsis]
    match typing.get_origin(hint):
        case types.UnionType | typing.Union:
            return tuple(value for part in parts for value in part)
        case origin if origin is tuple and Ellipsis in typing.get_args(hint):
            return ((), parts[0])
        case origin if origin is tuple:
            return (tuple(part[0] for part in parts), tuple(part[-1] for part in parts))
        case origin if origin is frozenset:
            return (frozenset(), frozenset(parts[0]))
        case origin if origin is not None and issubclass(origin, Mapping):
            return ({}, dict(zip("abc", parts[1], strict=False)))
    assert isinstance(hint, type), f"{hint} has no examples"
    return tuple(hint) if issubclass(hint, Enum) else tuple(_made(hint))


def same(one: object, other: object) -> bool:
    """Equality that looks into tensors, which have none of their own."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return (one.dtype, one.shape, bytes(one.data)) == (other.dtype, other.shape, bytes(other.data))
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    return one == other


def _made(kind: type) -> Iterator[object]:
    """As many as its richest field has examples, so that each of them occurs."""
    hints = typing.get_type_hints(kind)
    columns = [examples(hints[field.name]) for field in dataclasses.fields(kind)]
    for row in range(max(map(len, columns), default=1)):
        yield kind(*(column[row % len(column)] for column in columns))
