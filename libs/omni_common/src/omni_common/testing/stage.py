"""A stage replica for tests: attaches to a real coordinator over gRPC, with scripts instead of a model.

Strict: a request that no script was written for, and a script that no request used, fail the test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias

import anyio
import anyio.abc
import xxhash

from omni.common.v1 import tensor_pb2
from omni.coordinator.v1 import coordinator_pb2 as pb
from omni.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from omni_common.clock import monotonic
from omni_common.errors import OmniError
from omni_common.request import Envelope, GenerationRequest, Output, RequestKey, TerminalResult, modality_of
from omni_common.rpc.channel import open_channel
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.rpc.convert import (
    failure_of,
    parse_envelope,
    parse_key,
    parse_request,
    render_key,
    render_output,
    render_params,
    render_result,
)
from omni_common.rpc.duplex import Duplex, PeerGone
from omni_common.rpc.frames import FrameWriter
from omni_common.rpc.session import client_session, exchange
from omni_common.testing.mail import PATIENCE, Mail

Script: TypeAlias = Sequence[Output | TerminalResult | OmniError]
"""What the replica answers to one request, as fast as its credits allow. A script without an end leaves it open."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a replica stands in the mesh."""

    pipeline: str
    stage: str
    replica: str = "r-0"
    pod: str = "pod-0"
    address: str = "stage.invalid:1"
    capacity: int = 64
    contract_version: int = CONTRACT_VERSION


@dataclass(frozen=True, slots=True)
class Dispatched:
    envelope: Envelope
    request: GenerationRequest

    @property
    def key(self) -> RequestKey:
        return self.envelope.key


@dataclass(frozen=True, slots=True)
class Granted:
    key: RequestKey
    text: int
    audio: int


class FakeStage:
    """One replica; made by `fake_stage`."""

    def __init__(self, place: Place, scripts: Sequence[Script] | None, *, answers_aborts: bool) -> None:
        self.place = place
        self.coordinator = ""
        self.dispatched: Mail[Dispatched] = Mail()
        self.aborted: Mail[RequestKey] = Mail()
        self.granted: Mail[Granted] = Mail()
        self.detached = anyio.Event()
        self.dismissed = anyio.Event()
        self._scripts = None if scripts is None else list(scripts)
        self._answers_aborts = answers_aborts
        self._actors: dict[RequestKey, _Actor] = {}
        self._blobs: dict[int, bytearray] = {}
        self._writer = FrameWriter[pb.StageEvent]()
        self._welcomed = anyio.Event()
        self.raw(pb.StageEvent(hello=_hello(place)))

    # What a test makes it say

    def phase(self, phase: pb.StagePhase.ValueType, loaded: int = 0, total: int = 0) -> None:
        self.raw(pb.StageEvent(phase=pb.PhaseChanged(phase=phase, tensors_loaded=loaded, tensors_total=total)))

    def load(self, running: int, waiting: int = 0) -> None:
        self.raw(pb.StageEvent(load=pb.LoadReport(running=running, waiting=waiting)))

    def output(self, key: RequestKey, index: int, output: Output) -> None:
        self.raw(pb.StageEvent(key=render_key(key), output=render_output(output, index)))

    def complete(self, key: RequestKey, result: TerminalResult) -> None:
        self.raw(pb.StageEvent(key=render_key(key), completed=render_result(result)))

    def fail(self, key: RequestKey, error: OmniError) -> None:
        self.raw(pb.StageEvent(key=render_key(key), failed=failure_of(error)))

    def answer_abort(self, key: RequestKey) -> None:
        self.raw(pb.StageEvent(key=render_key(key), aborted=pb.Aborted()))

    def raw(self, event: pb.StageEvent) -> None:
        self._writer.put(event, lane=event.key.request_id)

    def end(self) -> None:
        """Ends the session in good order."""
        self._writer.close()

    # Its session

    async def run(self, address: str, tasks: anyio.abc.TaskGroup) -> None:
        """Until `end`, or until the coordinator ends it. Raises OmniError when it is refused."""
        async with open_channel(address) as channel:
            stub = CoordinatorServiceStub(channel)
            async with client_session(stub.Attach()) as duplex:
                try:
                    await self._exchange(duplex, tasks)
                finally:
                    self.detached.set()

    async def _exchange(self, duplex: Duplex[pb.AttachResponse, pb.AttachRequest], tasks: anyio.abc.TaskGroup) -> None:
        def handle(frame: pb.AttachResponse) -> None:
            for command in frame.commands:
                self._hear(command, tasks)

        await exchange(
            duplex,
            self._writer,
            frame=lambda events: pb.AttachRequest(events=events),
            handle=handle,
        )

    def _hear(self, command: pb.StageCommand, tasks: anyio.abc.TaskGroup) -> None:
        match command.WhichOneof("command"):
            case "welcome":
                self.coordinator = command.welcome.coordinator
                self._welcomed.set()
            case "blob":
                self._blobs.setdefault(command.blob.blob, bytearray()).extend(command.blob.data)
            case "dispatch":
                self._begin(self._parse(command.dispatch), tasks)
            case "credit":
                granted = Granted(parse_key(command.credit.key), command.credit.text, command.credit.audio)
                self.granted.put(granted)
                if granted.key in self._actors:
                    self._actors[granted.key].grant(granted)
            case "abort":
                self._abort(parse_key(command.abort.key))
            case "dismissed":
                self.dismissed.set()
            case other:
                raise AssertionError(f"the coordinator sent {other}, which a replica does not know")

    def _parse(self, dispatch: pb.Dispatch) -> Dispatched:
        assert not dispatch.request.HasField("params"), "the params travel in the envelope"  # noqa: S101
        envelope = parse_envelope(dispatch.envelope, monotonic())
        dispatch.request.params.CopyFrom(render_params(envelope.params))
        return Dispatched(envelope, parse_request(dispatch.request, self._take_media))

    def _take_media(self, ref: tensor_pb2.DataRef) -> bytes:
        data = bytes(self._blobs.pop(ref.blob))
        assert len(data) == ref.length, f"{len(data)} bytes came, {ref.length} were announced"  # noqa: S101
        assert xxhash.xxh3_64_intdigest(data) == ref.checksum, "the bytes are not those that were sent"  # noqa: S101
        return data

    def _begin(self, work: Dispatched, tasks: anyio.abc.TaskGroup) -> None:
        self.dispatched.put(work)
        if self._scripts is None:
            return  # the test plays the replica itself
        if not self._scripts:
            raise AssertionError(f"stage '{self.place.stage}' got a request that no script was written for")
        actor = self._actors[work.key] = _Actor(self, work, self._scripts.pop(0))
        tasks.start_soon(actor.play)

    def _abort(self, key: RequestKey) -> None:
        self.aborted.put(key)
        if key in self._actors:
            self._actors.pop(key).scope.cancel()
        if self._answers_aborts:
            self.answer_abort(key)

    async def welcomed(self) -> None:
        """Returns when the coordinator has taken the replica up."""
        with anyio.fail_after(PATIENCE):
            await self._welcomed.wait()

    def close(self) -> None:
        for mail in (self.dispatched, self.aborted, self.granted):
            mail.close()

    def check(self) -> None:
        """Raises AssertionError for scripts that no request used."""
        if self._scripts:
            raise AssertionError(f"stage '{self.place.stage}' has {len(self._scripts)} scripts that no request used")


def _hello(place: Place) -> pb.StageHello:
    return pb.StageHello(
        pipeline=place.pipeline,
        stage=place.stage,
        replica=place.replica,
        pod=place.pod,
        address=place.address,
        capacity=place.capacity,
        contract_version=place.contract_version,
    )


class _Actor:
    """Plays one script."""

    def __init__(self, stage: FakeStage, work: Dispatched, script: Script) -> None:
        self._stage = stage
        self._key = work.key
        self._script = script
        self._credits = {"text": work.envelope.output_credits, "audio": work.envelope.output_credits}
        self._more = anyio.Event()
        self.scope = anyio.CancelScope()

    def grant(self, granted: Granted) -> None:
        self._credits["text"] += granted.text
        self._credits["audio"] += granted.audio
        self._more.set()
        self._more = anyio.Event()

    async def play(self) -> None:
        sent = {"text": 0, "audio": 0}
        with self.scope:
            for step in self._script:
                match step:
                    case TerminalResult():
                        self._stage.complete(self._key, step)
                    case OmniError():
                        self._stage.fail(self._key, step)
                    case _:
                        kind = modality_of(step)
                        await self._credit(kind)
                        self._stage.output(self._key, sent[kind], step)
                        sent[kind] += 1

    async def _credit(self, kind: str) -> None:
        while not self._credits[kind]:
            await self._more.wait()  # an abort or the end of the test ends the wait
        self._credits[kind] -= 1


@asynccontextmanager
async def fake_stage(
    address: str,
    place: Place,
    *,
    scripts: Sequence[Script] | None = (),
    answers_aborts: bool = True,
    phase: pb.StagePhase.ValueType = pb.STAGE_PHASE_READY,
) -> AsyncIterator[FakeStage]:
    """A replica in the given phase, attached to the coordinator at `address`. Without scripts (None) it says only what
    the test makes it say. Leaving the block without an error checks that every script was used."""
    stage = FakeStage(place, scripts, answers_aborts=answers_aborts)
    async with anyio.create_task_group() as tasks:

        async def session() -> None:
            with suppress(PeerGone):  # the coordinator may end before the replica
                await stage.run(address, tasks)

        tasks.start_soon(session)
        try:
            await stage.welcomed()
            stage.phase(phase)
            yield stage
            stage.check()
        finally:
            stage.end()
            with anyio.move_on_after(PATIENCE, shield=True):
                await stage.detached.wait()
            tasks.cancel_scope.cancel()
            stage.close()
