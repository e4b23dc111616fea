"""What a mesh of echo lives through while Prometheus looks: work, and each kind of trouble that can be made."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx2
import psutil

PHOTO = Path(__file__).parents[1] / "media" / "cat.jpg"
KEY, NARROW = "a-key-for-tests", "a-key-of-one-request-a-minute"
MODEL = "echo"
MOST_AT_A_TIME = 8
LONG = " ".join(["word"] * 20_000)


def write_keys(path: Path) -> None:
    """The file that the gateway reads: a key without limits, and one that has used up its own after a request."""
    keys: dict[str, object] = {
        "all": {"sha256": _hash(KEY)},
        "narrow": {"sha256": _hash(NARROW), "requests_per_minute": 1},
    }
    path.write_text(json.dumps({"keys": keys}))


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def chat(content: object = "hello mesh", **more: object) -> Mapping[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **more}


def spoken(content: object = "hello mesh", **more: object) -> Mapping[str, object]:
    audio = {"modalities": ["text", "audio"], "audio": {"voice": "low", "format": "pcm16"}, "stream": True}
    return chat(content, **audio, **more)


def with_photo(*, padding: int = 0) -> list[Mapping[str, object]]:
    url = f"data:image/jpeg;base64,{base64.b64encode(PHOTO.read_bytes() + bytes(padding)).decode()}"
    return [{"type": "text", "text": "hello mesh"}, {"type": "image_url", "image_url": {"url": url}}]


class Caller:
    """Asks the gateway."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def code(self, body: object, *, key: str = KEY, headers: Mapping[str, str] | None = None) -> int:
        """Of the answer, which is read to its end."""
        told = {"authorization": f"Bearer {key}", **(headers or {})}
        content = body if isinstance(body, str) else json.dumps(body)
        reply = await self._http.post("/v1/chat/completions", content=content, headers=told | _JSON)
        return reply.status_code

    @asynccontextmanager
    async def begun(self, body: Mapping[str, object]) -> AsyncIterator[None]:
        """A stream whose first bytes are there; it is left, not read to its end."""
        told = {"authorization": f"Bearer {KEY}"} | _JSON
        request = self._http.stream("POST", "/v1/chat/completions", content=json.dumps(body), headers=told)
        async with request as reply:
            async for _ in reply.aiter_bytes():
                yield
                return


_JSON = {"content-type": "application/json"}


async def work(caller: Caller) -> None:
    """Text, pictures and speech, some at a time."""
    async with anyio.create_task_group() as tasks:
        for body in (chat(), chat(stream=True), chat(with_photo()), spoken(), spoken(with_photo())):
            tasks.start_soon(_is_answered, caller, body)


async def crowd(caller: Caller) -> None:
    """More bytes at a time than an arena of 16 MiB holds."""
    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(_is_answered, caller, chat(with_photo(padding=8 << 20)))


async def _is_answered(caller: Caller, body: Mapping[str, object]) -> None:
    assert await caller.code(body) == 200


async def refusals(caller: Caller) -> None:
    """At the door, and in the stage that reads the request."""
    assert await caller.code("{") == 400
    assert await caller.code({**chat(), "model": "nobody"}) == 404
    assert await caller.code(chat(" ")) == 400
    assert await caller.code(chat(), key="nobody's") == 401
    assert {await caller.code(chat(), key=NARROW) for _ in range(2)} >= {429}


async def rush(caller: Caller) -> None:
    """More callers at a time than the coordinator takes."""
    codes: set[int] = set()

    async def one() -> None:
        codes.add(await caller.code(chat("hello " * 500)))

    async with anyio.create_task_group() as tasks:
        for _ in range(3 * MOST_AT_A_TIME):
            tasks.start_soon(one)
    assert codes == {200, 429}


async def departures(caller: Caller) -> None:
    """Callers that leave, and one whose time is over, in the midst of their answers."""
    for body in (chat(LONG, stream=True), spoken(LONG)):
        async with caller.begun(body):
            pass
    late = {"x-stainless-read-timeout": "0.05"}
    assert await caller.code(chat(LONG), headers=late) == 504


@asynccontextmanager
async def stopped(process: psutil.Process) -> AsyncIterator[None]:
    """A process that hangs."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def addresses_of(process: psutil.Process) -> set[tuple[str, int]]:
    return {
        (at.laddr.ip, at.laddr.port)
        for at in process.net_connections(kind="tcp")
        if at.status == psutil.CONN_LISTEN and at.laddr
    }


async def knock(address: tuple[str, int]) -> None:
    """Somebody without a certificate, and somebody who speaks something else."""
    await anyio.to_thread.run_sync(_shake_hands, address)
    await anyio.to_thread.run_sync(_talk_nonsense, address)


def _shake_hands(address: tuple[str, int]) -> None:
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(address, timeout=5) as line, anybody.wrap_socket(line) as wrapped:
            wrapped.recv(1)
    except OSError:  # refused, as it should be
        pass


def _talk_nonsense(address: tuple[str, int]) -> None:
    try:
        with socket.create_connection(address, timeout=5) as line:
            line.sendall(b"HELO mesh\r\n" * 100)
            line.recv(1)
    except OSError:  # cut off, as it should be
        pass
