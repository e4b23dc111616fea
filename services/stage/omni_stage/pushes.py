"""A link's tensors that the relays move to the other pod.

A push that fails for reasons of transport is sent again beside the frames, from the same slot; every other failure is
the request's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Protocol

from omni.common.v1.tensor_pb2 import TransferId
from omni.relay.v1 import pod_pb2
from omni.stage.v1 import stage_pb2
from omni_common.clock import Clock
from omni_common.data_ref import checksum
from omni_common.errors import LeaseLost, OmniError, Reason
from omni_common.relay import PushResult, RelayClient
from omni_common.request import Binding, Envelope, RequestKey
from omni_common.rpc import convert
from omni_common.rpc.frames import Blob, FrameWriter
from omni_common.transfer import Pushed
from omni_stage.edges import EdgeMeter
from omni_stage.spans import STAGE_SPANS

# Failures that no other transport would mend: the request's time is over, it was aborted, or its bytes are no longer
# what they were.
_FINAL = frozenset({Reason.DATA_CORRUPTED, Reason.DEADLINE_EXCEEDED, Reason.CANCELLED, Reason.LEASE_LOST})


class Hearer(Protocol):
    """Who hears what became of a request's pushes."""

    def delivered(self, key: RequestKey) -> None: ...
    def lost(self, key: RequestKey, error: OmniError) -> None: ...


class Pushes:
    """The pushes under way to one replica. One that is cancelled is nobody's: its slot comes back when it ends."""

    def __init__(
        self,
        relay: RelayClient,
        binding: Binding,
        frames: FrameWriter[stage_pb2.DeliverEvent],
        *,
        hearer: Hearer,
        meter: EdgeMeter,
        clock: Clock,
    ) -> None:
        self._relay = relay
        self._binding = binding
        self._frames = frames
        self._hearer = hearer
        self._meter = meter
        self._clock = clock
        self._under_way: dict[RequestKey, set[int]] = {}

    def __contains__(self, key: RequestKey) -> bool:
        return key in self._under_way

    @property
    def keys(self) -> Collection[RequestKey]:
        return self._under_way.keys()

    def begin(self, envelope: Envelope, pushed: Pushed) -> None:
        """The event that refers to it has been queued."""
        now = self._clock()
        self._under_way.setdefault(envelope.key, set()).add(pushed.number)
        push = pod_pb2.Push(
            transfer=TransferId(source=self._relay.source, number=pushed.number),
            slot=pushed.slot,
            length=pushed.length,
            to=self._binding.relay,
            consumer=self._binding.replica,
            key=convert.render_key(envelope.key),
            remaining=convert.duration_of(envelope.deadline - now),
            edge=self._meter.name,
        )
        self._relay.push(push, partial(self._ended, envelope.key, pushed, now))

    def cancel(self, key: RequestKey) -> None:
        for number in self._under_way.pop(key, ()):
            self._relay.cancel(number)

    def _ended(self, key: RequestKey, pushed: Pushed, began: float, result: PushResult) -> None:
        # A relay that may look at the slot still must be let finish.
        free = partial(self._relay.release if result.quiet else self._relay.lose, pushed.slot)
        if not self._is_wanted(key, pushed.number):
            free()
            return
        if result.error is None:
            seconds = self._clock() - began
            self._meter.pushed(result.transport, pushed.length, seconds)
            STAGE_SPANS.moved(self._meter.name, key, result.transport, pushed.length, seconds)
            free()
        elif result.error.reason in _FINAL:
            free()
            self._hearer.lost(key, result.error)
        else:
            self._send_again(key, pushed, free)
        if key not in self:
            self._hearer.delivered(key)

    def _send_again(self, key: RequestKey, pushed: Pushed, free: Callable[[], None]) -> None:
        data = self._relay.slots.data(pushed.slot, pushed.length)
        if data is None:
            self._hearer.lost(key, LeaseLost("its place in the arena was lost before it was sent"))
            return
        blob = Blob(pushed.number, key.lane, data, on_sent=free, checksum=checksum(data))
        try:
            self._frames.put_blob(blob, lane=key.lane)
        except OmniError as error:
            free()
            self._hearer.lost(key, error)
        else:
            self._meter.sent_again(pushed.length)

    def _is_wanted(self, key: RequestKey, number: int) -> bool:
        """Whether its request still is; the push is over now."""
        numbers = self._under_way.get(key, set())
        if number not in numbers:
            return False
        numbers.discard(number)
        if not numbers:
            del self._under_way[key]
        return True
