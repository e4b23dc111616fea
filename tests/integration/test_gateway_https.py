"""HTTPS at the gateway's own port: who can talk to it, certificates that are renewed, and callers that mean no good."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
import httpx2
import openai
import pytest
from anyio.streams.tls import TLSStream
from openai.types.chat import ChatCompletionMessageParam
from prometheus_client import REGISTRY
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tests.descriptors import no_descriptors
from tests.integration.gateway_process import MODEL, GatewayProcess, gateway_process, last_words, put
from tests.unit.relay.wire.authority import DAY, Authority, Files

from omni_common.request import AudioOutput, TextOutput
from omni_common.testing.mail import PATIENCE
from omni_common.testing.scripts import Admit, Finish
from omni_gateway.http.certificate import load_certificate
from omni_gateway.http.https import HttpsServer

pytestmark = pytest.mark.anyio

HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
PCM = bytes(48_000)
FAILURES = "omni_https_handshake_failures_total"
EXPIRY = "omni_certificate_expiry_timestamp_seconds"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Authority(tmp_path, "ca").issue("localhost")


def https(files: Files, **more: object) -> dict[str, object]:
    return {"HTTPS_CERT": files.cert, "HTTPS_KEY": files.key, **more}


def renew(files: Files, by: Files) -> None:
    """As a kubelet does it: each file at once."""
    for mine, other in ((files.cert, by.cert), (files.key, by.key)):
        fresh = mine.with_suffix(".fresh")
        shutil.copy(other, fresh)
        fresh.replace(mine)


def shown(port: int, ca: Path) -> int:
    """The serial number of the certificate that a new connection gets. Raises SSLError when it is not this CA's."""
    context = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        found = tls.getpeercert()
    assert found is not None
    return int(str(found["serialNumber"]), 16)


async def greet(port: int, context: ssl.SSLContext) -> TLSStream:
    stream = await anyio.connect_tcp("127.0.0.1", port)
    try:
        return await TLSStream.wrap(stream, hostname="localhost", ssl_context=context)
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise


async def test_the_official_client_talks_over_https(files: Files) -> None:
    async with gateway_process(**https(files)) as here, here.openai(files.ca) as client:
        assert [model.id async for model in client.models.list()] == [MODEL]
        here.coordinator.script(Admit(), TextOutput("Hel"), TextOutput("lo"), Finish())
        stream = await client.chat.completions.create(model=MODEL, messages=HI, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        here.coordinator.script(Admit(), *[AudioOutput(PCM, 24_000)] * 40, Finish())
        speech = await client.audio.speech.create(model=MODEL, input="hi", voice="Ethan", response_format="pcm")
        assert await here.metric("omni_audio_underrun_seconds_count") == 1
        assert await here.metric("omni_inter_token_seconds_count") <= 1  # both pieces may have come at once
    assert text == "Hello"
    assert len(speech.content) == 40 * len(PCM)


async def test_a_caller_that_does_not_trust_the_certificate_is_counted(files: Files, tmp_path: Path) -> None:
    foreign = Authority(tmp_path, "foreign")
    async with gateway_process(**https(files)) as here:
        async with here.openai(foreign.ca) as client:
            with pytest.raises(openai.APIConnectionError):
                await client.models.list()
        await here.until_metric(1, FAILURES, reason="left")  # it leaves without saying why; others do say it
        with pytest.raises(ssl.SSLCertVerificationError):
            await anyio.to_thread.run_sync(shown, here.port, foreign.ca)
        await here.until_metric(1, FAILURES, reason="refused_by_caller")


async def test_other_names_are_refused_by_callers(files: Files, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other").issue("example.test")
    async with gateway_process(**https(other)) as here, here.connect(other.ca) as http:
        with pytest.raises(httpx2.ConnectError, match=r"(?i)hostname mismatch"):
            await http.get("/livez")


@pytest.mark.parametrize(
    ("version", "agreed"),
    [
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_tls_begins_at_1_2(files: Files, version: ssl.TLSVersion, agreed: bool) -> None:
    context = ssl.create_default_context(cafile=files.ca)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    async with gateway_process(**https(files)) as here:
        if agreed:
            await (await greet(here.port, context)).aclose()
        else:
            with pytest.raises((ssl.SSLError, anyio.BrokenResourceError)):
                await greet(here.port, context)
            await here.until_metric(1, FAILURES, reason="version")


async def test_callers_that_fail_to_greet_disturb_nobody(files: Files) -> None:
    async with gateway_process(**https(files, HEAD_TIMEOUT="500ms")) as here, here.openai(files.ca) as client:
        here.coordinator.script(Admit(), TextOutput("a"), gate := anyio.Event(), TextOutput("b"), Finish())
        stream = await client.chat.completions.create(model=MODEL, messages=HI, stream=True)
        assert await anext(stream)
        silent = [await anyio.connect_tcp("127.0.0.1", here.port) for _ in range(20)]
        for said in (b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n", b"\x00" * 64, b"\x16\x03\x01"):
            stranger = await anyio.connect_tcp("127.0.0.1", here.port)
            await stranger.send(said)
            await stranger.aclose()
        async with here.connect(files.ca) as http:  # beside those that hang
            assert (await http.get("/livez")).status_code == 200
        for one in silent:
            with anyio.fail_after(PATIENCE), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await one.receive()
            await one.aclose()
        await here.until_metric(20, FAILURES, reason="timeout")
        await here.until_metric(1, FAILURES, reason="plain_http")
        await here.until_metric(1, FAILURES, reason="no_tls")
        await here.until_metric(1, FAILURES, reason="left")
        gate.set()
        assert [chunk async for chunk in stream]
        assert here.process.returncode is None
        assert not [line for line in here.log if line.get("level") in {"WARNING", "ERROR"}]


async def test_half_a_head_is_given_up_inside_tls_too(files: Files) -> None:
    async with gateway_process(**https(files, HEAD_TIMEOUT="500ms")) as here:
        caller = await greet(here.port, ssl.create_default_context(cafile=files.ca))
        await caller.send(b"GET /livez HTTP/1.1\r\nhost: ")
        with anyio.fail_after(PATIENCE), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await caller.receive()
        await anyio.aclose_forcefully(caller)


async def test_a_caller_that_leaves_or_reads_nothing_ends_its_request(files: Files) -> None:
    async with gateway_process(**https(files, STALL_TIMEOUT="500ms", OUTPUT_CREDITS=4)) as here:
        left = here.coordinator.script(Admit(), TextOutput("a"), anyio.Event())
        async with (
            here.connect(files.ca) as http,
            http.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as reply,
        ):
            await anext(reply.aiter_lines())
        with anyio.fail_after(PATIENCE):
            await left.cancelled.wait()
        stuck = here.coordinator.script(Admit(), *[AudioOutput(PCM, 24_000)] * 2000, Finish())
        asked = {"modalities": ["text", "audio"], "audio": {"voice": "Ethan", "format": "pcm16"}}
        async with (
            here.connect(files.ca) as http,
            http.stream("POST", "/v1/chat/completions", json=chat(stream=True, **asked)),
        ):
            with anyio.fail_after(PATIENCE):
                await stuck.cancelled.wait()
        assert stuck.sent < 1000
        await here.until_metric(1, "omni_stream_outcomes_total", outcome="slow_consumer")


async def test_a_renewed_certificate_is_used_without_a_restart_and_cuts_no_connection(
    files: Files, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    new = Authority(tmp_path / "new", "ca").issue("localhost", ends=9 * DAY)
    async with gateway_process(**https(files)) as here, here.openai(files.ca) as client:
        before = await anyio.to_thread.run_sync(shown, here.port, files.ca)
        assert await here.metric(EXPIRY, certificate="https") == pytest.approx(in_days(1), abs=60)
        here.coordinator.script(Admit(), TextOutput("a"), gate := anyio.Event(), TextOutput("b"), Finish())
        stream = await client.chat.completions.create(model=MODEL, messages=HI, stream=True)
        assert await anext(stream)
        renew(files, new)
        await here.until_logged("new files are used")
        assert await anyio.to_thread.run_sync(shown, here.port, new.ca) != before
        with pytest.raises(ssl.SSLError):
            await anyio.to_thread.run_sync(shown, here.port, files.ca)
        assert await here.metric(EXPIRY, certificate="https") == pytest.approx(in_days(9), abs=60)
        gate.set()
        assert "b" in [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]


async def test_a_broken_certificate_leaves_the_old_one_in_use_and_is_told_once(files: Files, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    authority = Authority(tmp_path / "new", "ca")
    async with gateway_process(**https(files)) as here:
        before = await anyio.to_thread.run_sync(shown, here.port, files.ca)
        renew(files, authority.issue("localhost", begins=-2 * DAY, ends=-DAY))
        assert (
            "certificate has expired" in (await here.until_logged("new files cannot be used; the old ones stay"))["why"]
        )
        put(files.cert, "garbage")
        told = await here.until_logged("new files cannot be used; the old ones stay", times=2)
        assert "holds no certificate in PEM" in told["why"]
        assert await anyio.to_thread.run_sync(shown, here.port, files.ca) == before
        renew(files, authority.issue("localhost"))
        await here.until_logged("new files are used")
        assert await anyio.to_thread.run_sync(shown, here.port, authority.ca) != before
        assert len([line for line in here.log if line["msg"].startswith("new files cannot")]) == 2


async def test_a_certificate_that_was_never_good_ends_the_process_in_a_sentence(files: Files, tmp_path: Path) -> None:
    expired = Authority(tmp_path, "late").issue("late", begins=-2 * DAY, ends=-DAY)
    status, said = await last_words(**https(expired))
    assert status == 1
    assert said == f"Callers would refuse {expired.cert}: certificate has expired."
    status, said = await last_words(HTTPS_CERT=files.cert)
    assert status == 1
    assert "HTTPS_CERT and HTTPS_KEY belong together" in said


async def test_a_drain_lets_live_requests_finish_and_waits_for_no_idle_caller(files: Files) -> None:
    async with gateway_process(**https(files, DRAIN="20s")) as here, here.openai(files.ca) as client:
        idle = await greet(here.port, ssl.create_default_context(cafile=files.ca))
        greeting = await anyio.connect_tcp("127.0.0.1", here.port)
        here.coordinator.script(Admit(), TextOutput("a"), gate := anyio.Event(), TextOutput("b"), Finish())
        stream = await client.chat.completions.create(model=MODEL, messages=HI, stream=True)
        assert await anext(stream)
        here.process.send_signal(signal.SIGTERM)
        await refuses(here)
        gate.set()
        assert "b" in [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
        with anyio.fail_after(10):
            assert await here.process.wait() == 0
        await anyio.aclose_forcefully(idle)
        await anyio.aclose_forcefully(greeting)


async def test_greetings_beyond_the_bound_are_turned_away(files: Files) -> None:
    def turned_away() -> float:
        return REGISTRY.get_sample_value(FAILURES, {"reason": "too_many"}) or 0.0

    async def alive(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("alive")(scope, receive, send)

    context = load_certificate(files.cert, files.key).context
    server = HttpsServer(alive, head_timeout=PATIENCE, context=lambda: context, max_handshakes=3)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port, before = listener.getsockname()[1], turned_away()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        await server.listening.wait()
        hanging = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(4)]
        with anyio.fail_after(PATIENCE), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await hanging[-1].receive()
        assert turned_away() == before + 1
        await hanging.pop().aclose()
        for one in hanging:
            await one.send_eof()
            with anyio.fail_after(PATIENCE), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await one.receive()  # its place is free
            await one.aclose()
        async with httpx2.AsyncClient(verify=ssl.create_default_context(cafile=files.ca), trust_env=False) as http:
            assert (await http.get(f"https://localhost:{port}/")).text == "alive"
        server.should_exit = True


async def test_that_descriptors_are_used_up_is_told_once_and_passes(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def alive(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("alive")(scope, receive, send)

    monkeypatch.setattr("omni_gateway.http.https._BREATHER", 0.0)
    context = load_certificate(files.cert, files.key).context
    server = HttpsServer(alive, head_timeout=PATIENCE, context=lambda: context)
    async with anyio.create_task_group() as tasks:
        with socket.socket() as listener, socket.socket() as early:
            listener.bind(("127.0.0.1", 0))
            early.setblocking(False)
            port = listener.getsockname()[1]
            tasks.start_soon(server.serve, [listener])
            await server.listening.wait()
            with no_descriptors():
                early.connect_ex(("127.0.0.1", port))
                for _ in range(100):  # rounds of the event loop, in each of which it is tried
                    await anyio.lowlevel.checkpoint()
            async with httpx2.AsyncClient(verify=ssl.create_default_context(cafile=files.ca), trust_env=False) as http:
                assert (await http.get(f"https://localhost:{port}/")).text == "alive"
            server.should_exit = True
    assert [record.message for record in caplog.records if record.name.startswith("omni_gateway")] == [
        "no connection can be accepted"
    ]


async def refuses(here: GatewayProcess) -> None:
    """Returns when nobody is accepted any more."""
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                stream = await anyio.connect_tcp("127.0.0.1", here.port)
            except OSError:
                return
            await stream.aclose()
            await anyio.sleep(0.05)  # the port of another process: there is nothing to wait on


def chat(**more: object) -> dict[str, object]:
    return {"model": MODEL, "messages": HI, **more}


def in_days(days: int) -> float:
    return (datetime.now(UTC) + timedelta(days=days)).timestamp()
