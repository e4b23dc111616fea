"""Forms with files (multipart/form-data, RFC 7578), parsed where they lie in memory.

The whole body is handed to the parser in one piece, so that every value of a part is one stretch of it: a file is a
view, whatever its size. Before that the delimiters are looked at, which bounds the parts, and the time that a body can
cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from omni_common.errors import InvalidRequest

if TYPE_CHECKING:  # it exists for type checkers only
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 64
# Larger than any text a form of ours may hold (schemas bound each field for itself).
MAX_FIELD = 32 * 1024
_MAX_BOUNDARY = 70  # RFC 2046, 5.1.1
_MAX_HEADERS = 8
_MAX_HEADER = 2048


@dataclass(frozen=True, slots=True)
class Form:
    """Values by the names of their fields, each in order; files are views of the body."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[memoryview]] = field(default_factory=dict)


def parse_form(content_type: str, body: bytes | bytearray) -> Form:
    """`content_type` is the value of the request's header. Raises InvalidRequest for whatever is no complete form
    within the bounds."""
    boundary = _boundary(content_type)
    _check_delimiters(b"\r\n--" + boundary, body)
    reader = _PartReader()
    try:
        parser = MultipartParser(boundary, reader.callbacks, max_header_count=_MAX_HEADERS, max_header_size=_MAX_HEADER)
        parser.write(body)  # type: ignore[arg-type]  # a bytearray does as well: it is only searched and cut
    except FormParserError:
        raise _malformed("its parts cannot be told apart") from None
    if not reader.complete:
        raise _malformed("it ends in the middle")
    return _sorted(reader.parts, memoryview(body).toreadonly())


def _boundary(content_type: str) -> bytes:
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= _MAX_BOUNDARY:
        raise _malformed(f"its content type must name a boundary of at most {_MAX_BOUNDARY} characters")
    return boundary


def _check_delimiters(delimiter: bytes, body: bytes | bytearray) -> None:
    """What the parser does byte by byte, in Python: leave a delimiter that is none, and skip spaces behind one."""
    found, at = 0, body.find(delimiter)
    while at >= 0:
        found += 1
        after = at + len(delimiter)
        if found > MAX_PARTS:
            raise _malformed(f"it may have at most {MAX_PARTS} parts")
        if body.startswith((b" ", b"\t"), after):
            raise _malformed("no space may follow a boundary")
        at = body.find(delimiter, after)


@dataclass(slots=True)
class _Part:
    """A part's heading, and where its content lies in the body."""

    disposition: bytes = b""
    start: int = 0
    end: int = 0


class _PartReader:
    """What the parser calls. In one write it calls each data callback at most once a value."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.complete = False
        self._header = b""
        self._value = b""

    @property
    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": lambda: self.parts.append(_Part()),
            "on_header_begin": self._begin_header,
            "on_header_field": self._name_header,
            "on_header_value": self._give_header,
            "on_header_end": self._end_header,
            "on_part_data": self._hold,
            "on_end": self._finish,
        }

    def _begin_header(self) -> None:
        self._header = self._value = b""

    def _name_header(self, data: bytes, start: int, end: int) -> None:
        self._header = bytes(data[start:end])

    def _give_header(self, data: bytes, start: int, end: int) -> None:
        self._value = bytes(data[start:end])

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self.parts[-1].disposition = self._value

    def _hold(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].start, self.parts[-1].end = start, end

    def _finish(self) -> None:
        self.complete = True


def _sorted(parts: list[_Part], body: memoryview) -> Form:
    form = Form()
    for part in parts:
        kind, options = parse_options_header(part.disposition)
        if kind != b"form-data" or b"name" not in options:
            raise _malformed("each part must have a Content-Disposition of form-data, with a name")
        name = options[b"name"].decode("utf-8", "replace")
        content = body[part.start : part.end]
        if b"filename" in options:
            form.files.setdefault(name, []).append(content)
        else:
            form.fields.setdefault(name, []).append(_text(name, content))
    return form


def _text(name: str, content: memoryview) -> str:
    if len(content) > MAX_FIELD:
        raise InvalidRequest(
            f"The parameter '{name}' may have at most {MAX_FIELD} bytes.", param=name, code="invalid_value"
        )
    try:
        return str(content, "utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(f"The parameter '{name}' is no UTF-8 text.", param=name, code="invalid_value") from None


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"The form is malformed: {why}.", code="invalid_form")
