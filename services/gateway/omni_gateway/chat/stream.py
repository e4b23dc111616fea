"""A chat answer as server-sent events."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

from omni_gateway.audio.speech import SpeechStream
from omni_gateway.call import Finished
from omni_gateway.chat.chunks import Completion
from omni_gateway.http.sse import DONE, Json, sse
from omni_gateway.streaming import EventStream
from omni_gateway.tally import Batch, Tally
from omni_gateway.timings import timings_body


@dataclass(frozen=True, slots=True)
class Spoken:
    """How this answer is spoken."""

    stream: SpeechStream
    audio_id: str
    expires_at: int
    # Gets the transcript before the caller can ask for it by the identifier.
    remember: Callable[[str], None]


class ChatStream(EventStream):
    """One streamed answer; it ends with [DONE]."""

    def __init__(
        self, completion: Completion, tally: Tally, spoken: Spoken | None, *, include_usage: bool, timings: bool
    ) -> None:
        super().__init__(tally)
        self._completion = completion
        self._spoken = spoken
        self._include_usage = include_usage
        self._timings = timings

    async def head(self) -> bytes:
        if self._spoken is None:
            return self._sse({"role": "assistant", "content": "", "refusal": None})
        return self._sse({"role": "assistant", "refusal": None}) + self._sse(
            {"audio": {"id": self._spoken.audio_id, "transcript": ""}}
        )

    async def render(self, batch: Batch) -> bytes:
        if self._spoken is None:
            return b"".join(self._sse({"content": piece}) for piece in batch.text)
        events = [self._sse({"audio": {"transcript": piece}}) for piece in batch.text]
        events.append(self._speech(await self._spoken.stream.encode(batch.audio)))
        return b"".join(events)

    async def tail(self, finished: Finished) -> bytes:
        chunks = self._last_chunks(finished)
        if self._timings:
            chunks[-1]["omni"] = timings_body(self.tally.request_id, finished.reports)
        rest = b""
        if self._spoken is not None:
            rest = self._speech(await self._spoken.stream.finish())
            self._spoken.remember(self.tally.text)
        return rest + b"".join(map(sse, chunks)) + DONE

    def _last_chunks(self, finished: Finished) -> list[Json]:
        chunks = [self._chunk({}, finished)]
        if self._spoken is not None:
            chunks.append(self._chunk({"audio": {"expires_at": self._spoken.expires_at}}))
        if self._include_usage:
            chunks.append(self._completion.usage_chunk(finished.usage))
        return chunks

    def _speech(self, data: bytes) -> bytes:
        return self._sse({"audio": {"data": base64.b64encode(data).decode("ascii")}}) if data else b""

    def _sse(self, delta: Json) -> bytes:
        return sse(self._chunk(delta))

    def _chunk(self, delta: Json, finished: Finished | None = None) -> Json:
        finish = None if finished is None else finished.finish_reason
        return self._completion.chunk(delta, finish=finish, announce_usage=self._include_usage)
