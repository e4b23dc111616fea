"""The references to tensors in a payload."""

from __future__ import annotations

from collections.abc import Iterator

from omni.common.v1.payload_pb2 import Payload, Value
from omni.common.v1.tensor_pb2 import DataRef


def refs_in(payload: Payload) -> Iterator[DataRef]:
    """All of them, whatever the payload's type."""
    for value in payload.fields:
        yield from _refs_in_value(value)


def _refs_in_value(value: Value) -> Iterator[DataRef]:
    match value.WhichOneof("kind"):
        case "tensor":
            yield value.tensor
        case "payload":
            yield from refs_in(value.payload)
        case "list":
            for item in value.list.values:
                yield from _refs_in_value(item)
        case "map":
            for item in value.map.values.values():
                yield from _refs_in_value(item)
