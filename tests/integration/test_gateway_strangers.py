"""What strangers can make the gateway write into its log: nothing."""

from __future__ import annotations

import signal

import anyio
import pytest
from tests.integration.gateway_process import gateway_process

from omni_common.testing.mail import PATIENCE

pytestmark = pytest.mark.anyio

UPGRADE = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: h2c\r\n\r\n"


async def answer(port: int, request: bytes) -> bytes:
    said = b""
    with anyio.fail_after(PATIENCE):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(request)
            async for piece in stream:
                said += piece
    return said.partition(b"\r\n")[0]


async def test_what_is_no_http_and_what_asks_for_an_upgrade_leaves_no_line_in_the_log() -> None:
    async with gateway_process() as here:
        assert await answer(here.port, b"nonsense\r\n\r\n") == b"HTTP/1.1 400 "
        assert await answer(here.port, UPGRADE) == b"HTTP/1.1 200 OK"
        here.process.send_signal(signal.SIGTERM)
        await here.until_logged("asked to end")
        assert {line["level"] for line in here.log} == {"INFO"}
