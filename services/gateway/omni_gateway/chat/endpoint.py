"""POST /v1/chat/completions: the life of one chat request in this process."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import orjson
from starlette.types import Receive, Scope, Send

from omni_common.request import GenerationRequest, Task
from omni_gateway.audio.speech import SpeechFile, SpeechStream
from omni_gateway.call import Call
from omni_gateway.chat.chunks import Completion, new_audio_id
from omni_gateway.chat.parse import build_request, parse_body
from omni_gateway.chat.stream import ChatStream, Spoken
from omni_gateway.chat.transcripts import Transcripts
from omni_gateway.chat.unary import answer_whole
from omni_gateway.schemas import ChatRequest
from omni_gateway.serving import Serving, Visit

ROUTE = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class _Job:
    """One parsed request and what its answer needs."""

    chat: ChatRequest
    request: GenerationRequest
    completion: Completion
    audio_id: str
    expires_at: int


class ChatEndpoint:
    """An ASGI application, since it has to hear a caller leave while it answers."""

    def __init__(
        self, serving: Serving, transcripts: Transcripts, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._serving = serving
        self._transcripts = transcripts
        self._wall_clock = wall_clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._serving.visit(scope, send, ROUTE) as visit:
            job = await self._read(scope, receive)
            work = partial(self._stream if job.chat.stream else self._whole, job, visit)
            await self._serving.answer(visit, receive, job.request, work, streamed=job.chat.stream)

    async def _read(self, scope: Scope, receive: Receive) -> _Job:
        async with self._serving.bodies.read(scope, receive) as body:
            chat = parse_body(body)
            pipeline = self._serving.client.pipeline_for(chat.model, Task.CHAT)
            request = build_request(chat, pipeline, self._transcripts)
        now = int(self._wall_clock())
        return _Job(
            chat,
            request,
            Completion(f"chatcmpl-{secrets.token_hex(16)}", request.model, now),
            audio_id=new_audio_id(),
            expires_at=now + int(self._transcripts.lifetime),
        )

    async def _whole(self, job: _Job, visit: Visit, call: Call) -> None:
        with self._serving.replies.account() as account:
            audio, encoders = job.chat.audio, self._serving.encoders
            file = SpeechFile(audio.format, encoders, hold=account.grow) if audio else None
            body = await answer_whole(
                call,
                visit.tally,
                job.completion,
                file=file,
                audio_id=job.audio_id,
                expires_at=job.expires_at,
                timings=visit.wants_timings,
            )
            if file is not None:
                self._transcripts.put(job.audio_id, visit.tally.text)
            await visit.sender.whole("application/json", orjson.dumps(body))

    async def _stream(self, job: _Job, visit: Visit, call: Call) -> None:
        spoken = None
        if job.chat.audio is not None:
            stream = SpeechStream(job.chat.audio.format, self._serving.encoders)
            remember = partial(self._transcripts.put, job.audio_id)
            spoken = Spoken(stream, job.audio_id, job.expires_at, remember)
        options = job.chat.stream_options
        reply = ChatStream(
            job.completion,
            visit.tally,
            spoken,
            include_usage=options is not None and options.include_usage,
            timings=visit.wants_timings,
        )
        await reply.run(call, visit.sender, ping=self._serving.settings.ping_interval.total_seconds())
