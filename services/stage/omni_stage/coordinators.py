"""This replica's place at each coordinator: it offers itself, takes work and aborts, and sends what comes of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import anyio

from omni.coordinator.v1 import coordinator_pb2, coordinator_pb2_grpc
from omni_common.clock import Clock
from omni_common.component import Component
from omni_common.errors import OmniError
from omni_common.request import Output, RequestKey, TerminalResult
from omni_common.rpc import convert
from omni_common.rpc.channel import open_channel
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.rpc.duplex import Duplex, PeerGone
from omni_common.rpc.frames import FrameWriter
from omni_common.rpc.session import client_session, exchange
from omni_common.rpc.tls import MeshTls
from omni_common.transfer import TensorReceiver
from omni_stage.stage import Stage

logger = logging.getLogger(__name__)

# Media of one request are bounded by the coordinator; this bounds what all of them may hold here at a time.
MAX_MEDIA_BYTES = 512 << 20

Phase = coordinator_pb2.StagePhase


@dataclass(slots=True)
class Readiness:
    """How far this replica has come with starting; sent to every coordinator."""

    phase: coordinator_pb2.StagePhase.ValueType = Phase.STAGE_PHASE_STARTING
    loaded: int = 0
    total: int = 0

    def event(self) -> coordinator_pb2.StageEvent:
        changed = coordinator_pb2.PhaseChanged(phase=self.phase, tensors_loaded=self.loaded, tensors_total=self.total)
        return coordinator_pb2.StageEvent(phase=changed)


class CoordinatorLink:
    """The Attach stream to one coordinator, while it lasts."""

    def __init__(self, stage: Stage, readiness: Readiness, clock: Clock) -> None:
        self._stage = stage
        self._clock = clock
        self._events: FrameWriter[coordinator_pb2.StageEvent] = FrameWriter()
        self._media = TensorReceiver(None, MAX_MEDIA_BYTES, lambda _: None)
        self._coordinator = ""
        self._dismissed = anyio.Event()
        me = stage.identity
        self._events.put(
            coordinator_pb2.StageEvent(
                hello=coordinator_pb2.StageHello(
                    pipeline=me.pipeline,
                    stage=me.stage,
                    replica=me.replica,
                    pod=me.pod,
                    node=me.node,
                    address=me.address,
                    capacity=me.capacity,
                    contract_version=CONTRACT_VERSION,
                    relay=me.relay,
                )
            )
        )
        self._events.put(readiness.event())

    async def run(self, duplex: Duplex[coordinator_pb2.AttachResponse, coordinator_pb2.AttachRequest]) -> None:
        """Until the stream ends; then the coordinator's requests are dropped here."""

        try:
            await exchange(
                duplex,
                self._events,
                frame=lambda events: coordinator_pb2.AttachRequest(events=events),
                handle=self._frame,
            )
        finally:
            self._events.close()
            self._stage.detach(self._coordinator, self)
            self._dismissed.set()

    async def until_dismissed(self) -> None:
        """Returns when the coordinator has no request that needs this replica, or is gone; at once where it has never
        welcomed it. The caller holds the deadline."""
        if self._coordinator:
            await self._dismissed.wait()

    def close(self) -> None:
        self._events.close()

    def put(self, event: coordinator_pb2.StageEvent, key: RequestKey | None = None) -> None:
        if key is not None:
            event.key.CopyFrom(convert.render_key(key))
        try:
            self._events.put(event, lane="" if key is None else key.lane)
        except PeerGone:
            logger.debug("a coordinator is gone, so it hears nothing more", extra={"coordinator": self._coordinator})

    # As a request's owner.

    def output(self, key: RequestKey, index: int, output: Output) -> None:
        self.put(coordinator_pb2.StageEvent(output=convert.render_output(output, index)), key)

    def completed(self, key: RequestKey, result: TerminalResult) -> None:
        self.put(coordinator_pb2.StageEvent(completed=convert.render_result(result)), key)

    def failed(self, key: RequestKey, error: OmniError) -> None:
        self.put(coordinator_pb2.StageEvent(failed=convert.failure_of(error)), key)

    def aborted(self, key: RequestKey) -> None:
        self._media.drop(key.lane)
        self.put(coordinator_pb2.StageEvent(aborted=coordinator_pb2.Aborted()), key)

    # Commands.

    def _frame(self, frame: coordinator_pb2.AttachResponse) -> None:
        for command in frame.commands:
            self._command(command)

    def _command(self, command: coordinator_pb2.StageCommand) -> None:
        match command.WhichOneof("command"):
            case "welcome":
                self._coordinator = command.welcome.coordinator
                self._stage.attach(self._coordinator, self)
            case "dispatch":
                self._dispatch(command.dispatch)
            case "abort":
                self._stage.abort(convert.parse_key(command.abort.key), self)
            case "credit":
                granted = command.credit
                self._stage.grant_output(convert.parse_key(granted.key), granted.text + granted.audio)
            case "blob":
                self._media.add(command.blob)
            case "dismissed":
                self._dismissed.set()
            case _:
                logger.debug("a command of an unknown kind was skipped")

    def _dispatch(self, dispatch: coordinator_pb2.Dispatch) -> None:
        envelope = convert.parse_envelope(dispatch.envelope, self._clock())
        try:
            said = convert.parse_request(dispatch.request, self._media.media)
        except OmniError as error:
            self.failed(envelope.key, error)
            return
        self._stage.dispatch(envelope, replace(said, params=envelope.params))


class CoordinatorLinks:
    """The links to all coordinators."""

    def __init__(self, stage: Stage, clock: Clock, tls: MeshTls | None = None) -> None:
        self._stage = stage
        self._clock = clock
        self._tls = tls
        self._links: set[CoordinatorLink] = set()
        self._readiness = Readiness()

    async def session(self, address: str) -> None:
        """One Attach stream; `keep_sessions` runs it again when it ends."""
        link = CoordinatorLink(self._stage, self._readiness, self._clock)
        self._links.add(link)
        try:
            async with open_channel(address, tls=self._tls, peer=Component.COORDINATOR) as channel:
                call = coordinator_pb2_grpc.CoordinatorServiceStub(channel).Attach()
                async with client_session(call, tls=self._tls, address=address) as duplex:
                    await link.run(duplex)
        finally:
            self._links.discard(link)

    def announce(self, phase: coordinator_pb2.StagePhase.ValueType, loaded: int = 0, total: int = 0) -> None:
        self._readiness = Readiness(phase, loaded, total)
        for link in self._links:
            link.put(self._readiness.event())

    async def until_dismissed(self) -> None:
        """Returns when no coordinator needs this replica, which has announced that it drains."""
        for link in tuple(self._links):
            await link.until_dismissed()

    def report_load(self, running: int, waiting: int) -> None:
        for link in self._links:
            report = coordinator_pb2.LoadReport(running=running, waiting=waiting)
            link.put(coordinator_pb2.StageEvent(load=report))

    def close(self) -> None:
        for link in self._links:
            link.close()
