"""The cases as a caller puts them to a served mesh: OpenAI's own client, strict, over HTTP."""

from __future__ import annotations

import base64
import io
import json
import re
import wave
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
import openai
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from omni_cli.launcher.mesh import Mesh
from omni_common.request import GenerationRequest, Media, Message, Modality, Part, Sampling, Text

TIMINGS = {"x-omni-stage-timings": "true"}
_LIVE = re.compile(
    r"^(omni_(?:stage_)?live_requests|omni_arena_in_use_bytes|omni_http_in_flight)(?:{.*})? (\S+)$", re.M
)
# /metrics is an external HTTP endpoint without a way to wait, so it is asked again and again.
_INTERVAL = 0.05


@asynccontextmanager
async def strict_client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=50, _strict_response_validation=True
    ) as client:
        yield client


def body(request: GenerationRequest, **more: object) -> dict[str, Any]:
    """A request of the mesh as OpenAI's client takes it; what OpenAI has no name for goes as extra body."""
    params = request.params
    made: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(m) for m in request.messages],
        "max_completion_tokens": params.sampling.max_tokens,
        "extra_body": {"stage_sampling": {name: _given(s) for name, s in params.stage_sampling.items()}},
    }
    made |= {k: v for k, v in _given(params.sampling).items() if k in {"temperature", "seed"}}
    return made | more


def spoken(request: GenerationRequest, form: str, **more: object) -> dict[str, Any]:
    """The same with speech."""
    return body(request, modalities=["text", "audio"], audio={"format": form, "voice": "ethan"}, **more)


def _given(sampling: Sampling) -> dict[str, Any]:
    return {name: value for name, value in asdict(sampling).items() if value is not None}


def _message(message: Message) -> dict[str, Any]:
    return {"role": str(message.role), "content": [as_part(p) for p in message.parts]}


def as_part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return _media(part)


def _media(media: Media) -> dict[str, Any]:
    data = base64.b64encode(media.data).decode()
    match media.modality:
        case Modality.AUDIO:
            return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
        case Modality.IMAGE:
            return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        case _:
            return {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}}


@dataclass(slots=True)
class Heard:
    """An answer, however it came. `speech` is a file in the format asked for."""

    text: str = ""
    speech: bytes = b""
    finish: str | None = None
    usage: CompletionUsage | None = None
    timings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    # What each chunk of a stream brought, in order.
    order: list[str] = field(default_factory=list)

    @classmethod
    def whole(cls, reply: ChatCompletion) -> Heard:
        (choice,) = reply.choices
        audio = choice.message.audio
        if audio is None:
            return cls(choice.message.content or "", b"", choice.finish_reason, reply.usage)
        assert choice.message.content is None
        return cls(audio.transcript, base64.b64decode(audio.data), choice.finish_reason, reply.usage)

    def take(self, chunk: ChatCompletionChunk) -> None:
        self.usage = chunk.usage or self.usage
        if timings := (chunk.model_extra or {}).get("omni"):
            self.timings = {stage["stage"]: stage for stage in timings["stages"]}
        for choice in chunk.choices:
            audio = choice.delta.audio
            self.finish = choice.finish_reason or self.finish
            if text := choice.delta.content or (audio and audio.transcript):
                self.text += text
                self.order.append("text")
            if audio and audio.data:
                self.speech += base64.b64decode(audio.data)
                self.order.append("speech")


@dataclass(frozen=True, slots=True)
class Served:
    """A running mesh and its client. `said` is what the launcher tells its user."""

    mesh: Mesh
    client: openai.AsyncOpenAI
    said: list[str]

    async def whole(self, asked: Mapping[str, Any]) -> Heard:
        reply: ChatCompletion = await self.client.chat.completions.create(**asked, stream=False)
        return Heard.whole(reply)

    async def open(self, asked: Mapping[str, Any]) -> openai.AsyncStream[ChatCompletionChunk]:
        stream: openai.AsyncStream[ChatCompletionChunk] = await self.client.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}, extra_headers=TIMINGS
        )
        return stream

    async def streamed(self, asked: Mapping[str, Any]) -> Heard:
        heard = Heard()
        async with await self.open(asked) as stream:
            async for chunk in stream:
                heard.take(chunk)
        return heard

    async def gauges(self) -> dict[str, float]:
        """What every process says that it still holds."""
        async with httpx2.AsyncClient(trust_env=False, timeout=5) as http:
            found: dict[str, float] = {}
            for name in self.mesh.supervisor.running():
                page = await http.get(f"http://127.0.0.1:{self._metrics_port(name)}/metrics")
                found |= {f"{name} {m[1]}": float(m[2]) for m in _LIVE.finditer(page.text)}
            return found

    def _metrics_port(self, process: str) -> int:
        """What the process wrote in its last life."""
        pipeline = self.mesh.plan.processes[0].settings["OMNI_STAGE_PIPELINE"]
        lines = (Path(pipeline).parent / "logs" / f"{process}.log").read_text().splitlines()
        ports = [line for line in lines if '"metrics are served"' in line]
        return int(json.loads(ports[-1])["port"])

    async def until(self, holds: Callable[[Mapping[str, float]], bool], *, within: float) -> None:
        last: Mapping[str, float] = {}
        with anyio.move_on_after(within):
            while True:
                last = await self.gauges()
                if holds(last):
                    return
                await anyio.sleep(_INTERVAL)
        raise AssertionError(f"after {within:g} s: { {k: v for k, v in last.items() if v} }")


def wav_samples(data: bytes) -> bytes:
    """The samples of a WAV file that is what the model makes."""
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        assert file.getnframes() * 2 + 44 == len(data)
        samples: bytes = file.readframes(file.getnframes())
        return samples
