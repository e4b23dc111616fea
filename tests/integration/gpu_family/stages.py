"""A request says how many tensors there are to be and how long each; the answer is a word for each, in order."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tests.integration.gpu_family.config import PIPELINE
from tests.unit.stage.gpus import OnGpu
from tests.unit.stage.pair_process import made_of

from omni_common.request import FinishReason, GenerationRequest, RequestKey, TerminalResult, Text, TextOutput, Usage
from omni_common.tensor import DType, Tensor
from omni_stage.components.device_memory import bytes_of
from omni_stage.components.tensors import from_torch
from omni_stage.program import ModelFamily, StageContext, StageProgram
from omni_stage.scheduler.ar import ArScheduler
from omni_stage.scheduler.ar_contract import Batch, NoCaches
from omni_stage.scheduler.contract import Emit, NewRequest, Outgoing, Result
from omni_stage.scheduler.streaming import StreamScheduler


@dataclass(frozen=True)
class Made:
    number: int
    tensor: Tensor


def word(number: int, data: memoryview) -> str:
    return f"{number}:{data.nbytes}:{zlib.crc32(data):08x} "


def expected(count: int, length: int) -> str:
    return "".join(word(number, made_of(number, length).numpy().data) for number in range(count))


class Maker(NoCaches):
    """A `ModelRunner`: a tensor a step. `gpu` is set by the process: the name of one that is none, or the device of a
    real one."""

    gpu = ""

    def __init__(self) -> None:
        self._left: dict[RequestKey, tuple[int, int, int]] = {}

    def open(self, request: NewRequest) -> None:
        assert isinstance(request.payload, GenerationRequest)
        [part] = request.payload.messages[-1].parts
        assert isinstance(part, Text)
        count, length = map(int, part.text.split())
        self._left[request.key] = (0, count, length)

    def feed(self, key: RequestKey, source: str, chunk: object) -> None: ...

    def close_input(self, key: RequestKey, source: str) -> None: ...

    def ready(self, key: RequestKey) -> bool:
        return True

    def execute(self, batch: Batch) -> Sequence[Outgoing]:
        return [outgoing for key in (*batch.prefill, *batch.decode) for outgoing in self._step(key)]

    def close(self, key: RequestKey) -> None:
        self._left.pop(key, None)

    def _step(self, key: RequestKey) -> Sequence[Outgoing]:
        number, count, length = self._left[key]
        self._left[key] = (number + 1, count, length)
        emit = Emit(key, Made(number, self._tensor(number, length)))
        if number + 1 < count:
            return (emit,)
        self.close(key)
        return (emit, Result(key, None))

    def _tensor(self, number: int, length: int) -> Tensor:
        made = made_of(number, length)
        if self.gpu.startswith("cuda"):
            return from_torch(made.to(self.gpu))
        return Tensor(DType.UINT8, (length,), OnGpu(bytes_of(made), self.gpu))


class Checker:
    """A `Session`."""

    def __init__(self, request: NewRequest) -> None:
        self._tokens = 0

    def push(self, source: str, chunks: Sequence[object]) -> Sequence[object]:
        self._tokens += len(chunks)
        return [TextOutput(word(chunk.number, chunk.tensor.data)) for chunk in chunks if isinstance(chunk, Made)]

    def finish(self) -> tuple[Sequence[object], object]:
        return (), TerminalResult(FinishReason.STOP, Usage(completion_text_tokens=self._tokens))

    def close(self) -> None: ...


def make(context: StageContext) -> StageProgram:
    torch.set_num_threads(1)
    stage = context.stage
    return StageProgram(ArScheduler(Maker(), stage=stage.name, max_running=4, max_waiting=stage.max_waiting))


def check(context: StageContext) -> StageProgram:
    torch.set_num_threads(1)
    stage = context.stage
    return StageProgram(
        StreamScheduler(Checker, stage=stage.name, max_running=stage.max_running, max_waiting=stage.max_waiting)
    )


FAMILY = ModelFamily(pipeline=PIPELINE, factories={"make": make, "check": check}, payloads=[Made])
