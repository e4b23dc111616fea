"""Reading request bodies within bounds: of one body, of all bodies together, of time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from omni_common.errors import Cancelled, InvalidRequest, OmniError, Reason
from omni_gateway.http.held import Account, HeldBytes
from omni_gateway.replies import HttpError


class BodyReader:
    """Counts the bytes of all bodies that are being read or are still in use."""

    def __init__(self, *, max_body: int, max_total: int, timeout: float) -> None:
        self._max_body = max_body
        self._total = HeldBytes(max_total, "requests")
        self._timeout = timeout

    @property
    def held(self) -> int:
        return self._total.held

    @asynccontextmanager
    async def read(self, scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
        """The body of a JSON request; its bytes count as held until the block is left.

        Raises before it buffers what is announced as too large, and at the first byte beyond the limit of what is
        not announced.
        """
        async with self._hold(scope, receive, "application/json", "JSON") as body:
            yield bytes(body)

    @asynccontextmanager
    async def read_form(self, scope: Scope, receive: Receive) -> AsyncIterator[bytearray]:
        """The body of a form with files, as `read` does it but without a copy: the files may be views of it."""
        async with self._hold(scope, receive, "multipart/form-data", "a form") as body:
            yield body

    @asynccontextmanager
    async def _hold(self, scope: Scope, receive: Receive, kind: str, what: str) -> AsyncIterator[bytearray]:
        headers = Headers(scope=scope)
        _check_type(headers, kind, what)
        self._check_size(_announced(headers))
        body = bytearray()
        with self._total.account() as account:
            await self._fill_in_time(body, account, receive)
            yield body

    async def _fill_in_time(self, body: bytearray, account: Account, receive: Receive) -> None:
        try:
            with anyio.fail_after(self._timeout):
                await self._fill(body, account, receive)
        except TimeoutError:
            raise HttpError(408, InvalidRequest("The body did not arrive in time.", code="timeout")) from None

    async def _fill(self, body: bytearray, account: Account, receive: Receive) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Cancelled
            piece: bytes = message.get("body", b"")
            self._check_size(len(body) + len(piece))
            account.grow(len(piece))
            body += piece
            more = message.get("more_body", False)

    def _check_size(self, size: int) -> None:
        if size > self._max_body:
            raise OmniError(
                Reason.REQUEST_TOO_LARGE, f"The body may have at most {self._max_body} bytes.", code="request_too_large"
            )


def _announced(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    # The HTTP parser has checked it already; this only keeps a slip there from becoming a slip here.
    return int(length) if length.isascii() and length.isdigit() else 0


def _check_type(headers: Headers, kind: str, what: str) -> None:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != kind:
        raise HttpError(
            415,
            InvalidRequest(f"The body must be {what}, with the content type {kind}.", code="unsupported_media_type"),
        )
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpError(415, InvalidRequest("The body must not be compressed.", code="unsupported_media_type"))
