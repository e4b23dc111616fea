"""Waiting for a descriptor, by poll(): a long run of tests has more of them than the 1024 that select() takes."""

from __future__ import annotations

import select
from typing import Protocol


class HasDescriptor(Protocol):
    def fileno(self) -> int: ...


def readable(file: int | HasDescriptor, seconds: float | None) -> bool:
    """Whether it can be read, or has ended, within that time; None waits for ever."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
