"""Pure: from the moments of a transfer to the parts that its time went to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import ceil

from omni_cli.bench.journal import Caught, Pushed


@dataclass(frozen=True, slots=True)
class Round:
    """One transfer as its two ends saw it, on the clock of the journal."""

    pushed: float  # the producer called its relay
    arrived: float  # the consumer's code had the tensor
    ended: float  # the producer had been told so


@dataclass(frozen=True, slots=True)
class Parts:
    """Seconds. They follow each other, and their sum is the time from push to arrival."""

    hand_over: float
    credit_wait: float
    wire: float
    verification: float
    arrival: float

    @property
    def total(self) -> float:
        return self.hand_over + self.credit_wait + self.wire + self.verification + self.arrival


def parts_of(seen: Round, pushed: Pushed, caught: Caught, verification: float) -> Parts:
    """Pieces are verified as they come, one by one: `verification`, what that takes, is taken out of the time on the
    wire."""
    return Parts(
        hand_over=pushed.asked - seen.pushed,
        credit_wait=pushed.placed - pushed.asked,
        wire=caught.received - pushed.placed - verification,
        verification=verification,
        arrival=seen.arrived - caught.received,
    )


@dataclass(frozen=True, slots=True)
class Profile:
    """Of all rounds with one size. Seconds, but for the CPU seconds per 10^9 bytes of each process."""

    size: int
    transport: str
    p50: float
    p99: float
    parts: Parts  # medians, each of its own
    acknowledged: float  # median of the time from push to the producer's hearing of its end
    cpu: Sequence[float]

    @property
    def rate(self) -> float:
        """10^9 bytes a second at the median."""
        return self.size / self.p50 / 1e9


def profile(
    size: int, transport: str, rounds: Sequence[Round], parts: Sequence[Parts], cpu: Sequence[float]
) -> Profile:
    """`cpu`: seconds that each process spent on all of the rounds."""
    totals = [seen.arrived - seen.pushed for seen in rounds]
    return Profile(
        size,
        transport,
        p50=percentile(totals, 50),
        p99=percentile(totals, 99),
        parts=Parts(*(percentile([getattr(p, field.name) for p in parts], 50) for field in fields(Parts))),
        acknowledged=percentile([seen.ended - seen.pushed for seen in rounds], 50),
        cpu=[seconds / (size * len(rounds) / 1e9) for seconds in cpu],
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed."""
    return sorted(values)[ceil(len(values) * percent / 100) - 1]
