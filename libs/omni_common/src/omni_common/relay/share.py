"""This process's share in its pod's arena: the extents that it writes in, and its views of what others wrote."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from omni_common.arena import Arena, ArenaReader, ArenaWriter, HoldTable, HoldTables
from omni_common.clock import Clock
from omni_common.errors import LeaseLost
from omni_common.relay.packets import LineLost
from omni_common.relay.slots import Slots

logger = logging.getLogger(__name__)


class Share:
    """`slots` and `reader` are there once an arena has been entered. Raises OSError where the folder cannot be used."""

    slots: Slots
    reader: ArenaReader

    def __init__(self, folder: Path, name: str, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._holds = HoldTable.create(folder, name)
        self._tables = HoldTables(folder)
        self._arena: Arena | None = None

    @property
    def arena(self) -> Arena | None:
        """The one that was entered last."""
        return self._arena

    @property
    def epoch(self) -> int:
        """Of the arena, 0 before there is one."""
        return 0 if self._arena is None else self._arena.epoch

    def enter(self, epoch: int, kept: Collection[int]) -> bool:
        """The relay's arena is the one of that epoch, and those extents are still this process's. Says whether it is
        another arena than before, which loses all that was in the old one. Raises LineLost."""
        if epoch == self.epoch:
            self._keep(kept)
            return False
        try:
            arena = Arena.open(self._folder, epoch)
        except (OSError, LeaseLost) as error:
            raise LineLost(f"its arena cannot be opened: {error}") from error
        self.reader = ArenaReader(arena, self._holds, self._clock)
        writer = ArenaWriter(arena, self._holds, self._tables, self._clock)
        if self._arena is None:
            self.slots = Slots(arena, writer)
        else:
            logger.warning("the pod's arena is another one; what was in the old one is lost")
            self.slots.renew(arena, writer)
        self._arena = arena
        return True

    def close(self) -> None:
        """This process will not write there again."""
        if self._arena is not None:
            self._keep(())

    def _keep(self, indices: Collection[int]) -> None:
        for extent in self.slots.extents:
            if extent.index not in indices:
                self.slots.revoke(extent.index)
