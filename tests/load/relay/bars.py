"""The bars: what the relay and the arena are held to, each against a limit that was measured in the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.load.relay import ways
from tests.load.relay.measure import Results
from tests.load.relay.ways import KB, MB
from tests.load.report import Series, micros, times

EDGE_BYTES = 4 * MB
ONE_EDGE, EIGHT_EDGES = "relay, 1 edge", "relay, 8 edges"
ONE_HOST_BUSY = "SGLang-Omni's design, 2 at once"


def in_micros(seconds: float) -> str:
    return f"{micros(seconds)} µs"


# The smallest message: a frame with nothing in it that would have to be moved.
_FRAME_BYTES = 64

Value = Callable[[Results, int], float]


@dataclass(frozen=True, slots=True)
class Bar:
    """`value` at each size from `least` to `most` is at least, or at most, the limit. It needs those measurements."""

    path: str
    against: str
    value: Value
    needs: tuple[str, ...]
    floor: float | None = None
    ceiling: float | None = None
    least: int = 0
    most: int = 1 << 40
    show: Callable[[float], str] = times

    def holds(self, value: float) -> bool:
        return (self.floor is None or value >= self.floor) and (self.ceiling is None or value <= self.ceiling)

    @property
    def limit(self) -> str:
        return f"≥ {self.show(self.floor)}" if self.floor is not None else f"≤ {self.show(self.ceiling or 0.0)}"


def _speed(ours: str, theirs: str) -> Value:
    """How many times as fast as theirs."""
    return lambda results, size: results.seconds(theirs, size).ratio_to(results.seconds(ours, size))


def _time(ours: str, theirs: str) -> Value:
    """How many times their time."""
    return lambda results, size: results.seconds(ours, size).ratio_to(results.seconds(theirs, size))


def _cpu(ours: str, theirs: str) -> Value:
    return lambda results, size: results.cpu(ours, size).ratio_to(results.cpu(theirs, size))


def _beyond(whole: str, part: str, part_size: int) -> Value:
    """Seconds that the whole takes more than the part."""

    def value(results: Results, size: int) -> float:
        pairs = zip(results.seconds(whole, size).medians, results.seconds(part, part_size).medians, strict=True)
        return Series([[whole - part] for whole, part in pairs]).p50

    return value


def _total(results: Results, size: int) -> float:
    """The bandwidth of all eight edges together by that of one alone."""
    return Series(
        [
            [sum(1 / each for each in eight) * one[0]]
            for eight, one in zip(
                results.seconds(EIGHT_EDGES, size).rounds, results.seconds(ONE_EDGE, size).rounds, strict=True
            )
        ]
    ).p50


def _slowest(results: Results, size: int) -> float:
    """The bandwidth of the slowest of eight edges by that of one alone."""
    rounds = zip(results.seconds(EIGHT_EDGES, size).rounds, results.seconds(ONE_EDGE, size).rounds, strict=True)
    return Series([[one[0] / max(eight)] for eight, one in rounds]).p50


def _fast(path: str, ours: str, theirs: str, floor: float, least: int, most: int = 1 << 40) -> Bar:
    return Bar(path, theirs, _speed(ours, theirs), (ours, theirs), floor=floor, least=least, most=most)


def _in_pod(how: str, copied: str, moved: str) -> tuple[Bar, ...]:
    return (
        _fast(f"in the pod, one copy in, {how}", copied, ways.MEMCPY, 0.7, 16 * MB),
        _fast(f"in the pod, viewed, {how}", copied, ways.ONE_HOST, 10.0, MB),
        _fast(f"in the pod, copied out, {how}", moved, ways.ONE_HOST, 5.0, MB),
        _fast(f"in the pod, small, {how}", moved, ways.ONE_HOST, 3.0, 4 * KB, 4 * KB),
    )


def _control(theirs: str) -> Bar:
    value = _time(ways.FRAMES_CONTROL, theirs)
    needs = ways.FRAMES_CONTROL, theirs
    return Bar("control round trip", theirs, value, needs, ceiling=1.3, most=_FRAME_BYTES)


def _lean(ours: str) -> Bar:
    return Bar("processor time per byte", ways.RAW, _cpu(ours, ways.RAW), (ours, ways.RAW), ceiling=1.2, least=16 * MB)


BARS = (
    Bar(
        "in the pod, in place, beyond the frame",
        "the frame alone",
        _beyond(ways.FRAMES_PLACED, ways.FRAMES_PLACED, _FRAME_BYTES),
        (ways.FRAMES_PLACED,),
        ceiling=50e-6,
        least=MB,
        show=in_micros,
    ),
    Bar(
        "in the pod, in place, arena alone",
        ways.BARE,
        _time(ways.ARENA_PLACED, ways.BARE),
        (ways.ARENA_PLACED, ways.BARE),
        ceiling=2.0,
    ),
    *_in_pod("arena alone", ways.ARENA_COPIED, ways.ARENA_MOVED),
    *_in_pod("by frames", ways.FRAMES_COPIED, ways.FRAMES_MOVED),
    _control(ways.ZMQ),
    _control(ways.ZMQ_UVLOOP),
    _fast("between pods, TCP", ways.RELAY, ways.RAW, 0.6, MB, MB),
    _fast("between pods, TCP", ways.RELAY, ways.RAW, 0.9, 16 * MB),
    _fast("between pods, xxh3", ways.RELAY_XXH3, ways.RAW, 0.8, 16 * MB),
    _fast("between pods, AEAD", ways.RELAY_AEAD, ways.RAW, 0.65, 16 * MB),
    _fast("between pods, TLS", ways.RELAY_TLS, ways.RAW_TLS, 0.9, 16 * MB),
    _fast("between pods, xxh3", ways.RELAY_XXH3, ways.GRPC, 1.5, MB),
    _lean(ways.RELAY),
    Bar("8 edges, total", ONE_EDGE, _total, (ONE_EDGE, EIGHT_EDGES), floor=0.9),
    Bar("8 edges, slowest", ONE_EDGE, _slowest, (ONE_EDGE, EIGHT_EDGES), floor=1 / 12),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    bar: Bar
    size: int
    value: float

    @property
    def held(self) -> bool:
        return self.bar.holds(self.value)


def verdicts(results: Results) -> Iterator[Verdict]:
    """For every bar and every size of it that was measured."""
    for bar in BARS:
        for size in results.sizes:
            if bar.least <= size <= bar.most and all(results.has(name, size) for name in bar.needs):
                yield Verdict(bar, size, bar.value(results, size))
