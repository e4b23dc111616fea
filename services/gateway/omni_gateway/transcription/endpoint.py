"""POST /v1/audio/transcriptions and /v1/audio/translations: the life of one request in this process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from starlette.types import Receive, Scope, Send

from omni_common.request import Segment, Task
from omni_gateway.call import Call
from omni_gateway.http.form import parse_form
from omni_gateway.serving import Serving, Visit
from omni_gateway.timings import timings_body
from omni_gateway.transcription.parse import Wish, build_request, parse_wish
from omni_gateway.transcription.render import Transcript, render
from omni_gateway.transcription.stream import TranscriptStream

ROUTES: Mapping[str, Task] = {
    "/v1/audio/transcriptions": Task.TRANSCRIPTION,
    "/v1/audio/translations": Task.TRANSLATION,
}


class TranscriptionEndpoint:
    """An ASGI application, since it has to hear a caller leave while it answers."""

    def __init__(self, serving: Serving, route: str) -> None:
        self._serving = serving
        self._route = route
        self._task = ROUTES[route]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._serving.visit(scope, send, self._route) as visit:
            # The request's file is a view of the body, so the body counts as held until the answer is complete.
            async with self._serving.bodies.read_form(scope, receive) as body:
                wish = parse_wish(parse_form(visit.headers["content-type"], body), self._task)
                request = build_request(wish, self._serving.client.pipeline_for(wish.model, self._task))
                work = partial(self._stream if wish.stream else self._whole, wish, visit)
                await self._serving.answer(visit, receive, request, work, streamed=wish.stream)

    async def _whole(self, wish: Wish, visit: Visit, call: Call) -> None:
        segments: list[Segment] = []
        while visit.tally.finished is None:
            segments += visit.tally.see(await call.read()).segments
        finished = visit.tally.finished
        timings = timings_body(visit.tally.request_id, finished.reports) if visit.wants_timings else None
        await visit.sender.whole(*render(Transcript(segments, finished.usage, timings), wish))

    async def _stream(self, wish: Wish, visit: Visit, call: Call) -> None:
        reply = TranscriptStream(visit.tally, timings=visit.wants_timings)
        await reply.run(call, visit.sender, ping=self._serving.settings.ping_interval.total_seconds())
