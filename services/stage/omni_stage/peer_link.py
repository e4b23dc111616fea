"""The stream to one downstream replica, and the tensors beside it.

An event leaves at once, and ahead of the tensors that the relays move for it. Where a tensor has to wait for room in
the arena, the event waits, and the later ones of its request behind it; other requests go on. What waits is bounded by
the credits of the edge, for each request that was admitted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from omni.common.v1.payload_pb2 import Payload
from omni.common.v1.tensor_pb2 import ArenaSlot
from omni.stage.v1 import stage_pb2, stage_pb2_grpc
from omni_common.clock import Clock
from omni_common.component import Component
from omni_common.errors import OmniError, StageUnavailable
from omni_common.payload import PayloadCodec
from omni_common.relay import NoRoom, RelayClient
from omni_common.request import Binding, Envelope, RequestKey
from omni_common.rpc import convert
from omni_common.rpc.channel import open_channel
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.rpc.duplex import PeerGone
from omni_common.rpc.frames import Blob, FrameWriter, PeerStalled
from omni_common.rpc.session import client_session, exchange
from omni_common.rpc.tls import MeshTls
from omni_common.telemetry import names
from omni_common.transfer import Encoded, TensorSender, Way
from omni_stage.core.lent import Lent
from omni_stage.core.waiting import Waiting
from omni_stage.departure import Departure, Sender
from omni_stage.devices import Devices
from omni_stage.edges import EdgeMeter
from omni_stage.identity import Identity
from omni_stage.loans import Loans
from omni_stage.neighbours import Neighbours
from omni_stage.pushes import Pushes

logger = logging.getLogger(__name__)

# Seconds that a tensor waits for room in the arena before it goes beside the frames: stages may hold each other's
# slots in a circle (one waits to join what another has no room to send), and that must not stand still.
PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Outfit:
    """What all links of a stage share. `relay` is None where the pod has no arena; `neighbours` share the process."""

    identity: Identity
    codec: PayloadCodec
    tensors: TensorSender
    relay: RelayClient | None
    clock: Clock
    neighbours: Neighbours = field(default_factory=Neighbours)
    devices: Devices = field(default_factory=Devices)
    tls: MeshTls | None = None


class PeerLink:
    """The way to one downstream replica."""

    def __init__(self, outfit: Outfit, target: str, binding: Binding, sender: Sender, meter: EdgeMeter) -> None:
        self._outfit = outfit
        self._target = target
        self._binding = binding
        self._sender = sender
        self._meter = meter
        self._relay = outfit.relay
        self._way = Way.STREAM if outfit.relay is None else way_to(binding, outfit.identity)
        self._introduced: set[RequestKey] = set()
        self._waiting: Waiting[Departure] = Waiting()
        self._lent: Lent[ArenaSlot] = Lent()
        self._frames: FrameWriter[stage_pb2.DeliverEvent] = FrameWriter(
            lambda piece: stage_pb2.DeliverEvent(blob=piece)
        )
        self._frames.put(_hello(outfit.identity))
        self._loans = Loans(outfit.devices, self._frames, hearer=sender, meter=meter, clock=outfit.clock)
        self._pushes = None
        if outfit.relay is not None:
            self._pushes = Pushes(outfit.relay, binding, self._frames, hearer=sender, meter=meter, clock=outfit.clock)

    async def run(self) -> None:
        """Carries frames until the replica is gone; then fails the requests that it was told of."""
        address, tls = self._binding.address, self._outfit.tls
        try:
            async with open_channel(address, tls=tls, peer=Component.STAGE) as channel:
                call = stage_pb2_grpc.StageServiceStub(channel).Deliver()
                async with client_session(call, tls=tls, address=address) as duplex:
                    await exchange(
                        duplex,
                        self._frames,
                        frame=lambda events: stage_pb2.DeliverRequest(events=events),
                        handle=self._answer,
                    )
        except OmniError as error:
            logger.info("a downstream replica is gone", extra={"peer": self._binding.replica, "why": error.message})
        finally:
            self._frames.close()
            self._meter.close()
            self._lose_all()

    def close(self) -> None:
        self._frames.close()

    @property
    def on_devices(self) -> int:
        """Tensors that are lent on this process's device."""
        return len(self._loans)

    async def all_back(self) -> None:
        """Until the replica has done with what was lent on the device, or is gone. The caller holds the deadline."""
        await self._loans.all_back()

    # What the stage sends.

    def offer(self, departure: Departure) -> bool:
        """Sends the event, now or, where it finds no room, later; says which. Raises OmniError."""
        if departure.key not in self._waiting:
            if self._leave(departure, patient=True):
                return True
            names.ARENA_FULL.inc()
        self._waiting.put(departure.key, departure)
        return False

    @property
    def waiting(self) -> Sequence[tuple[float, RequestKey]]:
        """The requests of which something waits for room, and since when."""
        firsts = [(self._waiting.first(key), key) for key in self._waiting.keys]
        return [(first.since, key) for first, key in firsts if first is not None]

    def retry(self, key: RequestKey) -> None:
        """There may be room now, or enough time may have passed."""
        try:
            while (departure := self._waiting.first(key)) is not None:
                waited = self._outfit.clock() - departure.since
                if not self._leave(departure, patient=waited < PATIENCE):
                    return
                self._waiting.pop(key)
                self._meter.waited(waited)
        except OmniError as error:
            self._waiting.drop(key)
            self._sender.lost(key, error)
        self._sender.delivered(key)

    def busy(self, key: RequestKey) -> bool:
        """Whether something of the request waits for room, is being pushed, or may yet be asked for another way."""
        return key in self._waiting or key in self._loans or (self._pushes is not None and key in self._pushes)

    def forget(self, key: RequestKey) -> None:
        self._introduced.discard(key)

    def abandon(self, key: RequestKey) -> None:
        """The request was aborted: what waits for it does not leave, and what it has lent nobody needs any more."""
        self._waiting.drop(key)
        self._loans.unsent(self._frames.drop(key.lane))
        self._loans.abandon(key)
        if self._pushes is not None:
            self._pushes.cancel(key)
        self._lose(key)

    def _leave(self, departure: Departure, *, patient: bool) -> bool:
        """Whether there was room. Raises OmniError, and holds nothing then."""
        if departure.value is None:
            self._put(departure, Payload())
            return True
        envelope = departure.envelope
        try:
            encoded = self._outfit.tensors.encode(
                self._outfit.codec,
                departure.value[0],
                envelope.key.lane,
                self._way,
                expires=envelope.deadline,
                patient=patient,
                lender=self._loans.lender(envelope.key),
            )
        except NoRoom as full:
            if self._relay is not None:
                self._relay.want(full.size)
            return False
        try:
            self._put(departure, encoded.payload, encoded.blobs)
        except OmniError:
            self._outfit.tensors.release(encoded)
            self._loans.never_left(encoded.devices)
            raise
        self._note(envelope, encoded)
        return True

    def _put(self, departure: Departure, payload: Payload, blobs: Sequence[Blob] = ()) -> None:
        """Queues the event; the first one of a request takes the envelope along."""
        key = departure.key
        event = departure.render(payload)
        event.key.CopyFrom(convert.render_key(key))
        if key not in self._introduced:
            event.envelope.CopyFrom(convert.render_envelope(departure.envelope, self._outfit.clock()))
        try:
            self._frames.put(event, lane=key.lane, blobs=blobs)
        except (PeerGone, PeerStalled) as lost:  # told by name, so that the coordinator takes another replica
            raise self._gone() from lost
        self._introduced.add(key)

    def _note(self, envelope: Envelope, encoded: Encoded) -> None:
        for sent in encoded.sent:
            self._meter.sent(sent)
        for slot in encoded.lent:
            self._lent.lend(envelope.key, _id(slot), slot)
        if self._pushes is not None:
            for pushed in encoded.pushes:
                self._pushes.begin(envelope, pushed)

    # What the replica answers.

    def _answer(self, frame: stage_pb2.DeliverResponse) -> None:
        for reply in frame.replies:
            match reply.WhichOneof("reply"):
                case "credit":
                    self._sender.grant(convert.parse_key(reply.credit.key), self._target, reply.credit.chunks)
                case "release":
                    for slot in reply.release.slots:
                        self._returned(slot)
                    self._loans.released(reply.release.transfers)
                case "device":
                    self._loans.heard(reply.device)
                case "fetch":
                    self._loans.opened(reply.fetch.opened)
                    self._loans.wanted(reply.fetch.wanted)
                case "failure":
                    error = convert.error_of(reply.failure.failure)
                    self._sender.fail(convert.parse_key(reply.failure.key), error)

    def _returned(self, slot: ArenaSlot) -> None:
        """The replica looks at it no more. One that was not lent to it, or that was lost before, changes nothing."""
        if self._relay is not None and self._lent.take_back(_id(slot)):
            self._relay.release(slot)

    # The end.

    def _lose(self, key: RequestKey | None = None) -> None:
        for slot in self._lent.drop(key):
            if self._relay is not None:
                self._relay.lose(slot)

    def _lose_all(self) -> None:
        gone = self._gone()
        introduced, self._introduced = self._introduced, set()
        under_way = {
            *self._waiting.keys,
            *self._loans.keys,
            *(() if self._pushes is None else self._pushes.keys),
        }
        for key in under_way:
            self.abandon(key)
        self._loans.lose_all()
        self._lose()
        for key in introduced:
            self._sender.fail(key, gone)
        for key in under_way:
            self._sender.lost(key, gone)

    def _gone(self) -> OmniError:
        return StageUnavailable(self._target, f"lost its replica {self._binding.replica}")


def way_to(binding: Binding, identity: Identity) -> Way:
    """What lies between this replica and that one, if this one has a relay."""
    if not binding.relay:
        return Way.STREAM
    return Way.POD if binding.pod == identity.pod else Way.RELAYS


def _hello(identity: Identity) -> stage_pb2.DeliverEvent:
    return stage_pb2.DeliverEvent(
        hello=stage_pb2.DeliverHello(
            pipeline=identity.pipeline,
            stage=identity.stage,
            replica=identity.replica,
            pod=identity.pod,
            contract_version=CONTRACT_VERSION,
        )
    )


def _id(slot: ArenaSlot) -> tuple[int, int]:
    return slot.epoch, slot.generation
