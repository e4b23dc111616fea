"""The pod's shared folder, as the one relay that serves it has it."""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path

from omni_common.arena.memory import ARENA, Arena
from omni_common.lifecycle import CannotStart
from omni_relay.ledger import LEDGER, Ledger

logger = logging.getLogger(__name__)

LOCK = "lock"


class PodFolder:
    """Locked for as long as the process lives. Raises CannotStart where it cannot be used, or another relay does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise CannotStart(f"The pod's folder {path} cannot be used: {error.strerror}.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise CannotStart(f"Another relay serves the folder {path} already.") from error

    def adopt(self, size: int) -> tuple[Arena, Ledger] | None:
        """The memory of a former life, if it is sound and of that size."""
        arena = Arena.adopt(self.path, size)
        if arena is None:
            return None
        ledger = Ledger.adopt(self.path, arena.epoch)
        if ledger is None:
            arena.close()
            return None
        return arena, ledger

    def create(self, size: int) -> tuple[Arena, Ledger]:
        """New memory, all of it claimed and touched. Raises CannotStart."""
        try:
            arena = Arena.create(self.path, size)
            return arena, Ledger.create(self.path, arena.epoch)
        except OSError as error:
            why = f"There is no room for an arena of {size >> 20} MiB in {self.path}: {error.strerror}."
            raise CannotStart(why) from error

    def clear(self) -> None:
        """Removes the memory: nobody needs it any more."""
        for name in (LEDGER, ARENA):
            with suppress(FileNotFoundError):
                (self.path / name).unlink()

    def unlock(self) -> None:
        """From now on another relay may take over."""
        os.close(self._lock)
