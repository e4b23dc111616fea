"""Bytes that this process holds for its callers, bounded over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from omni_common.errors import Overloaded


class HeldBytes:
    """All bytes of one kind; `what` names the kind in the refusal."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self.held = 0

    @contextmanager
    def account(self) -> Iterator[Account]:
        """One caller's part, given back when the block is left."""
        account = Account(self)
        try:
            yield account
        finally:
            self.held -= account.held

    def take(self, count: int) -> None:
        if self.held + count > self._limit:
            raise Overloaded(f"The server holds as many bytes of {self._what} as it may.")
        self.held += count


class Account:
    def __init__(self, total: HeldBytes) -> None:
        self._total = total
        self.held = 0

    def grow(self, count: int) -> None:
        """Before so many bytes are kept. Raises Overloaded."""
        self._total.take(count)
        self.held += count
