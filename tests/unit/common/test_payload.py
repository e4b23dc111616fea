"""The payload codec: what goes in comes out, and what does not fit is one clean error."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from enum import Enum
from random import Random
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.common.payload_samples import DECLARED, Bundle, Features, Grid, Level, Voice, plain, values

from omni.common.v1.payload_pb2 import Payload, Value, ValueList, ValueMap
from omni.common.v1.tensor_pb2 import DataRef
from omni_common.data_ref import describe_in, tensor_from
from omni_common.errors import Internal
from omni_common.payload import PayloadCodec
from omni_common.tensor import DType, Tensor

CODEC = PayloadCodec(DECLARED)

GRID = Grid(True, -3, 0.5, "ä", b"\x00", Voice.HIGH, Level.LOUD, None, (1, 2, 3.0))
TENSOR = Tensor(DType.BFLOAT16, (2, 2), memoryview(bytes(8)))
FEATURES = Features(TENSOR, TENSOR, (TENSOR,), {"a": TENSOR}, frozenset(Voice), {"b": ((1,), ())})
BUNDLE = Bundle(GRID, (GRID, FEATURES), "loose", Bundle(None, (), 1.5))


def _put(tensor: Tensor, ref: DataRef) -> None:
    describe_in(ref, tensor)
    ref.inline = bytes(tensor.data)


def _with(value: Any, **changes: Any) -> Any:
    """The value with other fields, whatever their types."""
    return replaced(value, **changes)


def _get(ref: DataRef) -> Tensor:
    if len(ref.inline) != ref.length:
        raise Internal("A tensor came with other bytes than it says.")
    return tensor_from(ref, memoryview(ref.inline))


def _encoded(value: object) -> Payload:
    return CODEC.encode(value, _put)


@settings(deadline=None)
@given(values)
def test_every_value_comes_back_as_it_was(value: object) -> None:
    wire = Payload.FromString(_encoded(value).SerializeToString())
    assert plain(CODEC.decode(wire, _get)) == plain(value)


@settings(deadline=None)
@given(st.frozensets(st.sampled_from(Voice)), st.randoms())
def test_equal_sets_make_equal_messages(voices: frozenset[Voice], shuffled: Random) -> None:
    members = list(voices)
    shuffled.shuffle(members)
    again = _with(FEATURES, voices=frozenset(members))
    assert _encoded(_with(FEATURES, voices=voices)) == _encoded(again)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), -0.0, 5e-324])
def test_odd_numbers_keep_their_bits(number: float) -> None:
    value = _with(GRID, rate=number)
    assert plain(CODEC.decode(_encoded(value), _get)) == plain(value)


def test_an_integer_is_taken_where_a_float_is_declared() -> None:
    value = CODEC.decode(_encoded(_with(GRID, rate=2)), _get)
    assert isinstance(value, Grid)
    assert plain(value.rate) == plain(2.0)


def test_a_default_does_not_stand_in_for_a_missing_field() -> None:
    payload = _encoded(BUNDLE)
    del payload.fields[-1]
    with pytest.raises(Internal, match="Bundle came with 3 fields; it has 4"):
        CODEC.decode(payload, _get)


@dataclass(frozen=True)
class Stranger:
    x: int


@dataclass(frozen=True)
class Even:
    """A type with a rule of its own."""

    x: int

    def __post_init__(self) -> None:
        if self.x % 2:
            raise ValueError("odd")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(Stranger(1), id="undeclared type"),
        pytest.param(3, id="no payload at all"),
        pytest.param(None, id="nothing"),
        pytest.param(_with(GRID, flag=1), id="integer for bool"),
        pytest.param(_with(GRID, count=True), id="bool for integer"),
        pytest.param(_with(GRID, count=1 << 63), id="integer too large"),
        pytest.param(_with(GRID, rate=10**400), id="float too large"),
        pytest.param(_with(GRID, rate="1"), id="text for float"),
        pytest.param(_with(GRID, name="\ud800"), id="half a character"),
        pytest.param(_with(GRID, raw=bytearray(1)), id="bytearray for bytes"),
        pytest.param(_with(GRID, voice="low-voice"), id="text for an enum"),
        pytest.param(_with(GRID, nothing=0), id="something for nothing"),
        pytest.param(_with(GRID, size=(1, 2)), id="row too short"),
        pytest.param(_with(GRID, size=[1, 2, 3.0]), id="list for a row"),
        pytest.param(_with(FEATURES, pixels=None), id="nothing for a tensor"),
        pytest.param(_with(FEATURES, layers=(TENSOR, None)), id="nothing among tensors"),
        pytest.param(_with(FEATURES, named={1: TENSOR}), id="a number as key"),
        pytest.param(_with(FEATURES, named={"\ud800": TENSOR}), id="half a character as key"),
        pytest.param(_with(FEATURES, named=(("a", TENSOR),)), id="pairs for a mapping"),
        pytest.param(_with(BUNDLE, item=Stranger(1)), id="undeclared type in a union"),
        pytest.param(_with(BUNDLE, loose=(1,)), id="wrong item in a union"),
    ],
)
def test_a_value_that_is_not_what_its_type_declares_is_not_sent(value: object) -> None:
    with pytest.raises(Internal):
        _encoded(value)


def _as_list(*items: Value) -> Value:
    return Value(list=ValueList(values=items))


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        pytest.param(0, Value(integer=1), id="integer for bool"),
        pytest.param(1, Value(), id="nothing for integer"),
        pytest.param(1, Value(real=1.0), id="real for integer"),
        pytest.param(2, Value(integer=1), id="integer for real"),
        pytest.param(3, Value(data=b"a"), id="bytes for text"),
        pytest.param(4, Value(text="a"), id="text for bytes"),
        pytest.param(5, Value(text="MIDDLE"), id="unknown member"),
        pytest.param(5, Value(text="low-voice"), id="a member's value for its name"),
        pytest.param(6, Value(integer=0), id="number for a member"),
        pytest.param(7, Value(boolean=False), id="something for nothing"),
        pytest.param(8, _as_list(Value(integer=1), Value(integer=2)), id="row too short"),
        pytest.param(8, Value(map=ValueMap()), id="map for a row"),
        pytest.param(8, Value(payload=Payload(type="Grid")), id="payload for a row"),
        pytest.param(8, Value(tensor=DataRef()), id="tensor for a row"),
    ],
)
def test_a_field_that_came_as_something_else_is_refused(place: int, wrong: Value) -> None:
    payload = _encoded(GRID)
    payload.fields[place].CopyFrom(wrong)
    with pytest.raises(Internal):
        CODEC.decode(payload, _get)


def test_the_error_names_the_field_and_tells_nothing_of_its_content() -> None:
    payload = _encoded(GRID)
    payload.fields[1].text = "a secret"
    with pytest.raises(Internal) as caught:
        CODEC.decode(payload, _get)
    assert caught.value.message == "The payload field Grid.count came as text."


def test_a_types_own_rule_refuses_as_an_internal_error() -> None:
    codec = PayloadCodec([Even])
    payload = codec.encode(Even(2), _put)
    payload.fields[0].integer = 3
    with pytest.raises(Internal, match="Even came with values that it does not take"):
        codec.decode(payload, _get)


# Where, to what, and whether that octet is set, inserted or dropped.
_edits = st.tuples(st.floats(0, 1), st.integers(0, 255), st.sampled_from("sid"))


@settings(max_examples=300, deadline=None)
@given(
    values, st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255), st.sampled_from("sid")), min_size=1, max_size=4)
)
def test_a_damaged_message_is_another_value_or_one_internal_error(
    value: object, edits: list[tuple[float, int, str]]
) -> None:
    wire = bytearray(_encoded(value).SerializeToString())
    for where, octet, edit in edits:
        place = int(where * len(wire))
        wire[place : place + (edit != "i")] = b"" if edit == "d" else bytes([octet])
    try:
        payload = Payload.FromString(bytes(wire))
    except DecodeError:
        return  # refused before the codec sees it
    with suppress(Internal):
        assert isinstance(CODEC.decode(payload, _get), DECLARED)


_leaves = st.one_of(
    st.just(Value()),
    st.builds(Value, boolean=st.booleans()),
    st.builds(Value, integer=st.integers(-9, 9)),
    st.builds(Value, text=st.sampled_from(["", "LOW", "LOUD"])),
    st.builds(Value, tensor=st.builds(DataRef, data_type=st.integers(0, 99), shape=st.just([1 << 63] * 9))),
)
_trees = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.builds(lambda items: _as_list(*items), st.lists(inner, max_size=3)),
        st.builds(lambda items: Value(map=ValueMap(values=items)), st.dictionaries(st.sampled_from("ab"), inner)),
        st.builds(
            lambda name, items: Value(payload=Payload(type=name, fields=items)),
            st.sampled_from(["Grid", "Features", "Bundle", ""]),
            st.lists(inner, min_size=4, max_size=9),
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([("Grid", 9), ("Features", 6), ("Bundle", 4)]), st.data())
def test_any_tree_of_values_is_a_payload_or_one_internal_error(kind: tuple[str, int], data: st.DataObject) -> None:
    name, count = kind
    fields = data.draw(st.lists(_trees, min_size=count, max_size=count))
    with suppress(Internal):
        assert isinstance(CODEC.decode(Payload(type=name, fields=fields), _get), DECLARED)


@dataclass
class Thawed:
    x: int


@dataclass(frozen=True)
class Derived:
    x: int = field(init=False, default=0)


@dataclass(frozen=True)
class KeywordOnly:
    x: int = field(kw_only=True)


def _with_field(kind: object) -> type:
    return dataclass(frozen=True)(type("Made", (), {"__annotations__": {"x": kind}}))


@pytest.mark.parametrize(
    "declared",
    [
        pytest.param([Thawed], id="not frozen"),
        pytest.param([int], id="no dataclass"),
        pytest.param([Derived], id="a field that is not given"),
        pytest.param([KeywordOnly], id="a field by keyword only"),
        pytest.param([Even, Even], id="the same name twice"),
        pytest.param([_with_field(object)], id="anything"),
        pytest.param([_with_field(list[int])], id="a list"),
        pytest.param([_with_field(dict[int, int])], id="a mapping of numbers"),
        pytest.param([_with_field(frozenset[Tensor])], id="a set of tensors"),
        pytest.param([_with_field(Stranger)], id="a type that is not declared"),
        pytest.param([_with_field(str | Level)], id="a union that looks alike"),
        pytest.param([_with_field(tuple[int, ...] | tuple[str, ...])], id="a union of lists"),
        pytest.param([_with_field(Mapping)], id="a mapping of who knows what"),
        pytest.param([_with_field(Enum)], id="any member at all"),
    ],
)
def test_a_type_that_cannot_cross_an_edge_is_refused_when_it_is_declared(declared: list[type]) -> None:
    with pytest.raises(TypeError):
        PayloadCodec(declared)
