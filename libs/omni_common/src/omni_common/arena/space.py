"""Which bytes of a segment are free. Pure: knows offsets and sizes, no memory."""

from __future__ import annotations

from bisect import bisect_left


class FreeSpace:
    """First fit over extents in the order of their offsets; neighbours grow together when they come back.

    First fit keeps the low end dense and the high end whole, so large tensors go on finding room; slots are tensors
    above the inline limit, hence few, and a walk over the free extents costs less than keeping size classes would.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._sizes: dict[int, int] = {}

    @property
    def free(self) -> int:
        """Bytes that are free, in whatever pieces."""
        return sum(self._sizes.values())

    @property
    def extents(self) -> tuple[tuple[int, int], ...]:
        """The free extents as (offset, size), in order, no two of them adjacent."""
        return tuple((start, self._sizes[start]) for start in self._starts)

    def take(self, size: int) -> int | None:
        """The offset of `size` bytes that are no longer free, or None if no extent is that large."""
        for place, start in enumerate(self._starts):
            if (have := self._sizes[start]) < size:
                continue
            del self._sizes[start]
            if have == size:
                del self._starts[place]
            else:
                self._starts[place] = start + size
                self._sizes[start + size] = have - size
            return start
        return None

    def give(self, start: int, size: int) -> None:
        """Makes an extent free: one that was taken, or a new one. Raises ValueError if part of it is free already."""
        place = bisect_left(self._starts, start)
        end = start + size
        before = self._starts[place - 1] if place else None
        after = self._starts[place] if place < len(self._starts) else None
        if (before is not None and before + self._sizes[before] > start) or (after is not None and after < end):
            raise ValueError(f"part of the {size} bytes at {start} is free already")
        if after == end:
            end += self._sizes.pop(after)
            del self._starts[place]
        if before is not None and before + self._sizes[before] == start:
            self._sizes[before] = end - before
        else:
            self._starts.insert(place, start)
            self._sizes[start] = end - start
