"""What another process has open."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def descriptors(pid: int) -> list[str]:
    """What they lead to."""
    while True:
        with suppress(FileNotFoundError):  # one was closed meanwhile
            return [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]


def open_files(pid: int) -> int:
    """But for holds: those of others are opened when somebody has to look at them, and closed at the first look after
    their process's death."""
    return sum("/holds/" not in file for file in descriptors(pid))


def open_holds(pid: int) -> int:
    """See `open_files`."""
    return sum("/holds/" in file for file in descriptors(pid))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))
