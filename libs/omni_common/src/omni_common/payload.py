"""Payloads: frozen dataclasses that cross an edge, derived from their annotations, with no pickle.

A model declares its payload types. A field may be bool, int, float, str, bytes, an Enum, a Tensor, another declared
type, tuple[X, ...], tuple[X, Y], frozenset[X], Mapping[str, X], or a union of those that the wire can tell apart.
A message that does not fit its type, field by field, is an Internal error of that one request: the sender runs other
code, or lies. Nothing of the message's content is in the error.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum

from omni.common.v1.payload_pb2 import Payload
from omni_common import payload_kinds as kinds
from omni_common.errors import Internal
from omni_common.tensor import Tensor

_SCALARS: Mapping[object, Callable[[str], kinds.Kind]] = {
    type(None): kinds.null,
    bool: kinds.boolean,
    int: kinds.integer,
    float: kinds.real,
    str: kinds.text,
    bytes: kinds.data,
    Tensor: kinds.tensor,
}


class PayloadCodec:
    """Values of the declared types to messages and back.

    Raises TypeError when a type cannot cross an edge, at construction and never later.
    """

    def __init__(self, declared: Sequence[type]) -> None:
        self._declared = {name_of(kind): kind for kind in declared}
        if len(self._declared) != len(declared):
            raise TypeError("two payload types have the same name")
        for kind in declared:
            _require_frozen(kind)
        self._fields = {name: self._fields_of(kind) for name, kind in self._declared.items()}

    def encode(self, value: object, put: kinds.Put) -> Payload:
        """Raises Internal when the value, or part of it, is not what its type declares. `put` places tensors."""
        payload = Payload()
        self._encode(value, payload, put)
        return payload

    def decode(self, payload: Payload, get: kinds.Get) -> object:
        """Raises Internal when the message does not fit a declared type, and whatever `get` raises."""
        fields = self._fields.get(payload.type)
        if fields is None:
            raise Internal("A payload came whose type this stage does not declare.")
        if len(fields) != len(payload.fields):
            raise Internal(f"A {payload.type} came with {len(payload.fields)} fields; it has {len(fields)}.")
        decoded = [kind.decode(field, get) for (_, kind), field in zip(fields, payload.fields, strict=True)]
        try:
            return self._declared[payload.type](*decoded)
        except (ValueError, TypeError) as error:  # what a type's own checks raise
            raise Internal(f"A {payload.type} came with values that it does not take.") from error

    def tensors(self, value: object) -> Iterator[Tensor]:
        """Those in a value that crosses an edge as it is; of what else is in it, nothing is checked. Raises Internal
        when the value's type is not declared."""
        self._name(value)
        yield from _tensors(value)

    def _name(self, value: object) -> str:
        name = name_of(type(value))
        if self._declared.get(name) is not type(value):
            raise Internal(f"A {name} was sent, which is not a declared payload type.")
        return name

    def _encode(self, value: object, payload: Payload, put: kinds.Put) -> None:
        name = payload.type = self._name(value)
        for field, kind in self._fields[name]:
            kind.encode(getattr(value, field), payload.fields.add(), put)

    def _fields_of(self, declared: type) -> Sequence[tuple[str, kinds.Kind]]:
        hints = typing.get_type_hints(declared)
        return [
            (field.name, self._kind(hints[field.name], f"{name_of(declared)}.{field.name}"))
            for field in dataclasses.fields(declared)
        ]

    def _kind(self, hint: object, where: str) -> kinds.Kind:
        if (scalar := _SCALARS.get(hint)) is not None:
            return scalar(where)
        if isinstance(hint, type) and typing.get_origin(hint) is None:
            if issubclass(hint, Enum):
                return kinds.member(where, hint)
            if self._declared.get(name_of(hint)) is hint:
                return kinds.nested(where, hint, self._encode, self.decode)
        return self._compound(hint, where)

    def _compound(self, hint: object, where: str) -> kinds.Kind:
        inner = [part for part in typing.get_args(hint) if part is not Ellipsis]
        parts = [self._kind(part, where) for part in inner]
        match typing.get_origin(hint):
            case types.UnionType | typing.Union:
                return kinds.one_of(where, parts)
            case origin if origin is tuple and typing.get_args(hint)[1:] == (Ellipsis,):
                return kinds.sequence(where, tuple, parts[0])
            case origin if origin is tuple and parts:
                return kinds.row(where, parts)
            case origin if origin is frozenset:
                return kinds.sequence(where, frozenset, parts[0])
            case origin if origin in (Mapping, dict) and inner[0] is str:
                return kinds.mapping(where, parts[1])
        raise TypeError(f"{where} is declared as {hint}, which cannot cross an edge")


def name_of(kind: type) -> str:
    """A type's name on the wire."""
    return kind.__qualname__


def _tensors(value: object) -> Iterator[Tensor]:
    parts: Iterable[object] = ()
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        parts = (getattr(value, field.name) for field in dataclasses.fields(value))
    elif isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, tuple | frozenset):
        parts = value
    for part in parts:
        yield from _tensors(part)


def _require_frozen(kind: type) -> None:
    if not dataclasses.is_dataclass(kind) or not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise TypeError(f"the payload type {name_of(kind)} is not a frozen dataclass")
    if not all(field.init and not field.kw_only for field in dataclasses.fields(kind)):
        raise TypeError(f"the payload type {name_of(kind)} cannot be made from its fields in order")
