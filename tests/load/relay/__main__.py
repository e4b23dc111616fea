"""The relay and the arena against their bars: `python -m tests.load.relay`, or only the ways that are named after it.

One transfer at a time is timed at the sender from having the tensor to the receiver's word that it has it. Everything
of the sending side runs on one core and everything of the receiving side on another; the two pods are two network
namespaces joined by a veth pair, so nothing here says anything about a network card. Bytes come from memory that no
cache holds and go to such memory, on all ways alike. All processes of all ways live through the whole run; a round
asks each of them in turn, ratios are made inside a round, and what is printed is the median over the rounds.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.lab.netns import Wire, missing, two_nodes
from tests.load.relay import ways
from tests.load.relay.bars import EDGE_BYTES, EIGHT_EDGES, ONE_EDGE, ONE_HOST_BUSY, verdicts
from tests.load.relay.measure import Measurement, Results, measure
from tests.load.relay.one_host import CREDITS
from tests.load.relay.ways import KB, MB, Way, open_ways
from tests.load.report import machine, micros, table

# Bytes of a message, and how many of them make a round.
SIZES: Mapping[int, int] = {64: 100, 4 * KB: 100, 64 * KB: 100, MB: 30, 16 * MB: 8, 256 * MB: 3}
EDGE_SIZES: Mapping[int, int] = {EDGE_BYTES: 25}
ROUNDS = 7
# What each of eight edges, or one, has under way.
UNDER_WAY = 2


@contextmanager
def the_wire() -> Iterator[Wire | None]:
    """Two nodes, or None where there can be none."""
    if missing():
        yield None
    else:
        with two_nodes() as wire:
            yield wire


def measurements(every: Mapping[str, Way]) -> list[Measurement]:
    """One message at a time on each way, and as many as SGLang-Omni's design can have under way on its own."""
    alone = [Measurement(name, way, way.least, way.most) for name, way in every.items() if name != ways.EDGES]
    one_host = every.get(ways.ONE_HOST)
    return [*alone, Measurement(ONE_HOST_BUSY, one_host, at_once=CREDITS)] if one_host else alone


def edge_measurements(every: Mapping[str, Way]) -> list[Measurement]:
    way = every.get(ways.EDGES)
    if way is None:
        return []
    one = Measurement(ONE_EDGE, way, at_once=UNDER_WAY)
    return [one, Measurement(EIGHT_EDGES, way, at_once=UNDER_WAY, edges=8)]


@dataclass(frozen=True, slots=True)
class Scope:
    """How much is measured. `names` are those of ways, () for all; sizes say how many messages make a round."""

    names: Collection[str] = ()
    sizes: Mapping[int, int] = field(default_factory=lambda: SIZES)
    edge_sizes: Mapping[int, int] = field(default_factory=lambda: EDGE_SIZES)
    rounds: int = ROUNDS


def run(folder: Path, scope: Scope) -> tuple[Results, Results]:
    """What one message at a time takes, and what many edges at once do."""
    with the_wire() as wire, open_ways(folder, wire, scope.names) as every:
        alone = measure(measurements(every), scope.sizes, scope.rounds)
        return alone, measure(edge_measurements(every), scope.edge_sizes, scope.rounds)


def show_times(results: Results) -> str:
    """Microseconds of every way at every size."""
    rows = [
        [name, *(micros(results.seconds(name, size).p50) if results.has(name, size) else "" for size in results.sizes)]
        for name in results.names
    ]
    return table(["microseconds, p50", *map(in_bytes, results.sizes)], rows)


def show_bars(*all_results: Results) -> str:
    head = ["path", "size", "against", "measured", "bar", "held"]
    rows = []
    for results in all_results:
        for verdict in verdicts(results):
            bar = verdict.bar
            held = "yes" if verdict.held else "NO"
            rows.append([bar.path, in_bytes(verdict.size), bar.against, bar.show(verdict.value), bar.limit, held])
    return table(head, rows)


def in_bytes(size: int) -> str:
    for unit, name in ((MB, "MB"), (KB, "KB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def main() -> None:
    print(f"Tensors within a pod and between pods ({ROUNDS} rounds). {machine()}.\n")
    if why := missing():
        print(f"Without two nodes, both pods are on this machine's loopback: {why}.\n")
    with TemporaryDirectory(dir="/dev/shm", prefix="omni-bench-") as folder:
        alone, edges = run(Path(folder), Scope(sys.argv[1:]))
    print(show_times(alone), "\n")
    print(show_bars(alone, edges))


if __name__ == "__main__":
    main()
