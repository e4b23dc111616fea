"""A stage process: one replica, or one of each of several stages, which hand each other values as they are.

Each replica has its own name, address, place at the coordinators, line to the relay and scheduler; they share the event
loop, the metrics and the life of the process.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

import anyio

from omni_common.clock import Clock, monotonic
from omni_common.deadline import Deadline
from omni_common.last_words import CannotStart, first_of, named
from omni_common.lifecycle import Health, Lifecycle
from omni_stage.devices import OpenSide, open_side
from omni_stage.neighbours import Neighbours
from omni_stage.replica import Replica
from omni_stage.settings import StageSettings

logger = logging.getLogger(__name__)


class StageProcess:
    """The service."""

    def __init__(self, settings: StageSettings, *, clock: Clock = monotonic, open_side: OpenSide = open_side) -> None:
        each = settings.of_each_stage()
        neighbours = Neighbours(len(each))
        self._stages = {one.replica: one.stage for one in each}
        self._replicas = {one.replica: Replica(one, neighbours, clock=clock, open_side=open_side) for one in each}

    async def run(self, started: Lifecycle) -> None:
        """Until cancelled. Health is SERVING, for all of them, once every model is warm."""
        gathered = _Gathered(started, len(self._replicas))
        async with anyio.create_task_group() as tasks:
            for name, replica in self._replicas.items():
                tasks.start_soon(self._run, name, replica, gathered, started)

    async def _run(self, name: str, replica: Replica, gathered: _Gathered, started: Lifecycle) -> None:
        """Whatever a library or a driver says of files that are no weights, or of a device without room, is why the
        stage cannot load; raises CannotStart."""
        try:
            await replica.run(gathered)
        except Exception as error:
            first = first_of(error)
            if started.started or isinstance(first, CannotStart):
                raise
            logger.exception("the stage cannot be loaded")
            raise CannotStart(f"Stage '{self._stages[name]}' cannot start. {named(first)}") from error

    async def drain(self, deadline: Deadline) -> None:
        """Tells the coordinators to send nothing new, then waits for what is alive and for what has been sent. A
        request may be done in one stage and not have begun in the next, so no stage goes before all are idle."""
        replicas = self._replicas.values()
        for replica in replicas:
            replica.leave()
        for replica in replicas:
            await replica.until_dismissed()
        while any(replica.live for replica in replicas):
            for replica in replicas:
                await replica.until_idle()  # the caller holds the deadline
        for replica in replicas:
            await replica.finish()

    def holds(self) -> Mapping[str, int]:
        """What is not given back yet, as `Replica.holds`, of all of them."""
        held: Counter[str] = Counter()
        for replica in self._replicas.values():
            held.update(replica.holds())
        return held


class _Gathered:
    """Calls `started` when all have."""

    def __init__(self, started: Lifecycle, replicas: int) -> None:
        self._started = started
        self.hearts = started.hearts
        self._missing = replicas
        self._health: list[Health] = []

    def __call__(self, health: Health) -> None:
        self._health.append(health)
        self._missing -= 1
        if not self._missing:
            self._started(*self._health)
