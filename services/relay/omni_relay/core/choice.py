"""Which carrier a connection uses: the first that the pushing relay offers and the receiving one can use too."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Why(StrEnum):
    """Why this one; a label of metrics."""

    PREFERRED = "preferred"
    """It is the first of those that the pushing relay is set to use."""
    UNSHARED = "unshared"
    """The other relay cannot use those before it, or is not set to."""
    FALLBACK = "fallback"
    """One before it has failed between these two relays a short while ago."""


@dataclass(frozen=True, slots=True)
class Choice:
    carrier: str
    why: Why


def choose(offered: Sequence[str], able: Collection[str], failed: Collection[str]) -> Choice | None:
    """The receiver's choice. `failed` are those of `able` that are left out for a while; None when nothing is left."""
    for name in offered:
        if name in able and name not in failed:
            passed = offered[: offered.index(name)]
            why = Why.FALLBACK if set(passed) & set(failed) else Why.UNSHARED if passed else Why.PREFERRED
            return Choice(name, why)
    return None
