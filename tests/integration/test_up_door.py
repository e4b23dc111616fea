"""Where `omni up` answers: by HTTPS, and behind a port that somebody else takes in the very moment."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import grpc.aio
import httpx2
import pytest
from tests.integration.up_process import up
from tests.unit.relay.wire.authority import Authority

from omni.common.v1 import request_pb2 as omni
from omni.coordinator.v1 import coordinator_pb2, coordinator_pb2_grpc

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_mesh_with_https_says_that_it_is_ready_and_where(tmp_path: Path) -> None:
    files = Authority(tmp_path, "ca").issue("elsewhere.example")
    https = {"OMNI_GATEWAY_HTTPS_CERT": str(files.cert), "OMNI_GATEWAY_HTTPS_KEY": str(files.key)}
    async with up(tmp_path, settings=https) as mesh:
        await mesh.until(r"gRPC callers find the coordinator at \S+$")
        url = (await mesh.until(r"omni is ready at (https://127\.0\.0\.1:\d+/v1)$"))[1]
        async with httpx2.AsyncClient(verify=False, trust_env=False) as client:  # its name is another
            assert (await client.get(f"{url}/models")).json()["data"][0]["id"] == "echo"
        assert await mesh.stop(signal.SIGTERM) == 0


async def test_whoever_calls_by_grpc_and_tls_is_told_the_way_in(tmp_path: Path) -> None:
    async with up(tmp_path, "--encryption", "tls") as mesh:
        line = r"gRPC callers find the coordinator at (\S+) as (\S+), by TLS with (\S+), (\S+) and (\S+) in (\S+)$"
        address, name, *files, folder = (await mesh.until(line)).groups()
        ca, certificate, key = ((Path(folder) / file).read_bytes() for file in files)
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        named = [("grpc.ssl_target_name_override", name)]
        message = omni.Message(role=omni.ROLE_USER, parts=[omni.Part(text="hello")])
        request = coordinator_pb2.GenerateRequest(request=omni.GenerationRequest(model="echo", messages=[message]))
        async with grpc.aio.secure_channel(address, credentials, options=named) as channel:
            stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
            texts = [reply.output.text async for reply in stub.Generate(request, timeout=20)]
        assert "hello" in "".join(texts).lower()
        assert await mesh.stop(signal.SIGTERM) == 0


async def test_a_port_that_another_mesh_takes_while_this_one_starts_ends_it_and_nobody_is_told_that_it_is_ready(
    tmp_path: Path,
) -> None:
    async with up(tmp_path) as mesh:
        await mesh.until(r"  echo-split-0 +starting$")  # its port was free; its gateway has yet to import
        async with another_mesh(mesh.port):
            lines, code = await mesh.to_the_end()
    assert code == 1
    assert lines[-1] == f"Port {mesh.port} on 127.0.0.1 is in use by another program. Give another one with --port."
    assert not [line for line in lines if "ready" in line or "Traceback" in line or "starting it again" in line]


@asynccontextmanager
async def another_mesh(port: int) -> AsyncIterator[None]:
    """What answers there says that it is ready, with a pipeline of the same name."""
    body = json.dumps({"status": "ready", "pipelines": [{"name": "echo", "ready": True, "stages": []}]})
    reply = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"

    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(reply.encode())

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, answer)
        yield
        tasks.cancel_scope.cancel()
