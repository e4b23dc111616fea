"""Rounds in turns: every measurement once in each round, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.load.relay.rounds import Round
from tests.load.relay.ways import Way
from tests.load.report import Series

WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Measurement:
    """A way, and how it is used: for which sizes, with how many messages under way on how many edges."""

    name: str
    way: Way
    least: int = 0
    most: int = 1 << 40
    at_once: int = 1
    edges: int = 1

    def fits(self, size: int) -> bool:
        return self.least <= size <= self.most

    def round(self, size: int, messages: int) -> Round:
        return Round(size, max(messages, self.at_once, self.way.messages), self.at_once, self.edges)


@dataclass(slots=True)
class Measured:
    """`cpu` is what all processes together used for a byte, in seconds, a round each."""

    seconds: Series = field(default_factory=Series)
    cpu: Series = field(default_factory=Series)


class Results:
    """What was measured, by the name of the measurement and the size of its messages."""

    def __init__(self) -> None:
        self._measured: dict[tuple[str, int], Measured] = {}

    def add(self, measurement: Measurement, round_: Round) -> None:
        seconds, cpu = measurement.way.measure(round_)
        measured = self._measured.setdefault((measurement.name, round_.size), Measured())
        measured.seconds.add(seconds)
        measured.cpu.add([cpu / (round_.size * round_.messages * round_.edges)])

    def seconds(self, name: str, size: int) -> Series:
        return self._measured[name, size].seconds

    def cpu(self, name: str, size: int) -> Series:
        return self._measured[name, size].cpu

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._measured))

    @property
    def sizes(self) -> list[int]:
        return sorted({size for _, size in self._measured})

    def has(self, name: str, size: int) -> bool:
        return (name, size) in self._measured


def measure(measurements: Sequence[Measurement], sizes: Mapping[int, int], rounds: int) -> Results:
    """`sizes` says how many messages of each size make a round."""
    results = Results()
    for size, messages in sizes.items():
        these = [measurement for measurement in measurements if measurement.fits(size)]
        for measurement in these:
            measurement.way.measure(measurement.round(size, WARM_UP))
        for _ in range(rounds):
            for measurement in these:
                results.add(measurement, measurement.round(size, messages))
    return results
