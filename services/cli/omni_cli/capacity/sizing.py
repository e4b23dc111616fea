"""Pure: how many replicas a load needs. Two laws, each of which gives a least number; the larger one holds.

* Utilisation: a process is busy (requests a second) × (seconds that its steps take for a request). Stages that share
  a process or a GPU share its time, so theirs add up. More than the wished utilisation is left to no replica.
* Little's law: (requests a second) × (seconds that one stays in the stage) requests are in a stage at once, and a
  replica has places for `max_running` of them, of which the same part is used.

What one request costs is taken as it was measured. Larger batches make it cheaper, so the numbers are on the safe side
where the measured load was lower than the planned one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StageShape:
    """Where a stage runs. Stages with the same `shares` have one GPU, or one process, together."""

    stage: str
    group: str
    shares: str
    max_running: int | None = None


@dataclass(frozen=True, slots=True)
class StageCost:
    """What one request of the pipeline costs a stage, be it visited by all of them or by some: seconds of steps, and
    seconds in a place. `steps`: of one visit. `batch`: the mean."""

    busy: float
    held: float
    steps: float
    batch: float


@dataclass(frozen=True, slots=True)
class Load:
    """`stretch`: how much longer answers are than the measured ones. `utilisation`: of a replica, at most."""

    requests_per_second: float
    stretch: float = 1.0
    utilisation: float = 0.7


@dataclass(frozen=True, slots=True)
class Bound:
    """One law's word: `amount` replicas' time or places, all of them used. `stages` share it."""

    stages: tuple[str, ...]
    amount: float
    places: bool
    per_request: float


@dataclass(frozen=True, slots=True)
class Need:
    """What a placement group needs. `bound` is what asks for the most; None where nothing of it was measured."""

    group: str
    replicas: int
    bound: Bound | None
    unmeasured: tuple[str, ...]


def needs(shapes: Sequence[StageShape], costs: Mapping[str, StageCost], load: Load) -> list[Need]:
    """Of each group, in the order of the stages."""
    groups: defaultdict[str, list[StageShape]] = defaultdict(list)
    for shape in shapes:
        groups[shape.group].append(shape)
    return [_need(group, of_group, costs, load) for group, of_group in groups.items()]


def _need(group: str, shapes: Sequence[StageShape], costs: Mapping[str, StageCost], load: Load) -> Need:
    measured = [shape for shape in shapes if shape.stage in costs]
    bounds = [*_times(measured, costs, load), *_places(measured, costs, load)]
    most = max(bounds, key=lambda bound: bound.amount, default=None)
    replicas = 1 if most is None else max(1, math.ceil(round(most.amount / load.utilisation, 6)))
    return Need(group, replicas, most, tuple(s.stage for s in shapes if s.stage not in costs))


def _times(shapes: Iterable[StageShape], costs: Mapping[str, StageCost], load: Load) -> Iterable[Bound]:
    shared: defaultdict[str, list[str]] = defaultdict(list)
    for shape in shapes:
        shared[shape.shares].append(shape.stage)
    for stages in shared.values():
        busy = sum(costs[stage].busy * _stretch(costs[stage], load) for stage in stages)
        yield Bound(tuple(stages), load.requests_per_second * busy, places=False, per_request=busy)


def _places(shapes: Iterable[StageShape], costs: Mapping[str, StageCost], load: Load) -> Iterable[Bound]:
    for shape in shapes:
        # A stage that does one thing at a time has no places: its time is all there is to it.
        if shape.max_running is not None and costs[shape.stage].steps > 1:
            held = costs[shape.stage].held * _stretch(costs[shape.stage], load)
            amount = load.requests_per_second * held / shape.max_running
            yield Bound((shape.stage,), amount, places=True, per_request=held)


def _stretch(cost: StageCost, load: Load) -> float:
    """What takes one step for a request, such as an encoder, takes it for a long answer too."""
    return load.stretch if cost.steps > 1 else 1.0
