"""Bytes that say whose they are."""

from __future__ import annotations

from random import Random

# A prime near a page's size, so that no page of a tensor is like another.
_TILE = 4093


def pattern(name: object, size: int) -> bytes:
    """The bytes of the tensor that is called so. Those of two names differ."""
    tile = Random(str(name)).randbytes(min(size, _TILE))  # noqa: S311  # no secret
    return (tile * (size // _TILE + 1))[:size]
