"""A whole pipeline in one process: every stage's real scheduler and hooks, one stage after the other, no mesh.

Values cross from stage to stage through the payload codec, tensors above the inline limit as blobs, as they would.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from omni.common.v1.tensor_pb2 import BlobChunk
from omni_common.payload import PayloadCodec
from omni_common.pipeline import StageConfig
from omni_common.request import (
    AudioOutput,
    GenerationParams,
    GenerationRequest,
    Output,
    RequestKey,
    TerminalResult,
    TextOutput,
)
from omni_common.transfer import TensorReceiver, TensorSender
from omni_stage.program import ModelFamily, StageContext, StageProgram
from omni_stage.scheduler.contract import Chunk, Done, Failed, NewRequest, Result
from omni_stage.testing.answers import Answers

_CROSSING = "crossing"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the caller would have got, by terminal stage, and which stages worked for it."""

    visited: list[str] = field(default_factory=list)
    outputs: dict[str, list[Output]] = field(default_factory=dict)
    results: dict[str, TerminalResult] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "".join(o.text for outputs in self.outputs.values() for o in outputs if isinstance(o, TextOutput))

    @property
    def sound(self) -> list[AudioOutput]:
        return [o for outputs in self.outputs.values() for o in outputs if isinstance(o, AudioOutput)]


class OneProcess:
    """All stages of a family, started."""

    def __init__(
        self, family: ModelFamily, programs: Mapping[str, StageProgram], answers: Mapping[str, Answers]
    ) -> None:
        self._family = family
        self._programs = programs
        self._answers = answers
        self._codec = PayloadCodec(family.payloads)
        self._numbers = count(1)

    def run(self, request: GenerationRequest) -> Outcome:
        """Raises the OmniError of the stage that fails."""
        payloads: dict[str, dict[str, object]] = defaultdict(dict)
        streams: dict[str, dict[str, list[object]]] = defaultdict(dict)
        payloads[self._family.pipeline.entry]["caller"] = request
        outcome = Outcome()
        key = RequestKey(f"request-{next(self._numbers)}")
        for stage in self._family.pipeline.stages:
            if not payloads[stage.name] and not streams[stage.name]:
                continue
            outcome.visited.append(stage.name)
            joined = _joined(key, request.params, self._programs[stage.name], payloads[stage.name])
            chunks, value = self._serve(stage, joined, streams[stage.name])
            if stage.terminal is not None:
                outcome.outputs[stage.name] = [_output(chunk) for chunk in chunks]
                assert isinstance(value, TerminalResult)
                outcome.results[stage.name] = value
                continue
            for target in self._streams(stage, request.params):
                streams[target][stage.name] = [self._cross(chunk) for chunk in chunks]
            for target, payload in self._routed(stage, value):
                payloads[target][stage.name] = self._cross(payload)
        return outcome

    def _serve(
        self, stage: StageConfig, request: NewRequest, streams: Mapping[str, list[object]]
    ) -> tuple[Sequence[object], object]:
        scheduler, answers = self._programs[stage.name].scheduler, self._answers[stage.name]
        scheduler.submit(request)
        for source, chunks in streams.items():
            for chunk in chunks:
                scheduler.submit(Chunk(request.key, source, chunk))
            scheduler.submit(Done(request.key, source))
        end = answers.end_of(request.key)
        if isinstance(end, Failed):
            raise end.error
        assert isinstance(end, Result)
        return answers.chunks(request.key), end.value

    def _streams(self, stage: StageConfig, params: GenerationParams) -> Collection[str]:
        hook = self._programs[stage.name].stream_to
        return stage.stream_to if hook is None else hook(params)

    def _routed(self, stage: StageConfig, value: object) -> Iterator[tuple[str, object]]:
        program = self._programs[stage.name]
        for target in stage.to if program.route is None else program.route(value):
            project = program.project.get(target)
            yield target, value if project is None else project(value)

    def _cross(self, value: object) -> object:
        encoded = TensorSender().encode(self._codec, value, _CROSSING)
        receiver = TensorReceiver(None, 1 << 30, lambda _: None)
        for blob in encoded.blobs:
            data = bytes(blob.data)
            receiver.add(BlobChunk(blob=blob.id, request_id=_CROSSING, total_length=len(data), data=data))
        return receiver.decode(self._codec, encoded.payload)


@contextmanager
def one_process(family: ModelFamily, model: Path | None = None, *, dtype: str = "float32") -> Iterator[OneProcess]:
    answers = {stage.name: Answers() for stage in family.pipeline.stages}
    contexts = [context(family, stage, model, dtype) for stage in family.pipeline.stages]
    programs = {context.stage.name: family.factories[context.stage.name](context) for context in contexts}
    try:
        for name, program in programs.items():
            program.scheduler.start(answers[name])
        yield OneProcess(family, programs, answers)
    finally:
        for program in programs.values():
            program.scheduler.stop()


def context(family: ModelFamily, stage: StageConfig, model: Path | None, dtype: str = "float32") -> StageContext:
    return StageContext(
        pipeline=family.pipeline,
        stage=stage,
        model=model,
        device="cpu",
        dtype=dtype,
        threads=1,
        progress=lambda done, total: None,
    )


def _joined(
    key: RequestKey, params: GenerationParams, program: StageProgram, payloads: Mapping[str, object]
) -> NewRequest:
    if program.merge is None:
        return NewRequest(key, params, next(iter(payloads.values()), None))
    assert program.needs is not None
    needs = [program.needs(source, payload) for source, payload in payloads.items()]
    said = [set(needed) for needed in needs if needed is not None]
    assert said == [payloads.keys()], f"{said} are to be joined, but {sorted(payloads)} came"
    return NewRequest(key, params, program.merge(payloads))


def _output(chunk: object) -> Output:
    assert isinstance(chunk, Output)
    return chunk
