"""The kinds of values that a payload's field may hold: how each is checked, and what it looks like on the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from omni.common.v1.payload_pb2 import Payload, Value
from omni.common.v1.tensor_pb2 import DataRef
from omni_common.errors import Internal
from omni_common.tensor import Tensor

Put = Callable[[Tensor, DataRef], None]
"""Says in an empty reference, which is part of the payload already, where the tensor's bytes are. Those that ride in it
are then copied once less."""
Get = Callable[[DataRef], Tensor]

_HASHABLE = frozenset({"boolean", "integer", "real", "text", "data"})


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of field. `where` is the field's name, for error messages; `wire` names the cases of `Value.kind` that
    it takes, "null" for none of them and "payload:X" for the declared type X. `fits` looks at a value's own type only;
    `write` and `read` see values that fit, and check what is inside."""

    where: str
    wire: frozenset[str]
    fits: Callable[[object], bool]
    write: Callable[[Any, Value, Put], None]
    read: Callable[[Value, Get], object]

    def encode(self, value: object, out: Value, put: Put) -> None:
        if not self.fits(value):
            raise self.misfit(value)
        try:
            self.write(value, out, put)
        except (ValueError, OverflowError) as error:  # protobuf's checks of ranges and of UTF-8
            raise self.misfit(value) from error

    def decode(self, value: Value, get: Get) -> object:
        if (case := _wire_of(value)) not in self.wire:
            raise Internal(f"The payload field {self.where} came as {case.partition(':')[0]}.")
        return self.read(value, get)

    def misfit(self, value: object) -> Internal:
        return Internal(f"The payload field {self.where} cannot hold this {type(value).__qualname__}.")


def null(where: str) -> Kind:
    return Kind(where, frozenset({"null"}), lambda v: v is None, lambda v, out, put: None, lambda v, get: None)


def boolean(where: str) -> Kind:
    return _scalar(where, "boolean", lambda v: isinstance(v, bool))


def integer(where: str) -> Kind:
    return _scalar(where, "integer", _is_integer)


def real(where: str) -> Kind:
    """Takes integers too, as annotations of float do."""
    return _scalar(where, "real", lambda v: isinstance(v, float) or _is_integer(v))


def text(where: str) -> Kind:
    return _scalar(where, "text", lambda v: isinstance(v, str))


def data(where: str) -> Kind:
    return _scalar(where, "data", lambda v: isinstance(v, bytes))


def tensor(where: str) -> Kind:
    return Kind(
        where,
        frozenset({"tensor"}),
        lambda v: isinstance(v, Tensor),
        lambda v, out, put: put(v, out.tensor),
        lambda v, get: get(v.tensor),
    )


def member(where: str, members: type[Enum]) -> Kind:
    """A member of an enumeration, by its name."""
    if not len(members):
        raise TypeError(f"{where} is declared as an enumeration without members")

    def write(value: Enum, out: Value, put: Put) -> None:
        out.text = value.name

    def read(value: Value, get: Get) -> Enum:
        try:
            return members[value.text]
        except KeyError as error:
            raise Internal(f"The payload field {where} came with an unknown {members.__qualname__}.") from error

    return Kind(where, frozenset({"text"}), lambda v: isinstance(v, members), write, read)


def nested(
    where: str,
    declared: type,
    encode: Callable[[object, Payload, Put], None],
    decode: Callable[[Payload, Get], object],
) -> Kind:
    """A value of another declared type."""

    def write(value: object, out: Value, put: Put) -> None:
        encode(value, out.payload, put)

    return Kind(
        where,
        frozenset({f"payload:{declared.__qualname__}"}),
        lambda v: type(v) is declared,
        write,
        lambda v, get: decode(v.payload, get),
    )


def sequence(where: str, make: type[tuple[object, ...]] | type[frozenset[object]], item: Kind) -> Kind:
    """Any number of items of one kind. A set leaves in a fixed order, so equal values make equal messages."""
    if make is frozenset and not item.wire <= _HASHABLE:
        raise TypeError(f"{where} is declared as a set of what cannot be in a set")

    def write(values: Sequence[object] | frozenset[object], out: Value, put: Put) -> None:
        out.list.SetInParent()
        for value in sorted(values, key=repr) if make is frozenset else values:
            item.encode(value, out.list.values.add(), put)

    def read(value: Value, get: Get) -> object:
        return make(item.decode(part, get) for part in value.list.values)

    return Kind(where, frozenset({"list"}), lambda v: isinstance(v, make), write, read)


def row(where: str, items: Sequence[Kind]) -> Kind:
    """A tuple of so many items, each of its own kind."""

    def write(values: tuple[object, ...], out: Value, put: Put) -> None:
        out.list.SetInParent()
        for item, value in zip(items, values, strict=True):
            item.encode(value, out.list.values.add(), put)

    def read(value: Value, get: Get) -> object:
        if len(value.list.values) != len(items):
            raise Internal(f"The payload field {where} came with {len(value.list.values)} items, not {len(items)}.")
        return tuple(item.decode(part, get) for item, part in zip(items, value.list.values, strict=True))

    return Kind(where, frozenset({"list"}), lambda v: isinstance(v, tuple) and len(v) == len(items), write, read)


def mapping(where: str, item: Kind) -> Kind:
    """Texts to values of one kind. The wire keeps no order."""

    def write(values: Mapping[str, object], out: Value, put: Put) -> None:
        out.map.SetInParent()
        for key, value in values.items():
            if not isinstance(key, str):
                raise Internal(f"The payload field {where} has a key that is no text.")
            item.encode(value, out.map.values[key], put)

    def read(value: Value, get: Get) -> object:
        return {key: item.decode(part, get) for key, part in value.map.values.items()}

    return Kind(where, frozenset({"map"}), lambda v: isinstance(v, Mapping), write, read)


def one_of(where: str, kinds: Sequence[Kind]) -> Kind:
    """A union. Its members must differ on the wire, so that a value comes back as what it was."""
    by_wire = {case: kind for kind in kinds for case in kind.wire}
    if len(by_wire) != sum(len(kind.wire) for kind in kinds):
        raise TypeError(f"{where} is declared as a union of types that look alike on the wire")
    # float takes integers as well, so it is asked last.
    in_turn = sorted(kinds, key=lambda kind: "real" in kind.wire)

    def write(value: object, out: Value, put: Put) -> None:
        next(kind for kind in in_turn if kind.fits(value)).encode(value, out, put)

    return Kind(
        where,
        frozenset(by_wire),
        lambda v: any(kind.fits(v) for kind in kinds),
        write,
        lambda v, get: by_wire[_wire_of(v)].decode(v, get),
    )


def _scalar(where: str, case: str, fits: Callable[[object], bool]) -> Kind:
    return Kind(
        where,
        frozenset({case}),
        fits,
        lambda value, out, put: setattr(out, case, value),
        lambda value, get: getattr(value, case),
    )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wire_of(value: Value) -> str:
    case = value.WhichOneof("kind")
    return "null" if case is None else f"payload:{value.payload.type}" if case == "payload" else case
