"""Every failure looks to callers as OpenAI's documents say, at whatever moment it happens."""

from __future__ import annotations

from datetime import timedelta

import anyio
import httpx2
import openai
import orjson
import pytest
from prometheus_client import REGISTRY
from tests.integration.gateway_mesh import MODEL, mesh, running, until

from omni_common.errors import ContextTooLong, InvalidRequest, OmniError, Overloaded, Reason, StageFailed
from omni_common.request import AudioOutput, Modality, TextOutput
from omni_common.testing.scripts import Admit, Finish, pipeline_status

pytestmark = pytest.mark.anyio

USER = {"role": "user"}
KEYS = {"message", "type", "param", "code"}
SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "Ethan", "format": "wav"}}


def refused(reply: httpx2.Response, status: int) -> dict[str, str | None]:
    """The error object, checked for what every refusal carries."""
    assert reply.status_code == status, reply.text
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["x-should-retry"] in {"true", "false"}
    error: dict[str, str | None] = reply.json()["error"]
    assert set(error) == KEYS
    assert str(error["message"]).endswith(".")
    return error


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"tools": []}, "tools", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"made_up": 1}, "made_up", "unsupported_parameter"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"modalities": ["text", "audio"]}, "audio", "missing_required_parameter"),
        ({**SPOKEN, "audio": {"voice": "Nobody", "format": "wav"}}, "audio.voice", "invalid_value"),
        ({"stage_sampling": {"nowhere": {"top_k": 1}}}, "stage_sampling", "invalid_value"),
        (
            {"messages": [{**USER, "content": [{"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}]}]},
            "messages[0].content[0].image_url",
            "invalid_image_url",
        ),
    ],
)
async def test_a_body_that_cannot_be_served_is_refused_with_its_place(
    body: dict[str, object], param: str, code: str
) -> None:
    async with mesh() as here:
        error = refused(await here.chat(**body), 400)
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model": NaN}', b'{"a": "\\ud800"}', b"[" * 5000, b'{"seed": 1' + b"0" * 5000 + b"}"]
)
async def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    async with mesh() as here:
        reply = await here.http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    refused(reply, 400)


async def test_an_unknown_model_does_not_exist() -> None:
    async with mesh() as here:
        with pytest.raises(openai.NotFoundError) as caught:
            await here.openai.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "hi"}])
        refused(await here.http.get("/v1/models/org/name"), 404)
    assert caught.value.code == "model_not_found"


async def test_a_modality_that_the_model_lacks_is_refused() -> None:
    text_only = pipeline_status(MODEL, takes=(Modality.TEXT,), makes=(Modality.TEXT,))
    audio = {"type": "input_audio", "input_audio": {"data": "SUQzBAAA", "format": "mp3"}}
    async with mesh(text_only) as here:
        assert refused(await here.chat(**SPOKEN), 400)["param"] == "modalities"
        heard = await here.chat(messages=[{**USER, "content": [audio]}])
        assert refused(heard, 400)["param"] == "messages[0].content[0].input_audio"


async def test_routes_and_methods_that_are_not_there_say_so() -> None:
    async with mesh() as here:
        assert refused(await here.http.get("/v1/nothing"), 404)["code"] == "not_found"
        reply = await here.http.get("/v1/chat/completions")
        assert refused(reply, 405)["code"] == "method_not_allowed"
        assert reply.headers["allow"] == "POST"


async def test_bodies_of_another_type_are_refused() -> None:
    async with mesh() as here:
        form = await here.http.post("/v1/chat/completions", data={"model": MODEL})
        packed = await here.http.post(
            "/v1/chat/completions",
            content=b"x",
            headers={"content-type": "application/json", "content-encoding": "gzip"},
        )
    refused(form, 415)
    refused(packed, 415)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_above_the_limit_is_refused_however_it_comes(announced: bool) -> None:
    async def pieces() -> object:
        for _ in range(64):
            yield b" " * 65_536

    content = b" " * (64 * 65_536) if announced else pieces()
    async with mesh(max_body="1MiB") as here:
        reply = await here.http.post(
            "/v1/chat/completions",
            content=content,  # type: ignore[arg-type]
            headers={"content-type": "application/json"},
        )
        assert refused(reply, 413)["code"] == "request_too_large"
        assert (await here.http.get("/livez")).status_code == 200


async def test_refusals_count_from_nothing_on_or_the_first_would_start_no_stage() -> None:
    async with mesh(pipeline_status("at-rest", ready=False)):
        labels = {"pipeline": "at-rest", "reason": "stage_unavailable"}
        assert REGISTRY.get_sample_value("omni_admission_refusals_total", labels) == 0


async def test_no_stage_that_is_ready_is_503_and_readiness_tells_how_far_it_is() -> None:
    async with mesh(pipeline_status(MODEL, ready=False)) as here:
        before = _refusals()
        reply = await here.chat()
        assert refused(reply, 503)["code"] == "stage_unavailable"
        assert _refusals() == before + 1, "who starts stages that rest at zero has to see it"
        assert reply.headers["x-should-retry"] == "true"
        readiness = await here.http.get("/readyz")
        assert readiness.status_code == 503
        replica = {"replica": "thinker-0", "phase": "loading", "tensors_loaded": 3, "tensors_total": 4}
        assert readiness.json()["pipelines"][0]["stages"][0] == {
            "stage": "thinker",
            "ready_replicas": 0,
            "replicas": [replica],
        }
        here.coordinator.announce(pipeline_status(MODEL))
        await until(here.gateway, lambda: here.gateway.client.pipelines()[MODEL].ready)
        assert (await here.http.get("/readyz")).status_code == 200
        assert (await here.http.get("/livez")).status_code == 200


async def test_without_a_coordinator_requests_get_503() -> None:
    async with running() as gateway, httpx2.AsyncClient(trust_env=False) as http:
        base = f"http://127.0.0.1:{gateway.port}"
        chat = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
        refused(await http.post(f"{base}/v1/chat/completions", json=chat), 503)
        assert (await http.get(f"{base}/v1/models")).json() == {"object": "list", "data": []}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("admitted", [False, True])
@pytest.mark.parametrize(
    ("failure", "status", "code", "kind"),
    [
        (ContextTooLong(9, 8), 400, "context_length_exceeded", openai.BadRequestError),
        (Overloaded("Stage 'thinker' is full."), 429, "overloaded", openai.RateLimitError),
        (StageFailed("thinker"), 500, "stage_failed", openai.InternalServerError),
    ],
)
async def test_a_failure_before_the_first_output_keeps_its_status(
    stream: bool,
    admitted: bool,
    failure: OmniError,
    status: int,
    code: str,
    kind: type[openai.APIStatusError],
) -> None:
    async with mesh() as here:
        here.coordinator.script(*([Admit()] if admitted else []), failure)
        with pytest.raises(kind) as caught:
            await here.openai.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "hi"}],
                stream=stream,
            )
    assert caught.value.status_code == status
    assert caught.value.code == code
    assert caught.value.response.headers["x-should-retry"] == ("true" if status == 429 else "false")


async def test_overload_tells_when_to_come_back() -> None:
    failure = Overloaded("Stage 'thinker' is full.")
    failure.retry_after = timedelta(milliseconds=1500)
    async with mesh() as here:
        here.coordinator.script(failure)
        reply = await here.chat()
    refused(reply, 429)
    assert reply.headers["retry-after"] == "2"
    assert reply.headers["retry-after-ms"] == "1500"


async def test_the_official_client_does_not_repeat_a_generation_that_failed() -> None:
    async with mesh() as here:
        here.coordinator.script(Admit(), StageFailed("thinker"))
        with pytest.raises(openai.InternalServerError):
            # A second attempt would find no script and fail the test.
            await here.openai.with_options(max_retries=2).chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "hi"}]
            )


async def test_a_failure_after_the_first_output_is_an_event_and_the_end() -> None:
    async with mesh() as here:
        here.coordinator.script(Admit(), TextOutput("Hel"), failed_later := anyio.Event(), StageFailed("thinker"))
        async with here.http.stream("POST", "/v1/chat/completions", json=streamed()) as reply:
            lines = reply.aiter_lines()
            seen = [await anext(lines) for _ in range(3)]
            failed_later.set()
            seen += [line async for line in lines]
    events = [line for line in seen if line]
    assert reply.status_code == 200
    assert orjson.loads(events[-1].removeprefix("data: "))["error"]["code"] == "stage_failed"
    assert "[DONE]" not in "".join(events)


async def test_the_official_client_raises_on_a_failure_in_the_stream() -> None:
    async with mesh() as here:
        here.coordinator.script(Admit(), TextOutput("Hel"), gate := anyio.Event(), InvalidRequest("It broke."))
        stream = await here.openai.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hi"}], stream=True
        )
        await anext(stream)
        gate.set()
        with pytest.raises(openai.APIError, match="It broke"):
            async for _ in stream:
                pass


async def test_a_coordinator_that_dies_ends_its_requests_with_one_clear_error() -> None:
    async with mesh() as here:
        answer = here.coordinator.script(Admit(), anyio.Event())
        async with anyio.create_task_group() as tasks:

            async def die() -> None:
                await answer.submitted.wait()
                here.coordinator.hang_up()

            tasks.start_soon(die)
            error = refused(await here.chat(), 503)
        assert error["code"] == "stage_unavailable"
        assert error["message"] == "The coordinator was lost while it served this request."
        # It comes back, and so do the requests.
        await until(here.gateway, lambda: MODEL in here.gateway.client.pipelines())
        here.coordinator.script(Admit(), TextOutput("back"), Finish())
        assert (await here.chat()).status_code == 200


async def test_a_request_beyond_its_time_gets_504_and_is_cancelled() -> None:
    async with mesh(request_timeout="200ms") as here:
        answer = here.coordinator.script(Admit(), anyio.Event())
        reply = await here.chat()
        await answer.cancelled.wait()
    assert refused(reply, 504)["code"] == "deadline_exceeded"
    assert reply.headers["x-should-retry"] == "false"


async def test_a_coordinator_that_sends_nonsense_fails_one_request() -> None:
    async with mesh() as here:
        answer = here.coordinator.script(Admit(), AudioOutput(b"odd", 24_000), anyio.Event())
        refused(await here.chat(**SPOKEN), 500)
        await answer.cancelled.wait()


async def test_more_requests_than_there_are_places_are_refused_at_once() -> None:
    async with mesh(max_live_requests=1) as here, anyio.create_task_group() as tasks:
        answer = here.coordinator.script(Admit(), gate := anyio.Event(), TextOutput("hi"), Finish())
        tasks.start_soon(here.chat)
        await answer.submitted.wait()
        error = refused(await here.chat(), 429)
        gate.set()
    assert error["code"] == "overloaded"


async def test_an_error_never_repeats_what_the_caller_sent() -> None:
    private = "correct horse battery staple"
    async with mesh() as here:
        reply = await here.chat(temperature=private, user=private)
    assert private not in reply.text


def streamed() -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}


async def test_an_internal_error_promises_nothing_about_a_retry() -> None:
    async with mesh() as here:
        here.coordinator.script(OmniError(Reason.INTERNAL, "Something broke.", retry_after=timedelta(hours=9)))
        reply = await here.chat()
    refused(reply, 500)
    assert "retry-after" not in reply.headers


def _refusals() -> float:
    labels = {"pipeline": MODEL, "reason": "stage_unavailable"}
    return REGISTRY.get_sample_value("omni_admission_refusals_total", labels) or 0.0
