"""Parts of values.schema.json that say how texts are written: names of objects and hosts, images, labels. What is not
set is empty. What a key is called is left to the chart's own sentences: a schema's refusal does not say where it is."""

from __future__ import annotations

from collections.abc import Mapping

_PART = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_WORDS = r"[a-z0-9]+([._-]+[a-z0-9]+)*"
_PORT = r"(:[0-9]{1,5})?"


def _text(pattern: str) -> Mapping[str, object]:
    return {"type": "string", "pattern": f"^{pattern}$"}


FORMATS: Mapping[str, object] = {
    # Of an object that is there, or is made.
    "name": _text(_NAME),
    "optionalName": _text(f"({_NAME})?"),
    # A key in a Secret.
    "secretKey": _text(r"[A-Za-z0-9._-]{0,253}"),
    # With a wildcard at most for its first part.
    "host": _text(rf"(\*\.)?{_PART}(\.{_PART})*"),
    "url": _text(r"(https?://[^\s/]+(/\S*)?)?"),
    "registry": _text(rf"([A-Za-z0-9.-]+{_PORT}(/{_WORDS})*/?)?"),
    "repository": _text(rf"([A-Za-z0-9.-]+{_PORT}/)?{_WORDS}(/{_WORDS})*"),
    # With a digest after it, as tools write it that have pushed an image.
    "tag": _text(r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(@sha256:[0-9a-f]{64})?)?"),
    "digest": _text(r"(sha256:[0-9a-f]{64})?"),
    "reference": _text(r"\S*"),
    "duration": _text(r"[1-9][0-9]*(s|m|h)"),
    "labels": {
        "type": "object",
        "additionalProperties": _text(f"({_LABEL})?"),
    },
}
