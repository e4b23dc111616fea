"""All stages of a pipeline in one process, joined by the rules of the stage shell but without any wire.

What the mesh adds is measured against this, and what the stages compute is compared with the reference here first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from omni_common.errors import OmniError
from omni_common.request import AudioOutput, GenerationRequest, Output, RequestKey, TerminalResult, TextOutput
from omni_stage.program import PREFIX_CACHE, ModelFamily, StageContext, StageProgram
from omni_stage.scheduler.contract import Chunk, Done, Dropped, Emit, Failed, Load, NewRequest, Outgoing, Result


@dataclass
class Answer:
    """What a request came to."""

    outputs: list[tuple[str, Output]] = field(default_factory=list)
    chunks: list[tuple[str, object]] = field(default_factory=list)
    results: dict[str, TerminalResult] = field(default_factory=dict)
    error: OmniError | None = None
    over: threading.Event = field(default_factory=threading.Event)
    speaking: threading.Event = field(default_factory=threading.Event)
    dropped: set[str] = field(default_factory=set)

    @property
    def text(self) -> str:
        return "".join(o.text for _, o in self.outputs if isinstance(o, TextOutput))

    @property
    def pcm(self) -> bytes:
        return b"".join(o.pcm for _, o in self.outputs if isinstance(o, AudioOutput))


@dataclass
class _Live:
    request: GenerationRequest
    answer: Answer
    joined: dict[str, dict[str, object]] = field(default_factory=dict)
    wanted: dict[str, Collection[str]] = field(default_factory=dict)


class InProcess:
    """Runs requests through a family's programs; a context manager, because schedulers have threads."""

    def __init__(
        self,
        family: ModelFamily,
        model: Path | None,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        prefix_cache: int = PREFIX_CACHE,
    ) -> None:
        self._pipeline = family.pipeline
        self._lock = threading.RLock()
        self._live: dict[RequestKey, _Live] = {}
        self._programs: Mapping[str, StageProgram] = {
            stage.name: family.factories[stage.name](
                StageContext(
                    family.pipeline,
                    stage,
                    model,
                    device,
                    dtype,
                    1,
                    lambda done, total: None,
                    prefix_cache=prefix_cache,
                )
            )
            for stage in family.pipeline.stages
        }

    def __enter__(self) -> Self:
        for name, program in self._programs.items():
            if program.warm_up is not None:
                program.warm_up()
            program.scheduler.start(self._outbox(name))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for program in self._programs.values():
            program.scheduler.stop()

    def submit(self, name: str, request: GenerationRequest) -> Answer:
        key = RequestKey(name)
        with self._lock:
            live = self._live[key] = _Live(request, Answer())
            for stage in self._pipeline.visited(request.params.modalities):
                if not self._feeds(stage):
                    self._programs[stage].scheduler.submit(NewRequest(key, request.params, None))
            self._programs[self._pipeline.entry].scheduler.submit(NewRequest(key, request.params, request))
        return live.answer

    def run(self, request: GenerationRequest, *, timeout: float = 50.0) -> Answer:
        answer = self.submit("alone", request)
        assert answer.over.wait(timeout)
        return answer

    def abort(self, name: str) -> None:
        """Drops a request that every stage has begun. It is over when all have said that they dropped it."""
        for program in self._programs.values():
            program.scheduler.abort(RequestKey(name))

    def loads(self) -> Mapping[str, Load]:
        return {name: program.scheduler.load() for name, program in self._programs.items()}

    def _feeds(self, stage: str) -> bool:
        """Whether the stage is begun by a payload, the caller's included."""
        return stage == self._pipeline.entry or any(stage in s.to for s in self._pipeline.stages)

    def _outbox(self, stage: str) -> Callable[[Sequence[Outgoing]], None]:
        def post(items: Sequence[Outgoing]) -> None:
            with self._lock:
                for item in items:
                    if (live := self._live.get(item.key)) is not None:
                        self._take(stage, live, item)

        return post

    def _take(self, stage: str, live: _Live, item: Outgoing) -> None:
        match item:
            case Emit(key, chunk, to):
                live.answer.chunks.append((stage, chunk))
                if isinstance(chunk, TextOutput | AudioOutput):
                    live.answer.outputs.append((stage, chunk))
                if isinstance(chunk, AudioOutput):
                    live.answer.speaking.set()
                for target in to or self._streams(stage, live):
                    self._programs[target].scheduler.submit(Chunk(key, stage, chunk))
            case Result(key, value):
                for target in self._streams(stage, live):
                    self._programs[target].scheduler.submit(Done(key, stage))
                if isinstance(value, TerminalResult):
                    self._end(key, live, stage, value)
                elif value is not None:
                    self._pass_on(key, live, stage, value)
            case Dropped(key):
                live.answer.dropped.add(stage)
                if live.answer.dropped == set(self._programs):
                    del self._live[key]
                    live.answer.over.set()
            case Failed(key, error):
                live.answer.error = error
                del self._live[key]
                for program in self._programs.values():
                    program.scheduler.abort(key)
                live.answer.over.set()

    def _streams(self, stage: str, live: _Live) -> Collection[str]:
        config, hook = self._pipeline.stage(stage), self._programs[stage].stream_to
        return config.stream_to if hook is None else hook(live.request.params)

    def _pass_on(self, key: RequestKey, live: _Live, stage: str, value: object) -> None:
        program = self._programs[stage]
        targets = self._pipeline.stage(stage).to if program.route is None else program.route(value)
        for target in targets:
            project = program.project.get(target)
            self._join(key, live, stage, target, value if project is None else project(value))

    def _join(self, key: RequestKey, live: _Live, source: str, target: str, payload: object) -> None:
        program = self._programs[target]
        if self._pipeline.stage(target).wait_for and program.merge is not None and program.needs is not None:
            got = live.joined.setdefault(target, {})
            got[source] = payload
            if (wanted := program.needs(source, payload)) is not None:
                live.wanted[target] = wanted
            if not set(live.wanted.get(target, (source, ""))) <= set(got):
                return
            payload = program.merge(got)
        program.scheduler.submit(NewRequest(key, live.request.params, payload))

    def _end(self, key: RequestKey, live: _Live, stage: str, result: TerminalResult) -> None:
        live.answer.results[stage] = result
        if set(live.answer.results) == self._pipeline.terminals(live.request.params.modalities):
            del self._live[key]
            live.answer.over.set()
