"""POST /v1/audio/speech: the life of one request for speech in this process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from omni_common.request import GenerationRequest, Task
from omni_gateway.audio.speech import SpeechFile, SpeechStream
from omni_gateway.call import Call
from omni_gateway.http.json_body import parse_json
from omni_gateway.serving import Serving, Visit
from omni_gateway.speech.parse import build_request
from omni_gateway.speech.replies import CONTENT_TYPES, SpeechBytes, SpeechEvents, read_file
from omni_gateway.speech.schemas import SpeechRequest
from omni_gateway.streaming import StreamedReply

ROUTE = "/v1/audio/speech"


@dataclass(frozen=True, slots=True)
class _Job:
    speech: SpeechRequest
    request: GenerationRequest

    @property
    def codec(self) -> str:
        """The format's name among the encoders, whose PCM has this rate and depth in any case."""
        form = self.speech.response_format
        return "pcm16" if form == "pcm" else form


class SpeechEndpoint:
    """An ASGI application, since it has to hear a caller leave while it answers."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._serving.visit(scope, send, ROUTE) as visit:
            job = await self._read(scope, receive)
            streamed = job.speech.stream_format == "sse" or not reads_whole_files(visit.headers)
            work = partial(self._stream if streamed else self._whole, job, visit)
            await self._serving.answer(visit, receive, job.request, work, streamed=streamed)

    async def _read(self, scope: Scope, receive: Receive) -> _Job:
        async with self._serving.bodies.read(scope, receive) as body:
            speech = parse_json(body, SpeechRequest)
        pipeline = self._serving.client.pipeline_for(speech.model, Task.SPEECH)
        return _Job(speech, build_request(speech, pipeline))

    async def _whole(self, job: _Job, visit: Visit, call: Call) -> None:
        with self._serving.replies.account() as account:
            file = SpeechFile(job.codec, self._serving.encoders, hold=account.grow, speed=job.speech.speed)
            data = await read_file(call, visit.tally, file)
            await visit.sender.whole(CONTENT_TYPES[job.speech.response_format], data)

    async def _stream(self, job: _Job, visit: Visit, call: Call) -> None:
        stream = SpeechStream(job.codec, self._serving.encoders, speed=job.speech.speed)
        reply: StreamedReply
        if job.speech.stream_format == "sse":
            reply = SpeechEvents(visit.tally, stream, timings=visit.wants_timings)
        else:
            reply = SpeechBytes(visit.tally, stream, job.speech.response_format)
        await reply.run(call, visit.sender, ping=self._serving.settings.ping_interval.total_seconds())


def reads_whole_files(headers: Headers) -> bool:
    """OpenAI's Python client tells when its caller wants to read a body piece by piece, and buffers every other to its
    end. Where that is certain, the file can be complete, with its length, and a failure keeps its HTTP status."""
    return headers.get("x-stainless-lang") == "python" and headers.get("x-stainless-raw-response") != "stream"
