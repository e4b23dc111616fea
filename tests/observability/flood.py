"""Ten thousand callers who ask for anything: paths, methods, models, keys and bodies that nobody has heard of, and now
and then something that is answered."""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from tests.observability.load import KEY, chat

_LINES = 8
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


async def flood(port: int, requests: int, *, seed: int) -> None:
    """Sends so many, over a few lines at a time. All are answered."""
    chance = random.Random(seed)  # noqa: S311  # what is asked for need not be secret
    left = iter([_request(chance) for _ in range(requests)])

    async def line() -> None:
        while (asked := next(left, None)) is not None:
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                replies = BufferedByteReceiveStream(stream)
                while True:
                    await stream.send(asked)
                    if not await _read(replies) or (asked := next(left, None)) is None:
                        break

    with anyio.fail_after(150):
        async with anyio.create_task_group() as tasks:
            for _ in range(_LINES):
                tasks.start_soon(line)


async def _read(replies: BufferedByteReceiveStream) -> bool:
    """One answer; whether another may follow on the line."""
    head = await replies.receive_until(b"\r\n\r\n", 1 << 16)
    length = _LENGTH.search(head + b"\r\n")
    if length is None:
        return False
    if int(length[1]):
        await replies.receive_exactly(int(length[1]))
    return not _CLOSES.search(head)


def _request(chance: random.Random) -> bytes:
    def word(letters: str = string.ascii_lowercase) -> str:
        return "".join(chance.choices(letters, k=chance.randint(3, 24)))

    kinds: list[Callable[[], bytes]] = [
        lambda: _written("GET", f"/v1/{word()}?{word()}={word()}"),
        lambda: _written("GET", f"/v1/models/{word()}"),
        lambda: _written("GET", f"/{word()}/{word()}"),
        lambda: _written(word(string.ascii_uppercase), f"/v1/{word()}"),
        lambda: _written("POST", "/v1/chat/completions", json.dumps({**chat(), "model": word()})),
        lambda: _written("POST", "/v1/chat/completions", json.dumps({**chat(), word(): word()})),
        lambda: _written("POST", "/v1/chat/completions", word()),
        lambda: _written("POST", "/v1/audio/speech", json.dumps({"model": word(), "voice": word(), "input": word()})),
        lambda: _written("POST", "/v1/chat/completions", json.dumps(chat()), key=word()),
        lambda: _written("POST", f"/v1/{word()}", word(), type=f"{word()}/{word()}"),
    ]
    if not chance.randrange(50):
        return _written("POST", "/v1/chat/completions", json.dumps(chat(word())))
    return chance.choice(kinds)()


def _written(method: str, path: str, body: str = "", *, key: str = KEY, type: str = "application/json") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\nuser-agent: {path}\r\n"
    return f"{head}content-type: {type}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
