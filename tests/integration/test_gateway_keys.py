"""Keys of callers: who is let in, what each may ask for, and that no key is told to anybody."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import anyio
import anyio.lowlevel
import httpx2
import openai
import orjson
import pytest
from openai.types.chat import ChatCompletionMessageParam
from prometheus_client import REGISTRY
from tests.integration.gateway_mesh import MODEL, Mesh, mesh
from tests.integration.gateway_process import gateway_process, last_words, put, write_keys
from tests.unit.relay.wire.authority import Authority

from omni_common.request import TextOutput
from omni_common.testing.scripts import Admit, Finish

pytestmark = pytest.mark.anyio

ADA, BOB = "sk-omni-ada-0123456789", "sk-omni-bob-0123456789"
HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
SCRIPT = Path(__file__).parents[1] / "clients" / "keys.mjs"
ROUTES = [
    ("GET", "/v1/models"),
    ("GET", f"/v1/models/{MODEL}"),
    ("GET", "/v1/audio/voices"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/audio/speech"),
    ("POST", "/v1/audio/transcriptions"),
    ("POST", "/v1/audio/translations"),
]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    write_keys(path, {ADA: {"name": "ada"}})
    return path


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def failures(reason: str) -> float:
    return REGISTRY.get_sample_value("omni_auth_failures_total", {"reason": reason}) or 0.0


def limited(limit: str) -> float:
    return REGISTRY.get_sample_value("omni_key_limit_refusals_total", {"limit": limit}) or 0.0


def refused(reply: httpx2.Response) -> str:
    """The message of a 401, which is OpenAI's in every part."""
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["x-request-id"].startswith("req_")
    error = reply.json()["error"]
    assert error == {
        "message": error["message"],
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
    return str(error["message"])


@pytest.mark.parametrize(("method", "route"), ROUTES)
async def test_every_route_of_the_api_asks_for_a_key(keys: Path, method: str, route: str) -> None:
    async with mesh(api_keys=keys) as here:
        missing, unknown = failures("missing"), failures("unknown")
        assert "did not provide an API key" in refused(await here.http.request(method, route))
        assert "Incorrect API key" in refused(await here.http.request(method, route, headers=bearer(BOB)))
        assert (failures("missing"), failures("unknown")) == (missing + 1, unknown + 1)
        let_in = await here.http.request(method, route, headers=bearer(ADA))
        assert let_in.status_code in {200, 415}


async def test_every_route_that_there_is_was_asked(keys: Path) -> None:
    async with mesh(api_keys=keys) as here:
        app = here.gateway.app._app._app  # type: ignore[attr-defined]  # the edge, the guard, the routes
        routes = {route.path.replace("{model:path}", MODEL) for route in app.routes}
    assert routes == {path for _, path in ROUTES} | {"/livez", "/readyz"}


@pytest.mark.parametrize(
    "path",
    ["//v1/models", "/v1//models", "/V1/models", "/v1/models/", "/livez/", "/readyz/../v1/models", "/metrics", "/"],
)
async def test_no_spelling_of_a_path_is_a_way_around(keys: Path, path: str) -> None:
    async with mesh(api_keys=keys) as here, await anyio.connect_tcp("127.0.0.1", here.port) as caller:
        await caller.send(f"GET {path} HTTP/1.1\r\nhost: /livez\r\nconnection: close\r\n\r\n".encode())
        assert (await caller.receive()).startswith(b"HTTP/1.1 401 ")


async def test_probes_need_no_key(keys: Path) -> None:
    async with mesh(api_keys=keys) as here:
        assert (await here.http.get("/livez")).status_code == 200
        assert (await here.http.get("/readyz")).status_code == 200


async def test_without_a_file_of_keys_nobody_needs_one() -> None:
    async with mesh() as here:
        assert (await here.http.get("/v1/models")).status_code == 200
        assert (await here.http.get("/v1/models", headers=bearer("whatever"))).status_code == 200


async def test_a_body_is_not_read_of_a_stranger(keys: Path) -> None:
    async with mesh(api_keys=keys) as here, await anyio.connect_tcp("127.0.0.1", here.port) as caller:
        await caller.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 30000000\r\n\r\n")
        assert (await caller.receive()).startswith(b"HTTP/1.1 401 ")


async def test_requests_beyond_the_minute_are_told_when_to_come_back(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, {ADA: {"name": "ada", "limits": {"requests_per_minute": 3}}, BOB: {"name": "bob"}})
    before = limited("requests_per_minute")
    async with mesh(api_keys=path) as here:
        replies = [await here.http.get("/v1/models", headers=bearer(ADA)) for _ in range(4)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
        assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["2", "1", "0", "0"]
        assert {reply.headers["x-ratelimit-limit-requests"] for reply in replies} == {"3"}
        assert replies[0].headers["x-ratelimit-reset-requests"].startswith(("20s", "19."))
        error = replies[-1].json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("rate_limit_error", "rate_limit_exceeded", None)
        assert 1 <= int(replies[-1].headers["retry-after"]) <= 20
        assert 15_000 <= int(replies[-1].headers["retry-after-ms"]) <= 20_000
        assert replies[-1].headers["x-should-retry"] == "true"
        unlimited = await here.http.get("/v1/models", headers=bearer(BOB))
        assert unlimited.status_code == 200
        assert not [name for name in unlimited.headers if name.startswith("x-ratelimit")]
    assert limited("requests_per_minute") == before + 1


async def test_requests_under_way_count_until_their_last_byte(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, {ADA: {"name": "ada", "limits": {"concurrent_requests": 1}}, BOB: {"name": "bob"}})
    chat = {"model": MODEL, "messages": HI, "stream": True}
    async with mesh(api_keys=path) as here:
        here.coordinator.script(Admit(), TextOutput("a"), gate := anyio.Event(), Finish())
        async with here.http.stream("POST", "/v1/chat/completions", json=chat, headers=bearer(ADA)) as reply:
            lines = reply.aiter_lines()
            await anext(lines)
            second = await here.http.get("/v1/models", headers=bearer(ADA))
            assert second.status_code == 429
            assert second.json()["error"]["code"] == "rate_limit_exceeded"
            assert second.headers["retry-after"] == "1"
            assert (await here.http.get("/v1/models", headers=bearer(BOB))).status_code == 200
            gate.set()
            assert [line async for line in lines]
        assert (await here.http.get("/v1/models", headers=bearer(ADA))).status_code == 200
        # One that leaves in the middle gives its place back as well.
        left = here.coordinator.script(Admit(), TextOutput("a"), anyio.Event())
        async with here.http.stream("POST", "/v1/chat/completions", json=chat, headers=bearer(ADA)) as reply:
            await anext(reply.aiter_lines())
        with anyio.fail_after(5):
            await left.cancelled.wait()
            await left.ended.wait()
        assert (await until_let_in(here)).status_code == 200


async def until_let_in(here: Mesh) -> httpx2.Response:
    """The mesh hears of a caller's end a moment before its place is given back."""
    with anyio.fail_after(5):
        while True:
            reply = await here.http.get("/v1/models", headers=bearer(ADA))
            if reply.status_code == 200:
                return reply
            await anyio.lowlevel.checkpoint()


async def test_the_official_client_raises_what_it_does_for_openai(tmp_path: Path) -> None:
    files = Authority(tmp_path, "ca").issue("localhost")
    path = tmp_path / "keys.json"
    write_keys(path, {ADA: {"name": "ada", "limits": {"requests_per_minute": 2}}})
    https = {"HTTPS_CERT": files.cert, "HTTPS_KEY": files.key, "API_KEYS": path, "LOG_LEVEL": "DEBUG"}
    async with gateway_process(**https) as here:
        async with here.openai(files.ca, key=BOB) as stranger:
            with pytest.raises(openai.AuthenticationError) as unknown:
                await stranger.models.list()
        assert unknown.value.code == "invalid_api_key"
        assert unknown.value.request_id is not None
        here.coordinator.script(Admit(), TextOutput("Hello"), Finish())
        async with here.openai(files.ca, key=ADA) as known:
            answer = await known.chat.completions.with_raw_response.create(model=MODEL, messages=HI)
            assert answer.headers["x-ratelimit-remaining-requests"] == "1"
            assert [model.id async for model in known.models.list()] == [MODEL]
            with pytest.raises(openai.RateLimitError) as much:
                await known.models.list()
        assert much.value.code == "rate_limit_exceeded"
        assert await here.metric("omni_auth_failures_total", reason="unknown") == 1
        line = await here.until_logged("request ended")
        assert line["tenant"] == "ada"
        written = orjson.dumps(here.log).decode()
    for key in (ADA, BOB):
        assert key not in written
        assert key[-10:] not in written


async def test_the_official_client_waits_for_its_limit_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, {ADA: {"name": "ada", "limits": {"requests_per_minute": 120}}})
    async with gateway_process(API_KEYS=path) as here, here.openai(key=ADA, max_retries=5) as client:
        async with here.connect(key=ADA) as http:
            while (await http.get("/v1/models")).status_code == 200:
                pass
        assert [model.id async for model in client.models.list()] == [MODEL]


async def test_the_official_javascript_client_is_let_in_and_refused_as_well(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not await anyio.Path(SCRIPT.parent / "node_modules" / "openai").is_dir():
        if os.environ.get("CI"):
            pytest.fail("the JavaScript client is not installed")
        pytest.skip("needs Node; `make test` then installs the client")
    files = Authority(tmp_path, "ca").issue("localhost")
    path = tmp_path / "keys.json"
    write_keys(path, {ADA: {"name": "ada", "limits": {"requests_per_minute": 2}}})
    async with gateway_process(HTTPS_CERT=files.cert, HTTPS_KEY=files.key, API_KEYS=path) as here:

        async def seen(key: str, **env: str) -> list[dict[str, object]]:
            with anyio.fail_after(50):
                done = await anyio.run_process([node, str(SCRIPT), f"https://localhost:{here.port}/v1", key], env=env)
            return [orjson.loads(line) for line in done.stdout.splitlines()]

        trusting = {"NODE_EXTRA_CA_CERTS": str(files.ca)}
        assert await seen(ADA, **trusting) == [
            {"models": [MODEL], "remaining": "1"},
            {"models": [MODEL], "remaining": "0"},
            {"error": "RateLimitError", "code": "rate_limit_exceeded"},
        ]
        assert await seen(BOB, **trusting) == [{"error": "AuthenticationError", "code": "invalid_api_key"}] * 3
        assert {one["error"] for one in await seen(ADA)} == {"APIConnectionError"}
        await here.until_metric(3, "omni_https_handshake_failures_total")


async def test_keys_change_without_a_restart_and_a_broken_file_leaves_the_old(keys: Path) -> None:
    async with gateway_process(API_KEYS=keys) as here, here.connect() as http:

        async def status(key: str) -> int:
            return (await http.get("/v1/models", headers=bearer(key))).status_code

        assert (await status(ADA), await status(BOB)) == (200, 401)
        write_keys(keys, {BOB: {"name": "bob"}})
        await here.until_logged("new files are used")
        assert (await status(ADA), await status(BOB)) == (401, 200)
        put(keys, '{"keys": {"eve": {"sha256": "sk-in-the-clear"}}}')
        told = await here.until_logged("new files cannot be used; the old ones stay")
        assert told["why"] == f"{keys} is no file of keys: keys.eve.sha256: it must be the 64 hex digits of a SHA-256."
        await anyio.Path(keys).unlink()
        told = await here.until_logged("new files cannot be used; the old ones stay", times=2)
        assert "cannot be read" in told["why"]
        assert (await status(ADA), await status(BOB)) == (401, 200)
        assert "in-the-clear" not in orjson.dumps(here.log).decode()


async def test_a_file_that_was_never_good_ends_the_process_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    assert await last_words(API_KEYS=path) == (1, f"{path} cannot be read: No such file or directory.")
    path.write_text("{")
    assert await last_words(API_KEYS=path) == (1, f"{path} is not valid JSON.")
