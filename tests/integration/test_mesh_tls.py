"""A mesh whose components have certificates: HTTP at a real gateway, a real coordinator, real stages, all over TLS."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.abc
import grpc
import httpx2
import pytest
from tests.integration.gateway_mesh import running, until
from tests.integration.mesh import Running
from tests.unit.relay.wire.authority import Authority, Files

from omni.stage.v1.stage_pb2_grpc import StageServiceStub
from omni_common.clock import monotonic
from omni_common.component import Component
from omni_common.health import Hearts
from omni_common.rpc.channel import open_channel
from omni_common.rpc.tls import mesh_tls
from omni_common.rpc.tls_refusal import TlsRefusal
from omni_common.telemetry import names
from omni_coordinator.service import CoordinatorProcess
from omni_coordinator.settings import CoordinatorSettings
from omni_gateway.gateway import Gateway
from omni_gateway.settings import GatewaySettings
from omni_stage.models import load_pipeline_config
from omni_stage.process import StageProcess
from omni_stage.settings import StageSettings

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
# Two processes, so that stages deliver to each other over the network.
STAGES = ("split,upper,count", "join,say,write,beep")


def counted(reason: TlsRefusal) -> float:
    return float(names.TLS_REFUSALS.labels(reason)._value.get())


class Folder:
    """The files that a mesh's components are told of; what is in them may change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.renew("first")

    def renew(self, authority: str) -> None:
        """Certificates of a new authority, for everybody."""
        self._path.joinpath(authority).mkdir()
        issuing = Authority(self._path / authority, authority)
        for component in Component:
            folder = self._path / component
            folder.mkdir(exist_ok=True)
            issuing.issue(component, folder=folder)
            shutil.copy(issuing.ca, folder / "ca.crt")

    def settings(self, component: Component) -> dict[str, Path]:
        folder = self._path / component
        files = Files(folder / f"{component}.crt", folder / f"{component}.key", folder / "ca.crt")
        return {"tls_cert": files.cert, "tls_key": files.key, "tls_ca": files.ca}


@dataclass
class Mesh:
    """One coordinator; stages are added to it."""

    folder: Path
    certificates: Folder
    tasks: anyio.abc.TaskGroup
    coordinator: CoordinatorProcess

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.coordinator.port}"

    def start_stages(self, stages: str, replica: str, tls: Mapping[str, Path] | None = None) -> Running:
        settings = StageSettings(
            family="echo",
            pipeline=self.folder / "echo.json",
            stage=stages,
            replica=replica,
            bind="127.0.0.1:0",
            coordinators=self.address,
            **(self.certificates.settings(Component.STAGE) if tls is None else tls),  # type: ignore[arg-type]
        )
        started = Running(StageProcess(settings))
        self.tasks.start_soon(started.run)
        return started

    async def start_coordinator(self, bind: str) -> Running:
        settings = CoordinatorSettings(
            bind=bind,
            pipelines=(str(self.folder / "echo.json"),),
            **self.certificates.settings(Component.COORDINATOR),  # type: ignore[arg-type]
        )
        self.coordinator = CoordinatorProcess(settings)
        started = Running(self.coordinator)
        self.tasks.start_soon(started.run)
        await _until(lambda: started.lifecycle.started)
        return started


@asynccontextmanager
async def mesh(folder: Path) -> AsyncIterator[tuple[Mesh, Running]]:
    """The mesh, and its coordinator."""
    (folder / "echo.json").write_text(load_pipeline_config("echo").model_dump_json())
    certificates = Folder(folder)
    async with anyio.create_task_group() as tasks:
        made = Mesh(folder, certificates, tasks, None)  # type: ignore[arg-type]  # it follows
        coordinator = await made.start_coordinator("127.0.0.1:0")
        try:
            yield made, coordinator
        finally:
            tasks.cancel_scope.cancel()


async def _until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not holds():  # noqa: ASYNC110  # services, counters and logs have no common event
            await anyio.sleep(0.005)


async def ready(gateway: Gateway) -> None:
    await until(gateway, lambda: any(view.ready for view in gateway.client.pipelines().values()))


async def echoed(gateway: Gateway, text: str) -> str:
    body = {"model": "echo", "messages": [{"role": "user", "content": text}]}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20, trust_env=False) as http:
        answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


async def test_a_request_crosses_a_mesh_of_certificates(tmp_path: Path) -> None:
    before = {reason: counted(reason) for reason in TlsRefusal}
    async with mesh(tmp_path) as (made, _):
        for number, stages in enumerate(STAGES):
            made.start_stages(stages, f"s-{number}")
        async with running(made.address, **made.certificates.settings(Component.GATEWAY)) as gateway:
            await ready(gateway)
            assert "HELLO" in await echoed(gateway, "hello")
    assert {reason: counted(reason) for reason in TlsRefusal} == before


async def test_a_stage_of_another_authority_and_a_component_of_another_kind_do_not_attach(tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "other-ca").issue("omni-stage", folder=tmp_path)
    foreign, role = counted(TlsRefusal.FOREIGN), counted(TlsRefusal.ROLE)
    async with mesh(tmp_path) as (made, _):
        theirs = {"tls_cert": stranger.cert, "tls_key": stranger.key, "tls_ca": stranger.ca}
        made.start_stages("say", "stranger", theirs)
        made.start_stages("say", "impostor", made.certificates.settings(Component.GATEWAY))
        await _until(lambda: counted(TlsRefusal.FOREIGN) > foreign and counted(TlsRefusal.ROLE) > role)
        assert not any(made.coordinator.coordinator.state("echo").stages.values())


async def test_a_gateway_needs_a_certificate_and_a_stage_cannot_be_one(tmp_path: Path) -> None:
    role = counted(TlsRefusal.ROLE)
    async with mesh(tmp_path) as (made, _):
        async with running(made.address, **made.certificates.settings(Component.STAGE)) as impostor:
            await _until(lambda: counted(TlsRefusal.ROLE) > role)
            assert not impostor.client.connected
        async with (
            running(made.address) as plain,
            running(made.address, **made.certificates.settings(Component.GATEWAY)) as good,
        ):
            await until(good, lambda: good.client.connected == 1)
            assert not plain.client.connected


async def test_only_stages_deliver_to_stages(tmp_path: Path) -> None:
    role = counted(TlsRefusal.ROLE)
    async with mesh(tmp_path) as (made, _):
        made.start_stages("say", "s-0")
        replicas = made.coordinator.coordinator.state
        await _until(lambda: bool(replicas("echo").stages["say"]))
        (say,) = replicas("echo").stages["say"]
        gateway = mesh_tls(GatewaySettings(coordinators=("x:1",), **made.certificates.settings(Component.GATEWAY)))  # type: ignore[arg-type]
        async with open_channel(say.address, tls=gateway, peer=Component.STAGE) as channel:
            call = StageServiceStub(channel).Deliver()
            assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
            assert await call.details() == "Deliver is for omni-stage; the caller's certificate has omni-gateway."
    assert counted(TlsRefusal.ROLE) == role + 1


async def test_all_certificates_change_while_the_mesh_serves(tmp_path: Path) -> None:
    async with mesh(tmp_path) as (made, coordinator):
        for number, stages in enumerate(STAGES):
            made.start_stages(stages, f"s-{number}")
        async with running(made.address, **made.certificates.settings(Component.GATEWAY)) as gateway:
            await ready(gateway)
            await echoed(gateway, "before")
            made.certificates.renew("second")
            assert "MEANWHILE" in await echoed(gateway, "meanwhile")  # on the streams that were there
            bind = made.address
            await coordinator.kill()
            await _until(lambda: not gateway.client.connected)
            await made.start_coordinator(bind)  # everybody comes again, with what is in the files now
            await ready(gateway)
            assert "AFTER" in await echoed(gateway, "after")


async def test_the_scheduler_of_each_stage_is_a_heart_of_its_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with mesh(tmp_path) as (made, _):
        started = made.start_stages("split,say", "s-0")
        started.lifecycle.hearts = Hearts(clock=lambda: monotonic() + 3600)  # an hour on, and nothing has come round
        await _until(lambda: started.lifecycle.started)
        assert not started.lifecycle.hearts.beat()
    silent = {vars(record)["what"] for record in caplog.records if record.name == "omni_common.health"}
    assert silent == {"scheduler of stage 'split'", "scheduler of stage 'say'"}
