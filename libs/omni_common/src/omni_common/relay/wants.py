"""What a stage asks of its relay's arena: one extent at a time. Pure."""

from __future__ import annotations


class Wants:
    """The largest slot that somebody waits for, and what has been asked for it."""

    def __init__(self) -> None:
        self._wanted = 0
        self._asked = 0

    @property
    def asked(self) -> bool:
        """The relay has been asked and has not answered."""
        return self._asked > 0

    def want(self, size: int) -> None:
        self._wanted = max(self._wanted, size)

    def next(self) -> int | None:
        """The size to ask for now. None: nothing is wanted, or the relay has been asked and has not answered."""
        if self._asked or not self._wanted:
            return None
        self._asked, self._wanted = self._wanted, 0
        return self._asked

    def answered(self) -> None:
        """By an extent, or by a refusal. Everybody who waits tries again then, and wants again if need be."""
        self._wanted = self._asked = 0

    def lost(self) -> None:
        """What was asked will not be answered: it is wanted as before."""
        self._wanted, self._asked = max(self._wanted, self._asked), 0
