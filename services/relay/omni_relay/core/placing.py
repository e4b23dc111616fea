"""Where the next extent goes. What is free is never kept: it is what lies between the extents that are taken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from omni_common.arena.layout import ALIGNMENT

Stretch = tuple[int, int]
"""Offset and size in bytes."""


def gaps(start: int, end: int, taken: Iterable[Stretch]) -> list[Stretch]:
    """The free stretches of `[start, end)`, in order. Raises ValueError when two of `taken` overlap or one reaches
    outside: whoever says so must not be believed."""
    found: list[Stretch] = []
    place = start
    for offset, size in sorted(taken):
        if offset < place or size <= 0 or offset + size > end:
            raise ValueError(f"{size} bytes at {offset} overlap their neighbours")
        if offset > place:
            found.append((place, offset - place))
        place = offset + size
    if place < end:
        found.append((place, end - place))
    return found


def place(free: Sequence[Stretch], least: int, most: int, *, from_top: bool) -> Stretch | None:
    """Where to put `most` bytes, or as many as there are if that is `least` or more; None where they are not.

    From the low end for the stages and from the high end for other pods, so that they do not cut up each other's
    space.
    """
    ordered = list(reversed(free)) if from_top else list(free)
    gap = next((gap for gap in ordered if gap[1] >= most), None) or max(ordered, key=lambda gap: gap[1], default=None)
    if gap is None or gap[1] < least:
        return None
    offset, size = gap
    taken = min(most, size)
    return (offset + size - taken, taken) if from_top else (offset, taken)


def rooms(free: Iterable[Stretch], size: int) -> int:
    """How many stretches of `size` bytes there is room for."""
    return sum(have // size for _, have in free)


def padded(size: int) -> int:
    """In whole lines of the arena."""
    return -(-size // ALIGNMENT) * ALIGNMENT
