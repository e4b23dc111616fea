"""POST /v1/chat/completions: the life of one chat request in this process."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import anyio
import orjson
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from omni_common.clock import Clock
from omni_common.deadline import Deadline
from omni_common.errors import OmniError, Overloaded
from omni_common.request import GenerationRequest, Task
from omni_common.telemetry.logs import bound
from omni_common.telemetry.names import COMPLETED, STREAM_OUTCOMES, outcome_of
from omni_common.telemetry.tracing import span, trace_from_headers, trace_id_of
from omni_gateway.audio.speech import SpeechFile, SpeechStream
from omni_gateway.call import Call
from omni_gateway.chat.chunks import Completion, new_audio_id
from omni_gateway.chat.parse import build_request, parse_body
from omni_gateway.chat.stream import Spoken, StreamAnswer
from omni_gateway.chat.tally import Tally
from omni_gateway.chat.transcripts import Transcripts
from omni_gateway.chat.unary import answer_whole
from omni_gateway.client import Client
from omni_gateway.http.body import BodyReader
from omni_gateway.http.sending import Sender, while_connected
from omni_gateway.schemas import ChatRequest
from omni_gateway.settings import GatewaySettings

logger = logging.getLogger(__name__)

ROUTE = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class _Job:
    """One parsed request and what its answer needs."""

    chat: ChatRequest
    request: GenerationRequest
    completion: Completion
    audio_id: str
    expires_at: int
    timings: bool


class ChatEndpoint:
    """An ASGI application, since it has to hear a caller leave while it answers."""

    def __init__(
        self,
        client: Client,
        transcripts: Transcripts,
        settings: GatewaySettings,
        *,
        clock: Clock,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._transcripts = transcripts
        self._settings = settings
        self._clock = clock
        self._wall_clock = wall_clock
        self._encoders = anyio.CapacityLimiter(settings.encoder_threads)
        self._live = 0
        self._bodies = BodyReader(
            max_body=settings.max_body,
            max_total=settings.max_buffered_bodies,
            timeout=settings.body_timeout.total_seconds(),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        trace = trace_from_headers(headers)
        with self._place(), bound(trace_id=trace_id_of(trace)), span("gateway.chat", trace) as context:
            tally = Tally(self._clock, self._clock())
            timeout = self._settings.request_timeout.total_seconds()
            deadline = Deadline.after(timeout, self._clock)
            job = await self._read(scope, receive, headers)
            if not job.chat.stream:
                deadline = _no_longer_than_caller(deadline, headers)
            sender = Sender(scope, send, stall=self._settings.stall_timeout.total_seconds())
            work = self._stream if job.chat.stream else self._whole
            try:
                with (
                    self._counted(job, tally),
                    self._client.submit(job.request, deadline=deadline, trace=context) as call,
                ):
                    await while_connected(receive, partial(work, job, call, tally, sender))
            except OmniError:
                if not sender.started:
                    raise
                # The caller was told in the stream, or can be told nothing any more.

    async def _read(self, scope: Scope, receive: Receive, headers: Headers) -> _Job:
        async with self._bodies.read(scope, receive) as body:
            chat = parse_body(body)
            request = build_request(chat, self._client.pipeline_for(chat.model, Task.CHAT), self._transcripts)
        now = int(self._wall_clock())
        return _Job(
            chat,
            request,
            Completion(f"chatcmpl-{secrets.token_hex(16)}", request.model, now),
            audio_id=new_audio_id(),
            expires_at=now + int(self._transcripts.lifetime),
            timings=headers.get("x-omni-stage-timings", "").lower() == "true",
        )

    async def _whole(self, job: _Job, call: Call, tally: Tally, sender: Sender) -> None:
        file = SpeechFile(job.chat.audio.format, self._encoders) if job.chat.audio else None
        body = await answer_whole(
            call,
            tally,
            job.completion,
            file=file,
            audio_id=job.audio_id,
            expires_at=job.expires_at,
            timings=job.timings,
        )
        if file is not None:
            self._transcripts.put(job.audio_id, tally.text)
        data = orjson.dumps(body)
        await sender.start(200, {"content-type": "application/json", "content-length": str(len(data))})
        await sender.write(data)
        await sender.end()

    async def _stream(self, job: _Job, call: Call, tally: Tally, sender: Sender) -> None:
        spoken = None
        if job.chat.audio is not None:
            stream = SpeechStream(job.chat.audio.format, self._encoders)
            remember = partial(self._transcripts.put, job.audio_id)
            spoken = Spoken(stream, job.audio_id, job.expires_at, remember)
        options = job.chat.stream_options
        await StreamAnswer(
            job.completion,
            tally,
            spoken,
            include_usage=options is not None and options.include_usage,
            timings=job.timings,
            ping=self._settings.ping_interval.total_seconds(),
        ).run(call, sender)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places for live requests; who finds none is refused, nobody waits."""
        if self._live >= self._settings.max_live_requests:
            raise Overloaded(f"The gateway serves {self._live} requests, as many as it may.")
        self._live += 1
        try:
            yield
        finally:
            self._live -= 1

    @contextmanager
    def _counted(self, job: _Job, tally: Tally) -> Iterator[None]:
        """The one log line and the metrics of a request that was understood, however it ends."""
        outcome = "cancelled"
        try:
            yield
            outcome = COMPLETED
        except OmniError as error:
            outcome = outcome_of(error.reason)
            raise
        finally:
            tally.record(job.request.model)
            if job.chat.stream:
                STREAM_OUTCOMES.labels(ROUTE, outcome).inc()
            logger.info(
                "request ended",
                extra={
                    "outcome": outcome,
                    "model": job.request.model,
                    "mesh_request_id": tally.request_id,
                    "seconds": round(self._clock() - tally.began, 4),
                    "first_output_seconds": tally.first_output,
                },
            )


def _no_longer_than_caller(deadline: Deadline, headers: Headers) -> Deadline:
    """OpenAI's clients say how long they wait for bytes; nothing is made for one that has hung up by then."""
    told = headers.get("x-stainless-read-timeout", "")
    try:
        seconds = float(told)
    except ValueError:
        return deadline
    return deadline.sooner(seconds) if seconds > 0 else deadline
