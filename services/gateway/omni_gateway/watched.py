"""What files say that change while the process runs: certificates and keys, which a Secret brings and renews.

A change is seen by what the file system says of the files, so a Secret's swapped link counts, too. What cannot be used
leaves the old in use, with one line in the log, and is tried again: a process without descriptors cannot read what is
right, and a certificate of a clock that is ahead becomes valid. At the start there is no old one, and the process says
why it ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A kubelet takes a minute to bring a renewed Secret; a look takes microseconds.
_INTERVAL = 1.0


class Unusable(Exception):
    """What is wrong with which file, in a sentence that repeats nothing of what is in it."""


class Watched(Generic[T]):
    """The files and what they said when they could last be used: `now`. Raises Unusable if they never could."""

    def __init__(self, what: str, files: Sequence[Path], load: Callable[[], T]) -> None:
        """`load` reads the files and raises Unusable."""
        self._what = what
        self._files = files
        self._load = load
        self._why = ""
        self._seen = self._look()
        self.now: T = load()

    def refresh(self) -> None:
        """Reads the files again if they changed, or could not be used. Blocks for as long as that takes."""
        seen = self._look()
        if seen == self._seen and not self._why:
            return
        told = self._why if seen == self._seen else ""
        self._seen = seen  # before they are read: a change in the middle is one more change
        try:
            self.now = self._load()
        except Unusable as error:
            self._why = str(error)
            if self._why != told:
                about = {"what": self._what, "why": self._why}
                logger.warning("new files cannot be used; the old ones stay", extra=about)
            return
        self._why = ""
        logger.info("new files are used", extra={"what": self._what})

    def _look(self) -> object:
        with suppress(OSError):
            found = map(Path.stat, self._files)
            return tuple((file.st_mtime_ns, file.st_ctime_ns, file.st_ino, file.st_size) for file in found)
        return None


def read(path: Path) -> bytes:
    """Raises Unusable."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}.") from error


async def keep_fresh(watched: Sequence[Watched[Any]]) -> None:
    """Until cancelled."""
    while watched:
        await anyio.sleep(_INTERVAL)
        for one in watched:
            await anyio.to_thread.run_sync(one.refresh)
