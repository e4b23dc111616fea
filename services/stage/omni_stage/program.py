"""What a model's folder gives the stage service for each of its stages: a scheduler and the pure hooks around it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import GenerationParams
from omni_stage.scheduler.contract import Scheduler
from omni_stage.tensor_parallel.rank import Following, Leading, Rank

PREFIX_CACHE = 256 << 20
"""Bytes of prompts' beginnings that an autoregressive stage keeps, unless it is told otherwise."""

Progress = Callable[[int, int], None]
"""Called as weights are read: (tensors loaded, tensors in all)."""


class Space(Protocol):
    """Where a stage makes tensors that leave it."""

    def allocate(self, length: int) -> memoryview | None:
        """So many bytes from which a tensor leaves without a copy, from any thread; they are given back when the last
        view of them is gone. None where there are none just now, or for so few: then any memory is as good. What is
        in them must not change once it has been sent."""


class NoSpace:
    """A stage without an arena."""

    def allocate(self, length: int) -> memoryview | None:
        return None


@dataclass(frozen=True, slots=True)
class StageContext:
    """All that a stage's factory may use.

    The payloads that the stage is given afterwards are read-only, with the tensors in them: they may lie in memory
    that others look at, or be the very values that another stage of this process has made and uses still. For the same
    reason what it hands over must not change any more.

    `rank` is this process's part where the model is spread over several; `leading` is there at rank 0 of several.
    """

    pipeline: PipelineConfig
    stage: StageConfig
    model: Path | None
    device: str
    dtype: str
    threads: int
    progress: Progress
    tensors: Space = field(default_factory=NoSpace)
    rank: Rank = field(default_factory=Rank)
    leading: Leading | None = None
    prefix_cache: int = PREFIX_CACHE


@dataclass(frozen=True, slots=True)
class StageProgram:
    """One stage of a model, ready to run.

    The hooks are pure. `route(value)` names the payload targets of this result, all of `to` by default;
    `project[target](value)` makes the payload for one target; `stream_to(params)` narrows the chunk targets;
    `needs(source, payload)` says which of `wait_for` this request joins, or None while it cannot tell;
    `merge({source: payload})` joins them. A chunk of a terminal stage is an `Output`.
    `warm_up` runs the model once before the stage takes traffic.
    """

    scheduler: Scheduler
    route: Callable[[object], Collection[str]] | None = None
    project: Mapping[str, Callable[[object], object]] = field(default_factory=dict)
    stream_to: Callable[[GenerationParams], Collection[str]] | None = None
    needs: Callable[[str, object], Collection[str] | None] | None = None
    merge: Callable[[Mapping[str, object]], object] | None = None
    warm_up: Callable[[], None] | None = None


StageFactory = Callable[[StageContext], StageProgram]

FollowerFactory = Callable[[StageContext, Following], Callable[[], None]]
"""Loads a follower's part of a stage's model; what it gives obeys rank 0 until rank 0 has ended."""


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """A model folder's public face: `FAMILY` in its `stages.py`.

    `pipeline` is the family's graph, `factories` builds each stage, `payloads` are the types that may cross its edges.
    `followers` builds the other ranks of the stages that can be spread over several.
    """

    pipeline: PipelineConfig
    factories: Mapping[str, StageFactory]
    payloads: Sequence[type]
    followers: Mapping[str, FollowerFactory] = field(default_factory=dict)
