"""A spoken text as one file, as a stream of the file's bytes, and as server-sent events.

Text that a pipeline writes while it speaks (some do) is read and left out.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from omni_common.errors import OmniError, Reason
from omni_common.request import Usage
from omni_gateway.audio.speech import SpeechFile, SpeechStream
from omni_gateway.call import Call, Finished
from omni_gateway.http.sending import Sender
from omni_gateway.http.sse import SSE_HEADERS, Json, sse
from omni_gateway.pipelines import PipelineView
from omni_gateway.speech.schemas import Format
from omni_gateway.streaming import EventStream, StreamedReply
from omni_gateway.tally import Batch, Tally
from omni_gateway.timings import timings_body

# Exactly so: clients choose their decoder by it.
CONTENT_TYPES: Mapping[Format, str] = MappingProxyType(
    {
        "mp3": "audio/mpeg",
        "opus": "audio/ogg",
        "aac": "audio/aac",
        "flac": "audio/flac",
        "wav": "audio/wav",
        "pcm": "audio/pcm",
    }
)


async def read_file(call: Call, tally: Tally, file: SpeechFile) -> bytearray:
    """The whole file, with its length in its head. Raises the failure that ended the answer."""
    while tally.finished is None:
        await file.add(tally.see(await call.read()).audio)
    if (failure := _no_sound(tally)) is not None:
        raise failure
    return await file.finish()


def _no_sound(tally: Tally) -> OmniError | None:
    """A model that samples its speech may draw its end first; a file of nothing would pass for an answer."""
    if tally.audio_seconds:
        return None
    return OmniError(Reason.STAGE_FAILED, "The model made no sound for this text.")


class SpeechBytes(StreamedReply):
    """The file as it is made. Nothing but the file fits into it: a failure resets the connection, since an orderly end
    would pass for the end of the speech."""

    def __init__(self, tally: Tally, stream: SpeechStream, form: Format) -> None:
        super().__init__(tally)
        self._stream = stream
        self._form = form

    @property
    def headers(self) -> Mapping[str, str]:
        return {**SSE_HEADERS, "content-type": CONTENT_TYPES[self._form]}  # proxies must not gather it, either

    async def head(self) -> bytes:
        return b""

    async def render(self, batch: Batch) -> bytes:
        return await self._stream.encode(batch.audio)

    async def tail(self, finished: Finished) -> bytes:
        return await self._stream.finish()

    def nothing(self) -> OmniError | None:
        return _no_sound(self.tally)

    async def end_badly(self, sender: Sender, error: OmniError) -> None:
        sender.reset()

    async def keep_alive(self, sender: Sender) -> None:
        return


class SpeechEvents(EventStream):
    """The file in base64, piece by piece; pieces may be joined before they are decoded."""

    def __init__(self, tally: Tally, stream: SpeechStream, *, timings: bool) -> None:
        super().__init__(tally)
        self._stream = stream
        self._timings = timings

    @property
    def headers(self) -> Mapping[str, str]:
        # Without a charset: some clients compare the whole of it.
        return {**SSE_HEADERS, "content-type": "text/event-stream"}

    async def head(self) -> bytes:
        return b""

    async def render(self, batch: Batch) -> bytes:
        return _delta(await self._stream.encode(batch.audio))

    def nothing(self) -> OmniError | None:
        return _no_sound(self.tally)

    async def tail(self, finished: Finished) -> bytes:
        done: Json = {"type": "speech.audio.done", "usage": usage_body(finished.usage)}
        if self._timings:
            done["omni"] = timings_body(self.tally.request_id, finished.reports)
        return _delta(await self._stream.finish()) + sse(done)


def _delta(data: bytes) -> bytes:
    return sse({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode("ascii")}) if data else b""


def usage_body(usage: Usage) -> Json:
    output = usage.completion_text_tokens + usage.completion_audio_tokens
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": output,
        "total_tokens": usage.prompt_tokens + output,
    }


def voices_body(pipelines: Iterable[PipelineView]) -> Json:
    """OpenAI's form of a list, and under `voices` the names alone, which clients of other servers look for."""
    data: list[Json] = []
    names: dict[str, None] = {}
    for pipeline in pipelines:
        for name in pipeline.voices:
            names[name] = None
            data.append(
                {
                    "id": name,
                    "object": "audio.voice",
                    "name": name,
                    "model": pipeline.name,
                    "default": name == pipeline.default_voice,
                    "languages": list(pipeline.languages),
                }
            )
    return {"object": "list", "data": data, "voices": list(names)}
