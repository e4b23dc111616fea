"""A whole mesh in one process, for tests: real coordinators and stages, real gRPC on loopback, real schedulers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
from tests.relay_process import RelayProcess, running_relay

from omni.coordinator.v1 import coordinator_pb2
from omni_common.lifecycle import Lifecycle, Service
from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import GenerationParams, GenerationRequest, Media, Message, Modality, Role, Sampling, Text
from omni_common.rpc.contract import INLINE_LIMIT
from omni_common.settings import ByteSize
from omni_common.testing.gateway import FakeGateway, fake_gateway
from omni_coordinator.service import CoordinatorProcess
from omni_coordinator.settings import CoordinatorSettings
from omni_stage.models import load_pipeline_config
from omni_stage.process import StageProcess
from omni_stage.settings import StageSettings

PATIENCE = 20.0

RELAY = {"ARENA_SIZE": "32MiB", "EXTENT_SIZE": "1MiB"}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a mesh is laid out. `pods` maps stages to pods; the others share the pod `all`. `together` are stages that
    share a process; its name is theirs, with commas. With `arena`, each pod has a relay, set up by `relay` and, for
    single pods, `relays`; with an `inline_limit` of 0, everything goes through them."""

    family: str = "echo"
    coordinators: int = 1
    replicas: Mapping[str, int] = field(default_factory=dict)
    pods: Mapping[str, str] = field(default_factory=dict)
    together: Sequence[Sequence[str]] = ()
    arena: bool = True
    relay: Mapping[str, str] = field(default_factory=dict)
    relays: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    inline_limit: int = INLINE_LIMIT
    model: Path | None = None
    changes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def pod_of(self, stage: str) -> str:
        return self.pods.get(stage, "all")

    def processes(self) -> list[tuple[str, int]]:
        """The stages of each, separated by commas, and how many there are."""
        grouped = {stage for group in self.together for stage in group}
        alone = [stage.name for stage in self.pipeline().stages if stage.name not in grouped]
        return [(",".join(group), self.replicas.get(group[0], 1)) for group in (*self.together, *zip(alone))]

    def pipeline(self) -> PipelineConfig:
        """The family's pipeline with `changes` to single stages."""
        declared = load_pipeline_config(self.family)
        stages = tuple(
            StageConfig.model_validate({**stage.model_dump(), **self.changes.get(stage.name, {})})
            for stage in declared.stages
        )
        return PipelineConfig.model_validate({**declared.model_dump(), "stages": [s.model_dump() for s in stages]})


class Running:
    """One service inside the test's event loop."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self.lifecycle = Lifecycle()

    async def run(self) -> None:
        try:
            with self._scope:
                await self.service.run(self.lifecycle)
        finally:
            self._ended.set()

    async def kill(self) -> None:
        """Ends it as a crash would for its peers: at once and without drain."""
        self._scope.cancel()
        await self._ended.wait()


class Mesh:
    """Coordinators and stages of one pipeline; made by `mesh`."""

    def __init__(self, layout: Layout, folder: Path, tasks: anyio.abc.TaskGroup, ending: ExitStack) -> None:
        """`ending` ends the relays."""
        self.layout = layout
        self._ending = ending
        self.pipeline = layout.pipeline()
        self._folder = folder
        self._tasks = tasks
        self.coordinators: list[CoordinatorProcess] = []
        self.stages: dict[str, Running] = {}
        self.relays: dict[str, RelayProcess] = {}
        self.gateways: list[FakeGateway] = []

    @property
    def gateway(self) -> FakeGateway:
        return self.gateways[0]

    @property
    def addresses(self) -> Sequence[str]:
        return [f"127.0.0.1:{coordinator.port}" for coordinator in self.coordinators]

    def process(self, name: str) -> StageProcess:
        service = self.stages[name].service
        assert isinstance(service, StageProcess)
        return service

    async def start_coordinator(self) -> None:
        file = self._folder / f"{self.pipeline.name}.json"
        file.write_text(self.pipeline.model_dump_json())
        service = CoordinatorProcess(CoordinatorSettings(bind="127.0.0.1:0", pipelines=(str(file),)))
        running = Running(service)
        self._tasks.start_soon(running.run)
        while not running.lifecycle.started:
            await anyio.lowlevel.checkpoint()
        self.coordinators.append(service)

    async def start_relays(self) -> None:
        """One for each pod."""
        async with anyio.create_task_group() as tasks:
            for pod in {self.layout.pod_of(stage.name) for stage in self.pipeline.stages}:
                (self._folder / pod).mkdir()
                tasks.start_soon(self.start_relay, pod)

    async def start_relay(self, pod: str) -> None:
        """The pod's, or its next life: at the same address."""
        bind = {"BIND": self.relays[pod].logged("listening")["address"]} if pod in self.relays else {}
        settings = {**RELAY, **self.layout.relay, **bind, **self.layout.relays.get(pod, {})}
        made = running_relay(self._folder / pod, **settings)
        self.relays[pod] = await anyio.to_thread.run_sync(self._ending.enter_context, made)

    def start_stage(self, stage: str, number: int = 0) -> Running:
        """A process of the stage, or of several that are separated by commas."""
        pod = self.layout.pod_of(stage.partition(",")[0])
        name = f"{stage}-{number}"
        settings = StageSettings(
            family=self.layout.family,
            pipeline=self._folder / f"{self.pipeline.name}.json",
            stage=stage,
            replica=name,
            pod=pod,
            node="test",
            bind="127.0.0.1:0",
            coordinators=",".join(self.addresses),
            model=self.layout.model,
            arena=self._folder / pod if self.layout.arena else None,
            inline_limit=ByteSize(self.layout.inline_limit),
        )
        running = self.stages[name] = Running(StageProcess(settings))
        self._tasks.start_soon(running.run)
        return running

    def complete(self, status: coordinator_pb2.PipelineStatus) -> bool:
        """Whether every replica of the layout is ready."""
        wanted = {stage.name: self.layout.replicas.get(stage.name, 1) for stage in self.pipeline.stages}
        return {stage.stage: stage.ready_replicas for stage in status.stages} == wanted

    def idle(self) -> bool:
        """Nothing is alive anywhere."""
        return all(c.coordinator.live == 0 for c in self.coordinators) and not any(self.leftovers().values())

    def leftovers(self) -> dict[str, int]:
        """What each stage process still holds: requests, arena leases, tensors from other pods."""
        return {name: sum(self.process(name).holds().values()) for name in self.stages}

    async def until_idle(self, within: float = PATIENCE) -> None:
        """Raises TimeoutError when something stays alive."""
        with anyio.fail_after(within):
            while not self.idle():  # noqa: ASYNC110  # the counters of seven services have no common event
                await anyio.sleep(0.005)


@asynccontextmanager
async def mesh(folder: Path, layout: Layout | None = None) -> AsyncIterator[Mesh]:
    """A mesh whose pipeline is ready, with one gateway per coordinator."""
    layout = layout or Layout()
    with ExitStack() as relays:
        async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
            made = Mesh(layout, folder, tasks, relays)
            if layout.arena:
                await made.start_relays()
            for _ in range(layout.coordinators):
                await made.start_coordinator()
            for stages, replicas in layout.processes():
                for number in range(replicas):
                    made.start_stage(stages, number)
            for address in made.addresses:
                gateway = await stack.enter_async_context(fake_gateway(address))
                made.gateways.append(gateway)
                await gateway.until(made.pipeline.name, made.complete)
            try:
                yield made
            finally:
                await stack.aclose()
                for running in made.stages.values():
                    await running.kill()
                tasks.cancel_scope.cancel()


def say(
    text: str,
    *media: Media,
    spoken: bool = False,
    max_tokens: int | None = None,
    model: str = "echo",
) -> GenerationRequest:
    """A request with one user message."""
    modalities = frozenset({Modality.TEXT, Modality.AUDIO} if spoken else {Modality.TEXT})
    return GenerationRequest(
        model=model,
        messages=(Message(Role.USER, (Text(text), *media)),),
        params=GenerationParams(modalities=modalities, sampling=Sampling(max_tokens=max_tokens)),
    )
