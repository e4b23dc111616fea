"""The model runner of say: a sequence that is known beforehand, one token a step."""

from __future__ import annotations

from collections.abc import Sequence

from omni_common.errors import Internal
from omni_common.request import RequestKey
from omni_stage.models.echo.request_builders import Speech, speech
from omni_stage.scheduler.ar_contract import Batch, NoCaches
from omni_stage.scheduler.contract import Emit, NewRequest, Outgoing, Result


class Speaker(NoCaches):
    """A `ModelRunner`."""

    def __init__(self) -> None:
        self._speeches: dict[RequestKey, tuple[Speech, int]] = {}

    def open(self, request: NewRequest) -> None:
        self._speeches[request.key] = (speech(request), 0)

    def feed(self, key: RequestKey, source: str, chunk: object) -> None:
        raise Internal(f"Stage 'say' has no stream in, but got a chunk from '{source}'.")

    def close_input(self, key: RequestKey, source: str) -> None:
        raise Internal(f"Stage 'say' has no stream in, but the one from '{source}' ended.")

    def ready(self, key: RequestKey) -> bool:
        return True

    def execute(self, batch: Batch) -> Sequence[Outgoing]:
        made: list[Outgoing] = []
        for key in (*batch.prefill, *batch.decode):
            made += self._step(key)
        return made

    def close(self, key: RequestKey) -> None:
        self._speeches.pop(key, None)

    def _step(self, key: RequestKey) -> Sequence[Outgoing]:
        said, at = self._speeches[key]
        word = said.word(at)
        if word.finish is None:
            self._speeches[key] = (said, at + 1)
            return (Emit(key, word),)
        self.close(key)
        return (Emit(key, word), Result(key, None))
