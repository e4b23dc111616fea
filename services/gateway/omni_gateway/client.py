"""The Client layer: from one request to the coordinator that serves it, over one long-lived stream to each."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import anyio
import grpc.aio

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from omni_common.certificates import Loaded
from omni_common.component import Component
from omni_common.deadline import Deadline
from omni_common.errors import OmniError, Reason, WrongTask
from omni_common.request import GenerationRequest, Task, TraceContext
from omni_common.rpc.channel import open_channel
from omni_common.rpc.dialer import keep_sessions
from omni_common.rpc.session import client_session, exchange
from omni_common.rpc.tls import MeshTls
from omni_common.telemetry import names
from omni_gateway.call import Call
from omni_gateway.link import Link
from omni_gateway.pipelines import PipelineView

_SOON = timedelta(seconds=1)


def _no_coordinator(why: str) -> OmniError:
    return OmniError(Reason.STAGE_UNAVAILABLE, why, retry_after=_SOON)


class Client:
    """Knows the pipelines of all coordinators, submits to the least busy one, ends every call exactly once."""

    def __init__(
        self, coordinators: Sequence[str], *, credits: int, name: str = "", tls: MeshTls | None = None
    ) -> None:
        """`credits` bounds the outputs of one terminal stage that may be under way for one request."""
        self._targets = tuple(coordinators)
        self._credits = credits
        self._name = name or f"gateway-{uuid.uuid4().hex[:8]}"
        self._tls = tls
        self._links: list[Link] = []
        # One per address for as long as the process lives, or its certificates stay: opening and closing channels leaks
        # native memory.
        self._channels: dict[str, tuple[Loaded | None, grpc.aio.Channel]] = {}
        self._watchers: list[Callable[[], None]] = []

    async def run(self) -> None:
        """Keeps a stream to every coordinator until cancelled."""
        try:
            await keep_sessions(self._targets, self._session)
        finally:
            for _, channel in self._channels.values():
                await channel.close()

    @property
    def connected(self) -> int:
        """Coordinators that have told what they serve."""
        return sum(1 for link in self._links if link.pipelines)

    @property
    def live(self) -> int:
        return sum(link.live for link in self._links)

    def pipelines(self) -> dict[str, PipelineView]:
        """Every pipeline by its name; where coordinators differ, as the one sees it that has it ready."""
        best: dict[str, PipelineView] = {}
        for link in self._links:
            for name, view in link.pipelines.items():
                if name not in best or (view.ready and not best[name].ready):
                    best[name] = view
        return dict(sorted(best.items()))

    def pipeline_for(self, model: str, task: Task) -> PipelineView:
        """The pipeline, when it can do this task. Raises WrongTask, and what `pipeline` raises."""
        view = self.pipeline(model)
        if task not in view.tasks:
            raise WrongTask(model, task, (p.name for p in self.pipelines().values() if task in p.tasks))
        return view

    def pipeline(self, model: str) -> PipelineView:
        """Raises MODEL_NOT_FOUND, or STAGE_UNAVAILABLE while no coordinator can be reached."""
        known = self.pipelines()
        if not known:
            raise _no_coordinator("No coordinator can be reached.")
        if model not in known:
            raise OmniError(
                Reason.MODEL_NOT_FOUND,
                "The model does not exist here; GET /v1/models lists those that do.",
                param="model",
            )
        return known[model]

    @contextmanager
    def submit(self, request: GenerationRequest, *, deadline: Deadline, trace: TraceContext) -> Iterator[Call]:
        """The request under way; leaving the block before its end cancels it.

        Raises STAGE_UNAVAILABLE when no coordinator has the pipeline ready.
        """
        link = self._least_busy(request.model)
        call = link.open(request, deadline=deadline, trace=trace, credits=self._credits)
        try:
            yield call
        finally:
            link.close(call)

    def fail_all(self, error: OmniError) -> None:
        """Ends every live request with this error: the gateway is about to stop."""
        for link in self._links:
            link.fail_all(error)

    def on_change(self, watcher: Callable[[], None]) -> None:
        """`watcher` is called whenever a pipeline or a coordinator comes, changes or goes."""
        self._watchers.append(watcher)

    def _least_busy(self, model: str) -> Link:
        ready = [link for link in self._links if model in link.pipelines and link.pipelines[model].ready]
        if not ready:
            refusal = self.pipeline(model).unavailable()
            # Counted here since no coordinator hears of it; an autoscaler of stages that rest at zero goes by it.
            names.ADMISSION_REFUSALS.labels(model, refusal.reason.lower()).inc()
            raise refusal
        return min(ready, key=lambda link: link.live)

    async def _session(self, address: str) -> None:
        stub = CoordinatorServiceStub(await self._channel(address))
        with anyio.CancelScope() as scope:
            link = Link(self._name, on_pipeline=self._changed, abandon=scope.cancel)
            self._links.append(link)
            try:
                async with client_session(stub.Connect(), tls=self._tls, address=address) as duplex:
                    await exchange(duplex, link.writer, frame=_frame, handle=link.handle)
            finally:
                self._links.remove(link)
                link.fail_all(_no_coordinator("The coordinator was lost while it served this request."))
                self._changed()

    async def _channel(self, address: str) -> grpc.aio.Channel:
        """For a new session, the only one at this address; made anew once the certificates have changed."""
        current = None if self._tls is None else self._tls.current
        shown, channel = self._channels.get(address, (None, None))
        if channel is None or shown is not current:
            if channel is not None:
                await channel.close()
            channel = open_channel(address, tls=self._tls, peer=Component.COORDINATOR)
            self._channels[address] = current, channel
        return channel

    def _changed(self) -> None:
        for model in self.pipelines():
            # There at 0 before the first refusal: Prometheus sees no increase in a counter that begins with one, and
            # the first request to a pipeline at rest would start no pod.
            names.ADMISSION_REFUSALS.labels(model, Reason.STAGE_UNAVAILABLE.lower())
        for watcher in self._watchers:
            watcher()


def _frame(events: list[pb.GatewayEvent]) -> pb.ConnectRequest:
    return pb.ConnectRequest(events=events)
