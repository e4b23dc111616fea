"""Payload types with every kind of field, strategies that make them, and what makes two values equal."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum, StrEnum
from math import prod

from hypothesis import strategies as st

from omni_common.tensor import DType, Tensor


class Voice(StrEnum):
    LOW = "low-voice"
    HIGH = "high-voice"


class Level(Enum):
    QUIET = 0
    LOUD = 11


@dataclass(frozen=True, slots=True)
class Grid:
    """All scalars."""

    flag: bool
    count: int
    rate: float
    name: str
    raw: bytes
    voice: Voice
    level: Level
    nothing: None
    size: tuple[int, int, float]


@dataclass(frozen=True, slots=True)
class Features:
    """All containers."""

    pixels: Tensor
    maybe: Tensor | None
    layers: tuple[Tensor, ...]
    named: Mapping[str, Tensor]
    voices: frozenset[Voice]
    table: Mapping[str, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True, slots=True)
class Bundle:
    """All unions, and types within types; may hold itself."""

    item: Grid | Features | None
    items: tuple[Grid | Features, ...]
    loose: bool | int | float | str | bytes | tuple[str, ...] | None
    inner: Bundle | None = None


DECLARED = (Grid, Features, Bundle)

_names = st.text(max_size=8)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(DType))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    size = prod(shape) * dtype.itemsize
    return Tensor(dtype, shape, memoryview(draw(st.binary(min_size=size, max_size=size))))


_sint64 = st.integers(-(1 << 63), (1 << 63) - 1)

grids = st.builds(
    Grid,
    flag=st.booleans(),
    count=_sint64,
    rate=st.floats(),
    name=_names,
    raw=st.binary(max_size=8),
    voice=st.sampled_from(Voice),
    level=st.sampled_from(Level),
    nothing=st.none(),
    size=st.tuples(_sint64, _sint64, st.floats()),
)

features = st.builds(
    Features,
    pixels=tensors(),
    maybe=st.none() | tensors(),
    layers=st.lists(tensors(), max_size=3).map(tuple),
    named=st.dictionaries(_names, tensors(), max_size=2),
    voices=st.frozensets(st.sampled_from(Voice)),
    table=st.dictionaries(
        _names, st.lists(st.lists(_sint64, max_size=2).map(tuple), max_size=2).map(tuple), max_size=2
    ),
)

_loose = (
    st.none()
    | st.booleans()
    | _sint64
    | st.floats()
    | _names
    | st.binary(max_size=4)
    | st.lists(_names, max_size=2).map(tuple)
)

bundles = st.recursive(
    st.builds(Bundle, st.none(), st.just(()), _loose),
    lambda inner: st.builds(
        Bundle, st.none() | grids | features, st.lists(grids | features, max_size=2).map(tuple), _loose, inner
    ),
    max_leaves=4,
)

values = grids | features | bundles


def plain(value: object) -> object:
    """A value as what it is made of, so that equal means the same types and the same bits."""
    match value:
        case Tensor():
            return ("tensor", value.dtype, value.shape, bytes(value.data))
        case float():
            return ("float", struct.pack("<d", value))
        case tuple():
            return ("tuple", *map(plain, value))
        case frozenset():
            return ("set", value)
        case Mapping():
            return ("map", {key: plain(part) for key, part in value.items()})
        case _ if is_dataclass(value):
            return (type(value), *(plain(getattr(value, field.name)) for field in fields(value)))
        case _:
            return (type(value), value)
