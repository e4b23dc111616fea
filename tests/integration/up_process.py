"""A running `omni up`, as its user has it."""

from __future__ import annotations

import base64
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc
import openai
import psutil
from anyio.streams.buffered import BufferedByteReceiveStream
from openai.types.chat import ChatCompletionContentPartParam

from omni_cli.launcher.child import kernel_name
from omni_cli.launcher.network import free_port

# Of the echo pipeline.
STAGES = ("split", "upper", "count", "join", "say", "write", "beep")
GROUPS = ("front", "back")


def replicas_of(pipeline: str) -> set[str]:
    """Of a pipeline with echo's stages."""
    return {f"{pipeline}-{stage}-0" for stage in STAGES}


def relays_of(pipeline: str, *groups: str) -> set[str]:
    """As `ps` shows them."""
    return {kernel_name(f"relay-{pipeline}-{group}-0") for group in groups or GROUPS}


class Up:
    """A running `omni up`."""

    def __init__(self, process: anyio.abc.Process, port: int) -> None:
        assert process.stdout is not None
        self._process = process
        self._lines = BufferedByteReceiveStream(process.stdout)
        self.port = port
        self.said: list[str] = []

    async def line(self) -> str:
        """The next that it says."""
        with anyio.fail_after(40):
            self.said.append((await self._lines.receive_until(b"\n", 1 << 16)).decode())
        return self.said[-1]

    async def until(self, pattern: str) -> re.Match[str]:
        """The first line from now on that matches."""
        with anyio.fail_after(40):
            while True:
                if found := re.match(pattern, await self.line()):
                    return found

    async def to_the_end(self) -> tuple[list[str], int]:
        """The lines from now on, and the exit code."""
        lines = []
        with suppress(anyio.EndOfStream, anyio.IncompleteRead):
            while True:
                lines.append(await self.line())
        with anyio.fail_after(20):
            return lines, await self._process.wait()

    async def ready(self) -> None:
        await self.until(rf"omni is ready at http://127\.0\.0\.1:{self.port}/v1$")

    def children(self) -> dict[str, psutil.Process]:
        return {child.name(): child for child in psutil.Process(self._process.pid).children(recursive=True)}

    def ask_to_stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    async def stop(self, number: signal.Signals) -> int:
        self._process.send_signal(number)
        with anyio.fail_after(20):
            return await self._process.wait()

    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0, _strict_response_validation=True
        )


@asynccontextmanager
async def up(
    run: Path, *options: str, python_path: str = "", settings: Mapping[str, str] | None = None
) -> AsyncIterator[Up]:
    """The mesh of the echo pipeline; its folders are in `run`. `settings`: variables of services."""
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "omni_cli", "up", "--pipeline", "echo", "--port", str(port), *options]
    environment = {
        "PATH": "/usr/bin:/bin",
        "XDG_RUNTIME_DIR": str(run),
        "HOME": str(run),
        "PYTHONPATH": python_path,
        **(settings or {}),
    }
    async with await anyio.open_process(command, env=environment, stderr=subprocess.STDOUT) as process:
        try:
            yield Up(process, port)
        finally:
            if process.returncode is None:
                process.kill()


async def say(mesh: Up, text: str, *, model: str = "echo", image: Path | None = None) -> str:
    """What it answers. An image is a tensor in echo, too, from `split` to `count`."""
    content: list[ChatCompletionContentPartParam] = [{"type": "text", "text": text}]
    if image is not None:
        content.append(_shown(image))
    async with mesh.client() as client:
        with anyio.fail_after(20):
            reply = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])
    return reply.choices[0].message.content or ""


def _shown(image: Path) -> ChatCompletionContentPartParam:
    url = f"data:image/jpeg;base64,{base64.b64encode(image.read_bytes()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}
