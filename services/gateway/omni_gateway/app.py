"""The HTTP application: which path leads where, and what every failure looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from omni_common.clock import Clock
from omni_common.errors import Internal, InvalidRequest, OmniError
from omni_common.request import Task
from omni_gateway.client import Client
from omni_gateway.http.edge import RequestEdge
from omni_gateway.keys.guard import Guard
from omni_gateway.keys.ring import KeyRing
from omni_gateway.readiness import model_body, readiness_body
from omni_gateway.replies import HttpError, JsonReply, error_reply, http_error_reply
from omni_gateway.speech.replies import voices_body
from omni_gateway.watched import Watched


def build_app(
    client: Client,
    generating: Mapping[str, ASGIApp],
    *,
    serving: Callable[[], bool],
    created: int,
    clock: Clock,
    keys: Watched[KeyRing] | None = None,
) -> ASGIApp:
    """`generating` are the endpoints that make something, by route; `serving` says whether this process takes work;
    `created` is the Unix time that models are dated with; without `keys` callers need none."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    for route, endpoint in generating.items():
        app.add_route(route, endpoint, methods=["POST"])  # type: ignore[arg-type]  # an ASGI app is a route, too
    _add_models(app, client, created)
    _add_voices(app, client)
    _add_probes(app, client, serving)
    _add_failures(app)
    guarded = app if keys is None else Guard(app, keys, clock=clock)
    return RequestEdge(guarded, routes=generating, clock=clock)


def _add_models(app: FastAPI, client: Client, created: int) -> None:
    @app.get("/v1/models")
    async def list_models() -> Response:
        data = [model_body(pipeline, created) for pipeline in client.pipelines().values()]
        return JsonReply({"object": "list", "data": data})

    # Names of models may contain slashes.
    @app.get("/v1/models/{model:path}")
    async def get_model(model: str) -> Response:
        return JsonReply(model_body(client.pipeline(model), created))


def _add_voices(app: FastAPI, client: Client) -> None:
    @app.get("/v1/audio/voices")
    async def list_voices(model: str = "") -> Response:
        if model:
            return JsonReply(voices_body([client.pipeline_for(model, Task.SPEECH)]))
        return JsonReply(voices_body(p for p in client.pipelines().values() if Task.SPEECH in p.tasks))


def _add_probes(app: FastAPI, client: Client, serving: Callable[[], bool]) -> None:
    @app.get("/livez")
    async def livez() -> Response:
        return JsonReply({"status": "alive"})

    @app.get("/readyz")
    async def readyz() -> Response:
        pipelines = client.pipelines()
        ready = serving() and any(p.ready for p in pipelines.values())
        body = readiness_body(pipelines, ready=ready, coordinators=client.connected)
        return JsonReply(body, status_code=200 if ready else 503)


def _add_failures(app: FastAPI) -> None:
    @app.exception_handler(OmniError)
    async def omni_error(request: Request, error: OmniError) -> Response:
        return error_reply(error)

    @app.exception_handler(HttpError)
    async def http_error(request: Request, error: HttpError) -> Response:
        return http_error_reply(error)

    @app.exception_handler(HTTPException)
    async def routing_error(request: Request, error: HTTPException) -> Response:
        code = "method_not_allowed" if error.status_code == 405 else "not_found"
        what = "method" if error.status_code == 405 else "route"
        reason = InvalidRequest(f"There is no such {what} here.", code=code)
        return http_error_reply(HttpError(error.status_code, reason, error.headers))

    # Starlette logs nothing here: it raises the error again, and the server logs it once.
    @app.exception_handler(Exception)
    async def unknown_error(request: Request, error: Exception) -> Response:
        return error_reply(Internal())
