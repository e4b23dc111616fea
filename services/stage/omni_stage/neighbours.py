"""The replicas that share this process: values cross the edges between them as they are, see `local_link.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from omni_common.request import Binding
from omni_stage.loop import LoopThread
from omni_stage.stage import Stage


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A replica of this process; what is for it goes by its `loop`."""

    stage: Stage
    loop: LoopThread


class Neighbours:
    """All replicas of one process, on its event loop."""

    def __init__(self, replicas: int = 1) -> None:
        self.alone = replicas == 1
        self._by_address: dict[str, Neighbour] = {}
        self._loading = replicas
        self._loaded = anyio.Event()
        self._turn = anyio.Lock()
        self._failed = False

    def join(self, neighbour: Neighbour) -> None:
        self._by_address[neighbour.stage.identity.address] = neighbour

    def find(self, target: str, binding: Binding) -> Neighbour | None:
        """The replica that is bound, if it is one of this process. The address alone might be another host's."""
        neighbour = self._by_address.get(binding.address)
        if neighbour is None:
            return None
        there = neighbour.stage.identity
        same = (there.stage, there.replica, there.pod) == (target, binding.replica, binding.pod)
        return neighbour if same else None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Models are loaded one after the other: libraries have switches that are the whole process's. Where one
        cannot be loaded, no other is: the process is about to end."""
        async with self._turn:
            if self._failed:
                await anyio.sleep_forever()
            try:
                yield
            except BaseException:
                self._failed = True
                raise

    async def all_loaded(self) -> None:
        """One replica has loaded its model; returns when the others have theirs, so that none works meanwhile. No
        deadline: what cannot load ends the process."""
        self._loading -= 1
        if self._loading <= 0:
            self._loaded.set()
        await self._loaded.wait()
