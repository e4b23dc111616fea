"""Tensors that are made where they leave from: the stage's part of its pod's arena, for its schedulers."""

from __future__ import annotations

from omni_common.arena.layout import slot_size
from omni_common.relay import RelayClient
from omni_stage.loop import LoopThread


class InPlace:
    """A `Space` in the arena. Never waits: where there is no room, more is asked for, for the next time."""

    def __init__(self, relay: RelayClient, loop: LoopThread, *, inline_limit: int) -> None:
        self._relay = relay
        self._loop = loop
        self._inline_limit = inline_limit

    def allocate(self, length: int) -> memoryview | None:
        if length <= self._inline_limit:
            return None  # it will ride inside the payload
        data = self._relay.slots.allocate(length)
        if data is None and not self._relay.slots.too_large(length):
            self._loop.call(self._relay.want, slot_size(length))
        return data
