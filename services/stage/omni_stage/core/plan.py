"""The static graph around one stage, narrowed to what one request may use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from omni_common.errors import Internal
from omni_common.pipeline import PipelineConfig
from omni_common.request import Envelope, GenerationParams
from omni_stage.core.events import CALLER

Route = Callable[[object], Collection[str]]
Project = Mapping[str, Callable[[object], object]]
StreamTo = Callable[[GenerationParams], Collection[str]]


@dataclass(frozen=True, slots=True)
class Plan:
    """`outflows`: the opening credit of each stream out. `window`: the credit given to each stream in."""

    stage: str
    replica: str
    terminal: bool
    payload_sources: frozenset[str]
    wait_for: frozenset[str]
    stream_sources: frozenset[str]
    window: int
    payload_targets: tuple[str, ...]
    stream_targets: frozenset[str]
    outflows: Mapping[str, int]
    route_of: Route | None = None
    project_of: Project = field(default_factory=dict)

    def route(self, value: object) -> Collection[str]:
        """The payload targets of this result. Raises Internal when the model's hook widens the graph."""
        if self.route_of is None:
            return self.payload_targets
        targets = self.route_of(value)
        if strays := set(targets) - set(self.payload_targets):
            raise Internal(f"Stage '{self.stage}' routes to {sorted(strays)}, which this request may not visit.")
        return targets

    def project(self, target: str, value: object) -> object:
        hook = self.project_of.get(target)
        return value if hook is None else hook(value)


ENTRY_SOURCE = "caller"
"""The source of the entry stage's payload."""


class Planner:
    """Makes the plan of each request for one stage of a pipeline."""

    def __init__(
        self,
        pipeline: PipelineConfig,
        stage: str,
        replica: str,
        *,
        route: Route | None = None,
        project: Project | None = None,
        stream_to: StreamTo | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._config = pipeline.stage(stage)
        self._replica = replica
        self._route = route
        self._project = project or {}
        self._stream_to = stream_to
        sources = {other.name for other in pipeline.stages if stage in other.to}
        if stage == pipeline.entry:
            sources.add(ENTRY_SOURCE)
        self._payload_sources = frozenset(sources)
        self._stream_sources = frozenset(other.name for other in pipeline.stages if stage in other.stream_to)

    def plan(self, envelope: Envelope) -> Plan:
        config = self._config
        visited = envelope.bindings.keys()
        streams: Collection[str] = config.stream_to
        if self._stream_to is not None:
            streams = self._stream_to(envelope.params)
            if strays := set(streams) - set(config.stream_to):
                raise Internal(f"Stage '{config.name}' streams to {sorted(strays)}, outside its declared edges.")
        outflows = {name: self._pipeline.stage(name).credits for name in streams if name in visited}
        if config.terminal is not None:
            outflows = {CALLER: envelope.output_credits}
        return Plan(
            stage=config.name,
            replica=self._replica,
            terminal=config.terminal is not None,
            payload_sources=self._payload_sources,
            wait_for=frozenset(config.wait_for),
            stream_sources=self._stream_sources & visited,
            window=config.credits,
            payload_targets=tuple(name for name in config.to if name in visited),
            stream_targets=frozenset(config.stream_to),
            outflows=outflows,
            route_of=self._route,
            project_of=self._project,
        )
