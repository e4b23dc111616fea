"""The relay's process: its start, its clockwork, its end."""

from __future__ import annotations

import logging

import anyio
import anyio.to_thread

from omni_common.deadline import Deadline
from omni_common.lifecycle import Lifecycle
from omni_relay.relay import Relay
from omni_relay.settings import RelaySettings
from omni_relay.watched import end_process_on_thread_death

logger = logging.getLogger(__name__)

# Seconds between two rounds: that of SETTLE, so that space is back within half a second of its owner's death.
TICK = 0.25

# Seconds for the threads to notice that it is over.
_GRACE = 3.0


class RelayProcess:
    """A Service of omni_common.lifecycle. The event loop does nothing but tick and hear signals: what moves tensors
    are threads, and one that dies takes the process with it."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._relay: Relay | None = None
        self._idle = anyio.Event()

    async def run(self, started: Lifecycle) -> None:
        end_process_on_thread_death()
        # In a thread, so that signals are heard: to touch the arena's pages takes a second for each gigabyte.
        self._relay = relay = await anyio.to_thread.run_sync(Relay, self._settings)
        try:
            relay.start()
            logger.info("listening", extra={"address": relay.address})
            started()
            await self._tick(relay)
        finally:
            with anyio.CancelScope(shield=True):  # bounded by its deadline
                await anyio.to_thread.run_sync(relay.stop, Deadline.after(_GRACE))

    async def drain(self, deadline: Deadline) -> None:
        """Lets the pushes under way end."""
        if self._relay is not None:
            self._relay.drain()
            await self._idle.wait()  # the deadline is the caller's

    async def _tick(self, relay: Relay) -> None:
        while True:
            await anyio.sleep(TICK)
            relay.tick()
            if relay.draining and relay.idle:
                self._idle.set()
