"""A real coordinator in this process, for tests that attach fakes to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.abc

from omni_common.lifecycle import Lifecycle
from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import GenerationParams, GenerationRequest, Message, Modality, Role, Text
from omni_common.settings import ByteSize
from omni_common.testing.mail import PATIENCE
from omni_coordinator.coordinator import Coordinator
from omni_coordinator.service import CoordinatorProcess
from omni_coordinator.settings import CoordinatorSettings

SOLO = PipelineConfig(
    name="solo",
    entry="echo",
    stages=(StageConfig(name="echo", terminal=Modality.TEXT),),
    input_modalities=frozenset({Modality.TEXT, Modality.IMAGE}),
    output_modalities=frozenset({Modality.TEXT}),
)
DUO = PipelineConfig(
    name="duo",
    entry="read",
    stages=(
        StageConfig(name="read", to=("write", "speak")),
        StageConfig(name="write", terminal=Modality.TEXT),
        StageConfig(name="speak", terminal=Modality.AUDIO, needs=Modality.AUDIO),
    ),
    input_modalities=frozenset({Modality.TEXT}),
    output_modalities=frozenset({Modality.TEXT, Modality.AUDIO}),
    voices=("ada", "bob"),
    default_voice="ada",
)
BOTH = frozenset({Modality.TEXT, Modality.AUDIO})


def asking(model: str = "solo", *, modalities: frozenset[Modality] = frozenset({Modality.TEXT})) -> GenerationRequest:
    return GenerationRequest(
        model, (Message(Role.USER, (Text("hello", "messages[0].parts[0]"),)),), GenerationParams(modalities)
    )


class _Lifecycle(Lifecycle):
    """Tells the test as well."""

    def __init__(self, begun: anyio.Event) -> None:
        super().__init__()
        self._begun = begun

    def __call__(self, *health: object) -> None:
        self._begun.set()


class _News:
    """A Watcher that wakes a test."""

    def __init__(self) -> None:
        self.changed = anyio.Event()

    def pipeline_changed(self, pipeline: str) -> None:
        self.changed.set()

    def finish(self) -> None: ...


class RunningCoordinator:
    """A coordinator that listens on `address`."""

    def __init__(self, process: CoordinatorProcess) -> None:
        self.process = process

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.process.port}"

    @property
    def coordinator(self) -> Coordinator:
        return self.process.coordinator

    async def ready(self, pipeline: str) -> None:
        """Returns when the pipeline takes requests. Raises TimeoutError when that does not come."""
        news = _News()
        self.coordinator.watch(news)
        with anyio.fail_after(PATIENCE):
            while not self.coordinator.state(pipeline).ready:
                news.changed = anyio.Event()
                await news.changed.wait()
        self.coordinator.unwatch(news)

    async def idle(self) -> None:
        """Returns when no request holds a place any more. Raises TimeoutError when that does not come."""
        with anyio.fail_after(PATIENCE):
            await self.coordinator.wait_idle()


@asynccontextmanager
async def running_coordinator(
    folder: Path,
    pipelines: Sequence[PipelineConfig] = (SOLO, DUO),
    *,
    max_live_requests: int = 8,
    max_media: int = 64 << 20,
    abort_timeout: float = 5.0,
    max_attempts: int = 3,
    reflection: bool = False,
) -> AsyncIterator[RunningCoordinator]:
    """Serves these pipelines on a free port of loopback."""
    for pipeline in pipelines:
        (folder / f"{pipeline.name}.json").write_text(pipeline.model_dump_json())
    settings = CoordinatorSettings(
        bind="127.0.0.1:0",
        pipelines=tuple(str(folder / f"{pipeline.name}.json") for pipeline in pipelines),
        max_live_requests=max_live_requests,
        max_media=ByteSize(max_media),
        abort_timeout=timedelta(seconds=abort_timeout),
        max_attempts=max_attempts,
        reflection=reflection,
    )
    process = CoordinatorProcess(settings)
    begun = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.run, _Lifecycle(begun))
        with anyio.fail_after(PATIENCE):
            await begun.wait()
        yield RunningCoordinator(process)
        tasks.cancel_scope.cancel()
