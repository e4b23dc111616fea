"""Bodies are bounded one by one and together, before they are buffered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest
from starlette.types import Message, Receive, Scope

from omni_common.errors import OmniError, Reason
from omni_gateway.http.body import BodyReader
from omni_gateway.replies import HttpError

pytestmark = pytest.mark.anyio


def scope(**headers: str) -> Scope:
    given = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in given.items()]}


def pieces(*sizes: int, disconnect: bool = False) -> Receive:
    """A body in pieces of these sizes; reading past its end fails the test."""
    messages: list[Message] = [
        {"type": "http.request", "body": b"x" * size, "more_body": disconnect or i + 1 < len(sizes)}
        for i, size in enumerate(sizes)
    ]
    if disconnect:
        messages.append({"type": "http.disconnect"})
    left = iter(messages)

    async def receive() -> Message:
        return next(left)

    return receive


def reader(max_body: int = 100, max_total: int = 150) -> BodyReader:
    return BodyReader(max_body=max_body, max_total=max_total, timeout=5)


async def reason(bodies: BodyReader, given: Scope, receive: Receive) -> Reason:
    with pytest.raises(OmniError) as caught:
        async with bodies.read(given, receive):
            pass
    assert bodies.held == 0
    return caught.value.reason


@pytest.mark.parametrize("sizes", [(0,), (100,), (30, 0, 70)])
async def test_a_body_within_its_bounds_is_read_whole_and_given_back(sizes: Sequence[int]) -> None:
    bodies = reader()
    async with bodies.read(scope(), pieces(*sizes)) as body:
        assert body == b"x" * sum(sizes)
        assert bodies.held == len(body)
    assert bodies.held == 0


async def test_what_is_announced_as_too_large_is_refused_unread() -> None:
    assert await reason(reader(), scope(content_length="101"), pieces()) is Reason.REQUEST_TOO_LARGE


async def test_what_turns_out_too_large_is_refused_at_the_first_byte_too_many() -> None:
    assert await reason(reader(), scope(content_length="5"), pieces(60, 41, 1)) is Reason.REQUEST_TOO_LARGE


async def test_a_caller_that_leaves_takes_its_bytes_with_it() -> None:
    assert await reason(reader(), scope(), pieces(60, disconnect=True)) is Reason.CANCELLED


async def test_all_bodies_together_are_bounded() -> None:
    bodies = reader()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(bodies.read(scope(), pieces(100)))
        with pytest.raises(OmniError) as caught:
            await stack.enter_async_context(bodies.read(scope(), pieces(51)))
        assert caught.value.reason is Reason.OVERLOADED
        await stack.enter_async_context(bodies.read(scope(), pieces(50)))
        assert bodies.held == 150
    assert bodies.held == 0


@pytest.mark.parametrize(
    "given", [scope(content_type="text/plain"), scope(content_type=""), scope(content_encoding="gzip")]
)
async def test_a_body_of_another_kind_is_refused_unread(given: Scope) -> None:
    with pytest.raises(HttpError) as caught:
        async with reader().read(given, pieces()):
            pass
    assert caught.value.status == 415


async def test_json_may_name_its_character_set() -> None:
    async with reader().read(scope(content_type="Application/JSON; charset=utf-8"), pieces(2)) as body:
        assert body == b"xx"


FORM = scope(content_type="multipart/form-data; boundary=x")


async def test_a_form_is_held_without_a_copy_until_the_block_is_left() -> None:
    bodies = reader()
    async with bodies.read_form(FORM, pieces(60, 40)) as body:
        assert isinstance(body, bytearray)
        assert body == b"x" * 100
        assert bodies.held == 100
    assert bodies.held == 0


async def test_a_timeout_while_a_body_is_used_is_not_the_body_s() -> None:
    bodies = reader()
    with pytest.raises(TimeoutError):
        async with bodies.read_form(FORM, pieces(60)):
            raise TimeoutError
    assert bodies.held == 0


@pytest.mark.parametrize(
    "given", [scope(), scope(content_type="multipart/mixed"), scope(content_type="application/x-www-form-urlencoded")]
)
async def test_what_is_no_form_with_files_is_refused_unread(given: Scope) -> None:
    with pytest.raises(HttpError) as caught:
        async with reader().read_form(given, pieces()):
            pass
    assert caught.value.status == 415
