"""The cases as a caller puts them to a served mesh: OpenAI's own client, strict, over HTTP."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import openai
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.running import Running

from omni_common.request import GenerationRequest, Media, Message, Modality, Part, Sampling, Text

TIMINGS = {"x-omni-stage-timings": "true"}


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


class Served(Running):
    """A running mesh, asked by OpenAI's client."""

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


def wav_samples(data: bytes) -> bytes:
    """The samples of a WAV file that is what the model makes."""
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        assert file.getnframes() * 2 + 44 == len(data)
        samples: bytes = file.readframes(file.getnframes())
        return samples
