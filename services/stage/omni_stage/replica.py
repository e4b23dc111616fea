"""One stage replica: it binds, attaches, loads its model, takes work, and drains."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

import anyio
import anyio.abc
import anyio.to_thread

from omni.coordinator.v1 import coordinator_pb2
from omni.stage.v1 import stage_pb2_grpc
from omni_common.address import join_host_port
from omni_common.arena.layout import slot_size
from omni_common.clock import Clock, monotonic
from omni_common.deadline import Deadline
from omni_common.health import Hearts
from omni_common.lifecycle import CannotStart, Health
from omni_common.payload import PayloadCodec
from omni_common.pipeline import PipelineConfig, load_pipeline
from omni_common.relay import CannotConnect, RelayClient, Who
from omni_common.rpc.dialer import keep_sessions
from omni_common.rpc.server import RpcServer, open_server
from omni_common.rpc.tls import mesh_tls
from omni_common.telemetry import names
from omni_common.transfer import Arrivals, TensorSender
from omni_stage.coordinators import CoordinatorLinks
from omni_stage.core.plan import Planner
from omni_stage.core.request import Hooks
from omni_stage.devices import Devices, OpenSide, Place, open_side
from omni_stage.identity import Identity
from omni_stage.in_place import InPlace
from omni_stage.incoming import DeliverSession, Reception
from omni_stage.loop import LoopThread
from omni_stage.models import load_family, load_pipeline_config
from omni_stage.neighbours import Neighbour, Neighbours
from omni_stage.outgoing import PeerLinks
from omni_stage.peer_link import Outfit
from omni_stage.pinning import Pinning
from omni_stage.program import ModelFamily, NoSpace, StageContext, StageProgram
from omni_stage.servicer import ALLOWED, SERVICE, StageServicer
from omni_stage.settings import StageSettings
from omni_stage.stage import Stage
from omni_stage.tensor_parallel.followers import Followers, cannot_be_spread, spread, stop_step
from omni_stage.tensor_parallel.order import Order

logger = logging.getLogger(__name__)

Phase = coordinator_pb2.StagePhase

# How often deadlines, leases and load are looked at. None of them is what a request waits for.
TICK_SECONDS = 1.0


class Starting(Protocol):
    """Of the process's life, what a replica has a part in."""

    @property
    def hearts(self) -> Hearts: ...

    def __call__(self, health: Health) -> None: ...


class Replica:
    """Everything that one stage replica owns. `settings` are those of one stage; `neighbours` are the replicas in the
    same process, itself among them."""

    def __init__(
        self,
        settings: StageSettings,
        neighbours: Neighbours,
        *,
        clock: Clock = monotonic,
        open_side: OpenSide = open_side,
    ) -> None:
        self._settings = settings
        self._tls = mesh_tls(settings)
        self._neighbours = neighbours
        self._clock = clock
        self._family: ModelFamily = load_family(settings.family)
        self._pipeline: PipelineConfig = (
            load_pipeline_config(settings.family, settings.model)
            if settings.pipeline is None
            else load_pipeline(settings.pipeline)
        )
        self._config = self._pipeline.stage(settings.stage)
        if self._config.tp_size > 1 and settings.stage not in self._family.followers:
            raise CannotStart(cannot_be_spread(self._config.name, self._config.tp_size))
        self._stage: Stage | None = None
        self._links: CoordinatorLinks | None = None
        self._peers: PeerLinks | None = None
        self._relay: RelayClient | None = None
        self._arrivals: Arrivals | None = None
        self._pinning = Pinning()
        self._open_side = open_side
        self._devices = Devices()
        self._followers: Followers | None = None

    async def run(self, started: Starting) -> None:
        """Until cancelled. Calls `started` once the model is warm."""
        settings = self._settings
        relay = self._relay = await self._join_pod()
        server = await open_server(
            settings.bind, services=[SERVICE], tls=self._tls, allowed=ALLOWED, reflection=settings.reflection
        )
        codec = PayloadCodec(self._family.payloads)
        identity = self._identity(server)
        async with anyio.create_task_group() as tasks:
            loop = LoopThread()
            tasks.start_soon(loop.run)
            outfit = Outfit(
                identity, codec, self._sender(), relay, self._clock, self._neighbours, self._devices, self._tls
            )
            peers = self._peers = PeerLinks(outfit, tasks=tasks)
            stage = self._stage = Stage(identity, downstream=peers, clock=self._clock)
            peers.answer_to(stage)
            self._neighbours.join(Neighbour(stage, loop))
            links = self._links = CoordinatorLinks(stage, self._clock, self._tls)
            self._arrivals = None if relay is None else self._receive(relay, stage, loop)
            reception = Reception(
                stage, codec, relay, self._arrivals, loop, self._clock, settings.max_inbound, self._devices
            )
            stage_pb2_grpc.add_StageServiceServicer_to_server(
                StageServicer(partial(DeliverSession, reception)), server.grpc
            )
            if relay is not None:
                tasks.start_soon(relay.run)
            await server.start()
            try:
                tasks.start_soon(keep_sessions, settings.coordinator_targets, links.session)
                async with spread(self._order, self._config.tp_size, settings.stall_timeout) as self._followers:
                    await self._serve(stage, links, loop, started, server)
            finally:
                links.close()
                peers.close()
                await self._stop(server)
                if self._devices.side is not None:
                    self._devices.side.close()

    @property
    def live(self) -> int:
        """Requests."""
        return 0 if self._stage is None else self._stage.live_requests

    def leave(self) -> None:
        """Tells the coordinators to send nothing new."""
        if self._links is not None:
            self._links.announce(Phase.STAGE_PHASE_DRAINING)

    async def until_dismissed(self) -> None:
        """Returns when no coordinator has a request that is bound to this replica. The caller holds the deadline."""
        if self._links is not None:
            await self._links.until_dismissed()

    async def until_idle(self) -> None:
        """Returns at a moment at which no request is alive here. The caller holds the deadline."""
        if self._stage is not None:
            idle = anyio.Event()
            self._stage.notify_when_idle(idle.set)
            await idle.wait()

    async def finish(self) -> None:
        """Returns when everybody has what was sent. The caller holds the deadline."""
        if self._peers is not None:
            await self._peers.finish()

    def holds(self) -> Mapping[str, int]:
        """What is not given back yet: live requests, leases on the arena, tensors that are lent on the device, and such
        as came from other pods."""
        return {
            "requests": self.live,
            "leases": 0 if self._relay is None else self._relay.slots.leases,
            "on_device": 0 if self._peers is None else self._peers.on_devices,
            "arrived": 0 if self._relay is None else self._relay.arrived,
        }

    async def _serve(
        self,
        stage: Stage,
        links: CoordinatorLinks,
        loop: LoopThread,
        started: Starting,
        server: RpcServer,
    ) -> None:
        async with self._neighbours.turn():
            program = await self._load(links, loop)
        await self._neighbours.all_loaded()
        planner = Planner(
            self._pipeline,
            self._config.name,
            self._settings.replica,
            route=program.route,
            project=program.project,
            stream_to=program.stream_to,
        )
        names.STAGE_MAX_RUNNING.labels(self._config.name).set(self._config.max_running)
        names.STAGE_MAX_WAITING.labels(self._config.name).set(self._config.max_waiting)
        stage.open(planner, Hooks(program.needs, program.merge), program.scheduler)
        program.scheduler.start(lambda batch: loop.call(stage.on_outgoing, batch))
        heart = f"scheduler of stage '{self._config.name}'"
        started.hearts.watch(heart, program.scheduler.last_step, self._settings.stall_timeout.total_seconds())
        try:
            links.announce(Phase.STAGE_PHASE_READY)
            started(server)
            await self._tick(stage, links, program)
        finally:
            with anyio.CancelScope(shield=True):  # bounded by one step of the model
                await stop_step(self._followers, program.scheduler.stop)

    async def _load(self, links: CoordinatorLinks, loop: LoopThread) -> StageProgram:
        """Builds and warms the model in a thread, so that the mesh can watch it come."""

        def progress(loaded: int, total: int) -> None:
            loop.call(links.announce, Phase.STAGE_PHASE_LOADING, loaded, total)

        settings = self._settings
        context = StageContext(
            pipeline=self._pipeline,
            stage=self._config,
            model=settings.model,
            device=self._device,
            dtype=settings.dtype,
            threads=settings.threads,
            progress=progress,
            tensors=NoSpace()
            if self._relay is None
            else InPlace(self._relay, loop, inline_limit=settings.inline_limit),
            prefix_cache=settings.prefix_cache,
        )
        factory = self._family.factories[self._config.name]
        if self._followers is not None:
            leading = await self._followers.start()
            context = replace(context, rank=leading.rank, leading=leading)
        try:
            program = await anyio.to_thread.run_sync(factory, context, abandon_on_cancel=True)
        except ValueError as error:  # what is wrong with the folder, the device or the machine
            logger.debug("the stage cannot be built", exc_info=True)
            raise CannotStart(f"Stage '{self._config.name}' cannot start. {error}") from error
        if self._followers is not None:
            await self._followers.all_loaded()
        if program.warm_up is not None:
            links.announce(Phase.STAGE_PHASE_WARMING_UP)
            await anyio.to_thread.run_sync(program.warm_up, abandon_on_cancel=True)
        await self._pin()
        await self._reach_devices()
        return program

    async def _pin(self) -> None:
        """Once the model is on its GPU, and whenever the relay had to make a new arena."""
        arena = None if self._relay is None else self._relay.arena
        if arena is not None and self._pinning.is_behind(arena):
            await anyio.to_thread.run_sync(self._pinning.follow, arena, abandon_on_cancel=True)

    @property
    def _order(self) -> Order:
        """What this stage's followers are told, if it has any."""
        settings = self._settings
        return Order(
            family=settings.family,
            pipeline=self._pipeline.model_dump_json(),
            stage=self._config.name,
            model=None if settings.model is None else str(settings.model),
            device=self._device,
            dtype=settings.dtype,
            threads=settings.threads,
            log_level=settings.log_level,
        )

    @property
    def _device(self) -> str:
        return self._settings.device if self._config.gpu or self._neighbours.alone else "cpu"

    async def _reach_devices(self) -> None:
        """From now on tensors may go to stages of this pod without the host."""
        settings, relay = self._settings, self._relay
        if settings.device_ways and settings.arena is not None and relay is not None:
            place = Place(self._device, settings.arena, relay.source)
            self._devices.side = await anyio.to_thread.run_sync(self._open_side, place, abandon_on_cancel=True)

    async def _tick(self, stage: Stage, links: CoordinatorLinks, program: StageProgram) -> None:
        reported = None
        while True:
            await anyio.sleep(TICK_SECONDS)
            stage.sweep()
            if self._arrivals is not None:
                self._arrivals.sweep()
            self._check_heartbeat(program)
            await self._pin()
            load = program.scheduler.load()
            if load != reported:
                reported = load
                links.report_load(load.running, load.waiting)

    def _check_heartbeat(self, program: StageProgram) -> None:
        """A scheduler that is stuck or dead would leave its requests to their deadlines: the process ends instead, its
        requests fail at once, and it is started again."""
        still = self._clock() - program.scheduler.last_step()
        if still > self._settings.stall_timeout.total_seconds():
            raise RuntimeError(f"the scheduler of stage '{self._config.name}' has not come round for {still:.0f} s")

    async def _join_pod(self) -> RelayClient | None:
        settings = self._settings
        if settings.arena is None:
            return None
        who = Who(self._pipeline.name, self._config.name, settings.replica)
        relay = RelayClient(settings.arena, who, self._clock)
        try:
            await relay.connect(Deadline.after(settings.arena_timeout.total_seconds(), self._clock))
        except CannotConnect as error:
            raise CannotStart(f"Stage '{self._config.name}' cannot start. {error}") from error
        if self._config.to or self._config.stream_to:
            relay.want(slot_size(0))  # some space, so that the first tensor does not wait for it
        return relay

    def _sender(self) -> TensorSender:
        settings, relay = self._settings, self._relay
        return TensorSender(
            None if relay is None else relay.slots,
            0 if relay is None else relay.source,
            arena_checksums=settings.arena_checksums,
            inline_limit=settings.inline_limit,
        )

    def _receive(self, relay: RelayClient, stage: Stage, loop: LoopThread) -> Arrivals:
        """Has tensors from other pods kept for their requests."""
        arrivals = Arrivals(
            partial(loop.call, relay.return_arrived), is_over=stage.is_over, is_known=stage.knows, clock=self._clock
        )
        relay.on_arrival(arrivals.add)
        stage.connect(arrivals)
        return arrivals

    def _identity(self, server: RpcServer) -> Identity:
        settings = self._settings
        host = settings.advertise or settings.bind.rpartition(":")[0]
        return Identity(
            pipeline=self._pipeline.name,
            stage=self._config.name,
            replica=settings.replica,
            pod=settings.pod,
            node=settings.node,
            address=join_host_port(host, server.port),
            capacity=self._config.max_running + self._config.max_waiting,
            relay="" if self._relay is None else self._relay.address,
        )

    async def _stop(self, server: RpcServer) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_SECONDS):
            await server.stop(grace=0.5)


# Streams end within this time or are cut; by then nothing of worth is on them.
STOP_SECONDS = 2.0
