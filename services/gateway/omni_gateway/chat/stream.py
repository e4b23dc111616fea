"""An answer as server-sent events.

The reply begins only when there is something to answer with, so whatever fails before that keeps its own HTTP status.
From then on the stream always ends in the open: with [DONE], or with an error event and nothing after it.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from omni_common.errors import Internal, OmniError
from omni_gateway.audio.speech import SpeechStream
from omni_gateway.call import Call, Finished
from omni_gateway.chat.chunks import DONE, PING, Completion, Json, sse, timings_body
from omni_gateway.chat.tally import Batch, Tally
from omni_gateway.http.sending import Sender, SlowCaller
from omni_gateway.replies import error_body

logger = logging.getLogger(__name__)

SSE_HEADERS: Mapping[str, str] = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # proxies of nginx's kind would gather the events
}


@dataclass(frozen=True, slots=True)
class Spoken:
    """How this answer is spoken."""

    stream: SpeechStream
    audio_id: str
    expires_at: int
    # Gets the transcript before the caller can ask for it by the identifier.
    remember: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """One streamed answer. `ping` is how many seconds of silence a comment breaks."""

    completion: Completion
    tally: Tally
    spoken: Spoken | None
    include_usage: bool
    timings: bool
    ping: float

    async def run(self, call: Call, sender: Sender) -> None:
        """Raises OmniError as long as nothing was sent, and SlowCaller at any time; other failures become events.

        The failure that was sent is raised again after the stream's end, so that it is counted.
        """
        first = await self._first(call)
        await sender.start(200, SSE_HEADERS)
        try:
            await sender.write(self._head() + await self._render(first))
            await self._body(call, sender)
            await sender.write(await self._tail())
            await sender.end()
        except SlowCaller:
            raise
        except OmniError as error:
            await _end_badly(sender, error)
            raise
        except Exception as error:  # the edge of the process: a stream must not end without a word
            logger.exception("stream failed")
            await _end_badly(sender, Internal())
            raise Internal from error

    async def _first(self, call: Call) -> Batch:
        batch = Batch((), ())
        while not self.tally.has_begun:
            batch = self.tally.see(await call.read())
        return batch

    async def _body(self, call: Call, sender: Sender) -> None:
        while self.tally.finished is None:
            events = await call.read(within=self.ping)
            await sender.write(await self._render(self.tally.see(events)) if events else PING)

    def _head(self) -> bytes:
        if self.spoken is None:
            return self._sse({"role": "assistant", "content": "", "refusal": None})
        return self._sse({"role": "assistant", "refusal": None}) + self._sse(
            {"audio": {"id": self.spoken.audio_id, "transcript": ""}}
        )

    async def _render(self, batch: Batch) -> bytes:
        if self.spoken is None:
            return b"".join(self._sse({"content": piece}) for piece in batch.text)
        events = [self._sse({"audio": {"transcript": piece}}) for piece in batch.text]
        events.append(self._speech(await self.spoken.stream.encode(batch.audio)))
        return b"".join(events)

    async def _tail(self) -> bytes:
        finished = self.tally.finished
        assert finished is not None  # noqa: S101  # `_body` returns only then
        chunks = self._last_chunks(finished)
        if self.timings:
            chunks[-1]["omni"] = timings_body(self.tally.request_id, finished.reports)
        rest = b""
        if self.spoken is not None:
            rest = self._speech(await self.spoken.stream.finish())
            self.spoken.remember(self.tally.text)
        return rest + b"".join(map(sse, chunks)) + DONE

    def _last_chunks(self, finished: Finished) -> list[Json]:
        chunks = [self._chunk({}, finished)]
        if self.spoken is not None:
            chunks.append(self._chunk({"audio": {"expires_at": self.spoken.expires_at}}))
        if self.include_usage:
            chunks.append(self.completion.usage_chunk(finished.usage))
        return chunks

    def _speech(self, data: bytes) -> bytes:
        return self._sse({"audio": {"data": base64.b64encode(data).decode("ascii")}}) if data else b""

    def _sse(self, delta: Json) -> bytes:
        return sse(self._chunk(delta))

    def _chunk(self, delta: Json, finished: Finished | None = None) -> Json:
        finish = None if finished is None else finished.finish_reason
        return self.completion.chunk(delta, finish=finish, announce_usage=self.include_usage)


async def _end_badly(sender: Sender, error: OmniError) -> None:
    await sender.write(sse(error_body(error)))
    await sender.end()
