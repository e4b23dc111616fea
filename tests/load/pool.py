"""Memory that no cache holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from tests.load.marks import mark

POOL_BYTES = 256 << 20


class Pool:
    """Memory that is walked through from end to end, so that the next piece is never in a cache. Each
    piece carries a mark."""

    def __init__(self, size: int = POOL_BYTES) -> None:
        self._bytes: NDArray[np.uint8] = np.ones(size, np.uint8)  # ones: written, hence really there
        self._next = 0

    def pieces(self, size: int, number: int) -> Iterator[NDArray[np.uint8]]:
        return (self.take(size) for _ in range(number))

    def take(self, size: int) -> NDArray[np.uint8]:
        start = self._next if self._next + size <= self._bytes.nbytes else 0
        self._next = start + size
        piece = self._bytes[start : start + size]
        mark(piece.data)
        return piece
