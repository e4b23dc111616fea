"""The pipelines that are served, and whether a request fits the one it names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from omni_common.errors import InvalidRequest, OmniError, Reason, Unsupported, WrongTask
from omni_common.pipeline import PipelineConfig
from omni_common.request import GenerationParams, GenerationRequest, Media, Modality, Task
from omni_coordinator.core.bindings import Visit


@dataclass(frozen=True, slots=True)
class Course:
    """What a request asks of its pipeline: the stages it may visit in the order of the graph, and its terminals."""

    pipeline: PipelineConfig
    visits: tuple[Visit, ...]
    terminals: frozenset[str]
    request: GenerationRequest


class PipelineTable:
    """The served pipelines by name."""

    def __init__(self, pipelines: Iterable[PipelineConfig]) -> None:
        self.pipelines: Mapping[str, PipelineConfig] = {pipeline.name: pipeline for pipeline in pipelines}
        self._order = {name: _topological(pipeline) for name, pipeline in self.pipelines.items()}

    def plan(self, request: GenerationRequest) -> Course:
        """Raises OmniError when there is no such pipeline or the request asks for what it does not do."""
        pipeline = self.pipelines.get(request.model)
        if pipeline is None:
            raise OmniError(
                Reason.MODEL_NOT_FOUND,
                f"There is no model '{request.model[:80]}'; there is {_listing(self.pipelines)}.",
                param="model",
            )
        task = request.params.task
        if task not in pipeline.tasks:
            raise WrongTask(pipeline.name, task, (p.name for p in self.pipelines.values() if task in p.tasks))
        _check_input(pipeline, request)
        params = _checked(pipeline, request.params)
        visited = pipeline.visited(params.modalities)
        return Course(
            pipeline=pipeline,
            visits=tuple(visit for visit in self._order[pipeline.name] if visit.stage in visited),
            terminals=pipeline.terminals(params.modalities),
            request=replace(request, params=params),
        )


def _topological(pipeline: PipelineConfig) -> tuple[Visit, ...]:
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        stage = pipeline.stage(name)
        for target in (*reversed(stage.stream_to), *reversed(stage.to)):
            visit(target)
        order.insert(0, name)

    visit(pipeline.entry)
    sources = {name: {s.name for s in pipeline.stages if name in (*s.to, *s.stream_to)} for name in order}
    return tuple(Visit(name, frozenset(sources[name])) for name in order)


def _check_input(pipeline: PipelineConfig, request: GenerationRequest) -> None:
    for number, message in enumerate(request.messages):
        for place, part in enumerate(message.parts):
            if isinstance(part, Media) and part.modality not in pipeline.input_modalities:
                raise Unsupported(
                    f"Model '{pipeline.name}' takes {_listing(pipeline.input_modalities)}, not {part.modality}.",
                    param=part.param or f"messages[{number}].content[{place}]",
                )


def _checked(pipeline: PipelineConfig, params: GenerationParams) -> GenerationParams:
    if stray := params.modalities - pipeline.output_modalities:
        raise Unsupported(
            f"Model '{pipeline.name}' produces {_listing(pipeline.output_modalities)}, not {_listing(stray)}.",
            param="modalities",
        )
    if params.voice and pipeline.voices and params.voice not in pipeline.voices:
        raise InvalidRequest(
            f"Model '{pipeline.name}' has no such voice; it has {_listing(pipeline.voices)}.",
            param="audio.voice" if params.task is Task.CHAT else "voice",
        )
    if params.language and pipeline.languages and params.language not in pipeline.languages:
        raise InvalidRequest(
            f"Model '{pipeline.name}' does not know this language; it knows {_listing(pipeline.languages)}.",
            param="language",
        )
    for stage in params.stage_sampling:
        if stage not in pipeline.by_name:
            raise InvalidRequest(
                f"Model '{pipeline.name}' has no such stage; it has {', '.join(pipeline.by_name)}.",
                param=f"stage_sampling.{stage[:80]}",
            )
    wants_voice = Modality.AUDIO in params.modalities and not params.voice
    return replace(params, voice=pipeline.default_voice) if wants_voice else params


def _listing(names: Iterable[str], most: int = 50) -> str:
    """Voices of many speakers come by the hundred, and the message of a gRPC status has to fit into its trailers."""
    known = sorted(names)
    rest = f" and {len(known) - most} more" if len(known) > most else ""
    return (", ".join(known[:most]) or "none") + rest
