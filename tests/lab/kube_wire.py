"""What client-go's typed clients send as protobuf here: a Secret (where helm keeps its releases), a Namespace and the
options of a deletion. Everything else comes as JSON or YAML.

`application/vnd.kubernetes.protobuf` is the word `k8s\\0`, then `runtime.Unknown`: 1 = {1 = apiVersion, 2 = kind},
2 = the object's bytes. A Secret: 1 = ObjectMeta (1 name, 3 namespace, 11 labels, 12 annotations), 2 = data, 3 = type.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

MAGIC = b"k8s\0"


def decode(body: bytes) -> dict[str, Any]:
    """Of a Secret and a Namespace all that matters here, of anything else its kind."""
    unknown = dict(_fields(body.removeprefix(MAGIC)))
    kinds = dict(_fields(unknown[1]))
    kind = kinds[2].decode()
    if kind not in ("Secret", "Namespace"):
        return {"kind": kind}
    content = list(_fields(unknown[2]))
    whole = dict(content)
    told = {"apiVersion": kinds[1].decode(), "kind": kind, "metadata": _metadata(list(_fields(whole[1])))}
    if kind == "Namespace":
        return told
    data = _map(content, 2, lambda value: base64.b64encode(value).decode())
    return {**told, "type": whole.get(3, b"").decode(), "data": data}


def _metadata(fields: list[tuple[int, bytes]]) -> dict[str, Any]:
    names = dict(fields)
    told = {key: names[number].decode() for number, key in ((1, "name"), (3, "namespace")) if names.get(number)}
    return {**told, "labels": _map(fields, 11, bytes.decode), "annotations": _map(fields, 12, bytes.decode)}


def _map(fields: list[tuple[int, bytes]], number: int, read: Callable[[bytes], str]) -> dict[str, str]:
    entries = [dict(_fields(value)) for field, value in fields if field == number]
    return {entry.get(1, b"").decode(): read(entry.get(2, b"")) for entry in entries}


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Its length-delimited fields; numbers are passed over."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        match tag & 7:
            case 2:
                length, place = _varint(message, place)
                yield tag >> 3, message[place : place + length]
                place += length
            case 0:
                _, place = _varint(message, place)
            case other:
                raise ValueError(f"a field of wire type {other}, which these messages do not have")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place
