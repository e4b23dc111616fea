"""What a consumer of a measurement does with tensors: it looks at them, and keeps the last ones."""

from __future__ import annotations

from collections import deque

import numpy as np
from tests.load.marks import Checker
from tests.load.pool import Pool

# A consumer that releases what it got at once lets the producer write the same cached bytes for ever. No cache is as
# large as this.
HELD_BYTES = 128 << 20
# Nor does a stage hold thousands of small ones, for which a process has places in its table of holds.
HELD_VIEWS = 1024


class Held:
    """The last views, up to `most` bytes; all of one size. One that is larger is not kept."""

    def __init__(self, most: int = HELD_BYTES, *, copy_out: bool = False) -> None:
        self._most = most
        self._checker = Checker()
        self._last: deque[memoryview] = deque()
        self._copies = Pool() if copy_out else None

    def look(self, data: memoryview) -> None:
        """Checks its marks, and reads all of it if it is copied out."""
        self._checker.check(data)
        if self._copies is not None:
            np.copyto(self._copies.take(data.nbytes), np.frombuffer(data, np.uint8))

    def keep(self, data: memoryview) -> None:
        """Lets the oldest go first."""
        if self._last and self._last[0].nbytes != data.nbytes:
            self._last.clear()
        while self._last and (len(self._last) == HELD_VIEWS or (len(self._last) + 1) * data.nbytes > self._most):
            self._last.popleft()
        if data.nbytes <= self._most:
            self._last.append(data)
