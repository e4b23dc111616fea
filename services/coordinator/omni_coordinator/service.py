"""The coordinator's process: its pipelines, its server, its end."""

from __future__ import annotations

import logging

import anyio

from omni.coordinator.v1.coordinator_pb2 import DESCRIPTOR
from omni.coordinator.v1.coordinator_pb2_grpc import add_CoordinatorServiceServicer_to_server
from omni_common.component import Component
from omni_common.deadline import Deadline
from omni_common.lifecycle import Lifecycle
from omni_common.pipeline import PipelineConfig, load_pipeline
from omni_common.rpc.contract import MAX_GENERATE_MESSAGE
from omni_common.rpc.server import open_server
from omni_common.rpc.tls import mesh_tls
from omni_coordinator.coordinator import Coordinator
from omni_coordinator.servicer import CoordinatorService
from omni_coordinator.settings import CoordinatorSettings
from omni_coordinator.submission import Limits

logger = logging.getLogger(__name__)

SERVICE = DESCRIPTOR.services_by_name["CoordinatorService"].full_name
ALLOWED = {
    f"/{SERVICE}/Attach": frozenset({Component.STAGE}),
    f"/{SERVICE}/Connect": frozenset({Component.GATEWAY}),
}


class CoordinatorProcess:
    """A Service of omni_common.lifecycle."""

    def __init__(self, settings: CoordinatorSettings) -> None:
        """Raises OSError or ValueError when a pipeline file cannot be read or does not hold, and CannotStart."""
        self._settings = settings
        self._tls = mesh_tls(settings)
        self._pipelines = _by_name([load_pipeline(path) for path in settings.pipeline_files])
        self._coordinator: Coordinator | None = None
        self.port = 0

    @property
    def coordinator(self) -> Coordinator:
        """Raises RuntimeError before `run`."""
        if self._coordinator is None:
            raise RuntimeError("the coordinator has not started")
        return self._coordinator

    async def run(self, started: Lifecycle) -> None:
        settings = self._settings
        async with anyio.create_task_group() as tasks:
            self._coordinator = Coordinator(self._pipelines, _limits(settings), tasks)
            server = await open_server(
                settings.bind,
                services=[SERVICE],
                tls=self._tls,
                allowed=ALLOWED,
                reflection=settings.reflection,
                max_message=MAX_GENERATE_MESSAGE,
            )
            servicer = CoordinatorService(self._coordinator, hello_timeout=settings.hello_timeout.total_seconds())
            add_CoordinatorServiceServicer_to_server(servicer, server.grpc)
            await server.start()
            self.port = server.port
            logger.info("listening", extra={"port": server.port, "pipelines": list(self._pipelines)})
            try:
                started(server)
                await anyio.sleep_forever()
            finally:
                self._coordinator.close()
                with anyio.CancelScope(shield=True):  # bounded by its grace
                    await server.stop(settings.abort_timeout.total_seconds())

    async def drain(self, deadline: Deadline) -> None:
        await self.coordinator.drain(deadline)


def _by_name(pipelines: list[PipelineConfig]) -> dict[str, PipelineConfig]:
    by_name = {pipeline.name: pipeline for pipeline in pipelines}
    if len(by_name) < len(pipelines):
        raise ValueError("two pipeline files describe a pipeline of the same name")
    return by_name


def _limits(settings: CoordinatorSettings) -> Limits:
    return Limits(
        max_live_requests=settings.max_live_requests,
        max_media=settings.max_media,
        default_deadline=settings.default_deadline.total_seconds(),
        abort_timeout=settings.abort_timeout.total_seconds(),
        max_attempts=settings.max_attempts,
    )
