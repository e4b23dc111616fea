"""How a measurement knows that the bytes it counts are the right ones: both ends of a tensor carry the same mark, and
no two tensors of a process have the same."""

from __future__ import annotations

from itertools import count

_BYTES = 8
_marks = count(1)


def mark(data: memoryview) -> None:
    """Marks this process's next tensor, of 8 bytes at least."""
    data[:_BYTES] = data[-_BYTES:] = next(_marks).to_bytes(_BYTES, "little")


class Checker:
    """Looks at both ends of what arrives from one sender, as a model would begin to."""

    def __init__(self) -> None:
        self._last = b""

    def check(self, data: memoryview) -> None:
        """Raises AssertionError for a tensor that is torn, or that came just before."""
        first, last = bytes(data[:_BYTES]), bytes(data[-_BYTES:])
        if first != last or first == self._last:
            raise AssertionError(f"a tensor came with the marks {first!r} and {last!r} after one with {self._last!r}")
        self._last = first
