"""The text's terminal stage: tokens to whole characters, up to a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from omni_common.errors import Internal
from omni_common.request import GenerationParams, TextOutput
from omni_stage.models.qwen3_omni.callbacks import StopFilter, text_result
from omni_stage.models.qwen3_omni.components.tokens import Detokenizer, Vocabulary
from omni_stage.models.qwen3_omni.payload_types import TextEnd, TextTokens, expect


class TextSession:
    """One request in the decode stage."""

    def __init__(self, vocabulary: Vocabulary, params: GenerationParams) -> None:
        self._text = Detokenizer(vocabulary)
        self._stop = StopFilter(params.stop)
        self._end: TextEnd | None = None

    def push(self, source: str, chunks: Sequence[object]) -> Sequence[object]:
        text = ""
        for chunk in (expect(c, TextTokens) for c in chunks):
            self._end = chunk.end or self._end
            for token in chunk.ids:
                text += self._stop.push(self._text.push(token))
        return (TextOutput(text),) if text else ()

    def finish(self) -> tuple[Sequence[object], object]:
        if self._end is None:
            raise Internal("The thinker's tokens ended without an end.")
        rest = self._stop.push(self._text.finish()) + self._stop.finish()
        return (TextOutput(rest),) if rest else (), text_result(self._end)

    def close(self) -> None:
        """Holds nothing to free."""
