"""Ways to ask a mesh, with a stopwatch: over HTTP through the gateway, and over gRPC past it."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.abc
from tests.load.mesh import HOST, Mesh

from omni.coordinator.v1 import coordinator_pb2
from omni.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from omni_common.clock import monotonic
from omni_common.deadline import Deadline
from omni_common.request import (
    AudioOutput,
    GenerationParams,
    GenerationRequest,
    Message,
    Modality,
    Output,
    Role,
    Sampling,
    Text,
    TextOutput,
    TraceContext,
)
from omni_common.rpc import convert
from omni_common.rpc.channel import open_channel
from omni_gateway.client import Client

DEADLINE = 60.0
_READ = 1 << 16
_IDLE = 2.0
_FIRST_TEXT = re.compile(rb'"(?:content|transcript)":"[^"]')
_AUDIO = re.compile(rb'"data":"([^"]+)')
_END = b"0\r\n\r\n"  # the last chunk of a chunked body


@dataclass(slots=True)
class Heard:
    """One answer as it came, in seconds after it was asked for."""

    asked: float = field(default_factory=time.perf_counter)
    first_text: float | None = None
    first_audio: float | None = None
    total: float = 0.0
    speech: bytes = b""

    def output(self, output: Output) -> None:
        match output:
            case TextOutput(text) if text:
                self.text()
            case AudioOutput(pcm):
                self.audio()
                self.speech += pcm

    def text(self) -> None:
        if self.first_text is None:
            self.first_text = time.perf_counter() - self.asked

    def audio(self) -> None:
        if self.first_audio is None:
            self.first_audio = time.perf_counter() - self.asked

    def end(self) -> None:
        self.total = time.perf_counter() - self.asked


class Http:
    """A caller of the gateway who keeps a connection open, as clients do. Reads the stream as bytes: a client library
    would cost as much as what is measured."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: anyio.abc.SocketStream | None = None
        self._used = 0.0

    async def ask(self, request: GenerationRequest) -> Heard:
        """Raises ConnectionError when the answer is not a whole one."""
        message = _http(request)
        stream = await self._connection()
        heard = Heard()
        await stream.send(message)
        answer = bytearray()
        while not answer.endswith(_END):
            part = await stream.receive(_READ)
            if heard.first_text is None and _FIRST_TEXT.search(part):
                heard.text()
            if heard.first_audio is None and _AUDIO.search(part):
                heard.audio()
            answer += part
        heard.end()
        self._used = time.monotonic()
        if not answer.startswith(b"HTTP/1.1 200 ") or b"data: [DONE]" not in answer:
            raise ConnectionError(f"The gateway answered: {bytes(answer[:2000])!r}")
        heard.speech = b"".join(base64.b64decode(data) for data in _AUDIO.findall(_body(bytes(answer))))
        return heard

    async def close(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()

    async def _connection(self) -> anyio.abc.SocketStream:
        """The one that is open, or a new one where the gateway may have closed it as idle."""
        if self._stream is None or time.monotonic() - self._used > _IDLE:
            await self.close()
            self._stream = await anyio.connect_tcp(HOST, self._port)
        return self._stream


@asynccontextmanager
async def http(mesh: Mesh) -> AsyncIterator[Http]:
    caller = Http(mesh.port)
    try:
        yield caller
    finally:
        await caller.close()


class Connect:
    """A caller of the coordinator with the gateway's own client: one Connect stream for all requests."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def ask(self, request: GenerationRequest) -> Heard:
        heard = Heard()
        with self._client.submit(request, deadline=Deadline.after(DEADLINE, monotonic), trace=TraceContext()) as call:
            while not call.over:
                for event in await call.read():
                    if isinstance(event, TextOutput | AudioOutput):
                        heard.output(event)
        heard.end()
        return heard


@asynccontextmanager
async def connect(mesh: Mesh) -> AsyncIterator[Connect]:
    client = Client([mesh.coordinator], credits=16)
    ready = anyio.Event()
    client.on_change(lambda: ready.set() if client.connected else None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.run)
        with anyio.fail_after(DEADLINE):
            await ready.wait()
        yield Connect(client)
        tasks.cancel_scope.cancel()


class Generate:
    """A caller of the coordinator as any gRPC client is one: an RPC for every request."""

    def __init__(self, stub: CoordinatorServiceStub) -> None:
        self._stub = stub

    async def ask(self, request: GenerationRequest) -> Heard:
        message = coordinator_pb2.GenerateRequest(request=convert.render_request(request, None))
        heard = Heard()
        events: AsyncIterator[coordinator_pb2.GenerateResponse]
        events = self._stub.Generate(message, timeout=DEADLINE)  # type: ignore[assignment]  # the stub's type is sync
        async for event in events:
            if event.HasField("output"):
                heard.output(convert.parse_output(event.output)[1])
        heard.end()
        return heard


@asynccontextmanager
async def generate(mesh: Mesh) -> AsyncIterator[Generate]:
    async with open_channel(mesh.coordinator) as channel:
        yield Generate(CoordinatorServiceStub(channel))


def question(
    model: str, text: str, *, speak: bool = False, seed: int | None = None, max_tokens: int | None = None
) -> GenerationRequest:
    """What is asked in every way alike."""
    modalities = frozenset({Modality.TEXT, Modality.AUDIO} if speak else {Modality.TEXT})
    params = GenerationParams(modalities, Sampling(seed=seed, max_tokens=max_tokens))
    return GenerationRequest(model, (Message(Role.USER, (Text(text),)),), params)


def _http(request: GenerationRequest) -> bytes:
    """The same question as an HTTP request."""
    params = request.params
    body: dict[str, object] = {
        "model": request.model,
        "messages": [{"role": m.role, "content": "".join(_text(part) for part in m.parts)} for m in request.messages],
        "stream": True,
    }
    if params.sampling.seed is not None:
        body["seed"] = params.sampling.seed
    if params.sampling.max_tokens is not None:
        body["max_completion_tokens"] = params.sampling.max_tokens
    if Modality.AUDIO in params.modalities:
        body |= {"modalities": ["text", "audio"], "audio": {"voice": "", "format": "pcm16"}}
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def _body(answer: bytes) -> bytes:
    """The body of a chunked HTTP answer."""
    pieces = []
    rest = answer.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        pieces.append(rest[:length])
        rest = rest[length + 2 :]
    return b"".join(pieces)


def _text(part: object) -> str:
    if not isinstance(part, Text):
        raise TypeError("only text is asked here")
    return part.text
