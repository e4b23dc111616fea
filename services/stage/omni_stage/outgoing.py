"""What this stage delivers to the next ones: one link per downstream replica, opened when first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import anyio
import anyio.abc

from omni.common.v1.payload_pb2 import Payload
from omni.stage.v1 import stage_pb2
from omni_common.request import Binding, Envelope, RequestKey, StageReport
from omni_common.rpc import convert
from omni_stage.departure import Departure, Sender
from omni_stage.edges import EdgeMeter, EdgeTransports
from omni_stage.local_link import LocalLink
from omni_stage.peer_link import PATIENCE, Outfit, PeerLink
from omni_stage.stage import Stage, Upstream

Link = PeerLink | LocalLink
"""To a replica elsewhere, and to one of this process."""


class PeerLinks:
    """The links to all downstream replicas."""

    def __init__(self, outfit: Outfit, *, tasks: anyio.abc.TaskGroup) -> None:
        self._outfit = outfit
        self._tasks = tasks
        self._links: dict[tuple[str, str], Link] = {}
        self._transports = EdgeTransports()
        self._sender: Callable[[], Sender] | None = None
        self._retrying = False
        self._room = False
        self._hurrying = False
        self._ended = anyio.Event()
        if outfit.relay is not None:
            outfit.relay.on_room(self._retry)

    def answer_to(self, sender: Sender) -> None:
        """The stage and its links know each other; this closes the circle."""
        self._sender = lambda: sender

    def payload(self, envelope: Envelope, target: str, value: object, reports: Iterable[StageReport]) -> None:
        key, source, reports = envelope.key, self._outfit.identity.stage, tuple(reports)

        def event(payload: Payload) -> stage_pb2.DeliverEvent:
            rendered = map(convert.render_report, reports)
            return stage_pb2.DeliverEvent(payload=stage_pb2.PayloadEvent(payload=payload, reports=rendered))

        def hand_over(stage: Stage, upstream: Upstream) -> None:
            stage.payload(key, source, value, reports, upstream)

        self._offer(target, Departure(envelope, self._outfit.clock(), event, hand_over, (value,)))

    def chunk(self, envelope: Envelope, target: str, index: int, value: object) -> None:
        key, source = envelope.key, self._outfit.identity.stage

        def event(payload: Payload) -> stage_pb2.DeliverEvent:
            return stage_pb2.DeliverEvent(chunk=stage_pb2.ChunkEvent(index=index, payload=payload))

        def hand_over(stage: Stage, upstream: Upstream) -> None:
            stage.chunk(key, source, index, value, upstream)

        self._offer(target, Departure(envelope, self._outfit.clock(), event, hand_over, (value,)))

    def done(self, envelope: Envelope, target: str, chunks: int, reports: Iterable[StageReport]) -> None:
        key, source, reports = envelope.key, self._outfit.identity.stage, tuple(reports)

        def event(_: Payload) -> stage_pb2.DeliverEvent:
            rendered = map(convert.render_report, reports)
            return stage_pb2.DeliverEvent(done=stage_pb2.DoneEvent(chunks=chunks, reports=rendered))

        def hand_over(stage: Stage, upstream: Upstream) -> None:
            stage.done(key, source, chunks, reports, upstream)

        self._offer(target, Departure(envelope, self._outfit.clock(), event, hand_over))

    def busy(self, key: RequestKey) -> bool:
        """Whether something of the request has not left, or is on its way beside the frames."""
        return any(link.busy(key) for link in self._links.values())

    def forget(self, key: RequestKey) -> None:
        for link in self._links.values():
            link.forget(key)

    def abandon(self, key: RequestKey) -> None:
        """The request was aborted."""
        for link in self._links.values():
            link.abandon(key)

    def close(self) -> None:
        for link in self._links.values():
            link.close()

    async def finish(self) -> None:
        """Sends what waits in frames and ends the streams: returns when every replica has read all of it, and so looks
        at whatever was lent to it. What is lent on this process's device dies with it, so that comes back first. The
        caller holds the deadline."""
        for link in self._peer_links():
            await link.all_back()
        self.close()
        while self._links:
            self._ended = anyio.Event()
            await self._ended.wait()

    @property
    def on_devices(self) -> int:
        """Tensors that are lent on this process's device."""
        return sum(link.on_devices for link in self._peer_links())

    def _peer_links(self) -> list[PeerLink]:
        return [link for link in self._links.values() if isinstance(link, PeerLink)]

    def _offer(self, target: str, departure: Departure) -> None:
        left = self._link(departure.envelope, target).offer(departure)
        if not left and not self._hurrying:
            self._hurrying = True
            self._tasks.start_soon(self._hurry)

    def _retry(self) -> None:
        """Who has waited longest comes first. Called again from within (a push that ends at once frees its slot), it
        goes round once more instead of sending anything twice."""
        self._room = True
        if self._retrying:
            return
        self._retrying = True
        while self._room:
            self._room = False
            waiting = [(since, link, key) for link in self._links.values() for since, key in link.waiting]
            for _, link, key in sorted(waiting, key=lambda item: item[0]):
                link.retry(key)
        self._retrying = False

    async def _hurry(self) -> None:
        """Sends what has waited too long by another way, while anything waits."""
        while oldest := [since for link in self._links.values() for since, _ in link.waiting]:
            await anyio.sleep(max(0.0, min(oldest) + PATIENCE - self._outfit.clock()))
            self._retry()
        self._hurrying = False

    def _link(self, envelope: Envelope, target: str) -> Link:
        binding = envelope.bindings[target]
        at = (target, binding.address)
        link = self._links.get(at)
        if link is None:
            link = self._links[at] = self._made(target, binding)
            self._tasks.start_soon(self._keep, at, link)
        return link

    def _made(self, target: str, binding: Binding) -> Link:
        assert self._sender is not None, "links are used after the stage is made"  # noqa: S101
        outfit, sender = self._outfit, self._sender()
        meter = EdgeMeter(f"{outfit.identity.stage}>{target}", self._transports)
        neighbour = outfit.neighbours.find(target, binding)
        if neighbour is None:
            return PeerLink(outfit, target, binding, sender, meter)
        return LocalLink(outfit.codec, neighbour, sender, meter)

    async def _keep(self, at: tuple[str, str], link: Link) -> None:
        try:
            await link.run()
        finally:
            del self._links[at]
            self._ended.set()
