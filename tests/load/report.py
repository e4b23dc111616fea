"""How every measurement is taken and shown: rounds, medians, ratios within a round, one table.

Other work on the machine comes and goes in seconds. So what is compared is measured in turns, round by round, and a
ratio is made inside a round; what is printed is the median over the rounds.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles


@dataclass(slots=True)
class Series:
    """Seconds, in rounds. Rounds of two series with the same place were measured next to each other."""

    rounds: list[list[float]] = field(default_factory=list)

    def add(self, seconds: Sequence[float]) -> None:
        self.rounds.append(list(seconds))

    @property
    def p50(self) -> float:
        """The median of the rounds' medians."""
        return median(self.medians)

    @property
    def best(self) -> float:
        """The lowest of the rounds' medians: what the machine can do when left alone."""
        return min(self.medians)

    @property
    def p99(self) -> float:
        """Over all samples: a round has too few for a tail of its own."""
        samples = [sample for samples in self.rounds for sample in samples]
        return quantiles(samples, n=100, method="inclusive")[98] if len(samples) > 1 else samples[0]

    @property
    def medians(self) -> list[float]:
        return [median(samples) for samples in self.rounds]

    def ratio_to(self, other: Series) -> float:
        """The median over the rounds of this series' median by the other's."""
        return median(mine / theirs for mine, theirs in zip(self.medians, other.medians, strict=True))


def machine() -> str:
    """What the numbers were measured on, and how busy it was with other things before."""
    loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"{len(os.sched_getaffinity(0))} cores ({_processor()}), Python {platform.python_version()}, "
        f"load averages before {loads}, {time.strftime('%Y-%m-%d', time.gmtime())}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that can be read as it is: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(head), rule, *(line(row) for row in rows)])


def micros(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}"


def millis(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f}" if seconds < 0.1 else f"{seconds * 1e3:,.0f}"


def times(ratio: float) -> str:
    return f"{ratio:,.0f}x" if ratio >= 100 else f"{ratio:.2f}x"


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
