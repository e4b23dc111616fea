"""A transcript as server-sent events, segment by segment."""

from __future__ import annotations

from omni_common.request import Usage
from omni_gateway.call import Finished
from omni_gateway.http.sse import Json, sse
from omni_gateway.streaming import EventStream
from omni_gateway.tally import Batch, Tally
from omni_gateway.timings import timings_body


class TranscriptStream(EventStream):
    """`transcript.text.delta` for every segment, `transcript.text.done` at the end."""

    def __init__(self, tally: Tally, *, timings: bool) -> None:
        super().__init__(tally)
        self._deltas = Deltas()
        self._texts: list[str] = []
        self._timings = timings

    async def head(self) -> bytes:
        return b""

    async def render(self, batch: Batch) -> bytes:
        texts = [s.text for s in batch.segments]
        self._texts += texts
        deltas = map(self._deltas.cut, texts)
        return b"".join(sse({"type": "transcript.text.delta", "delta": d}) for d in deltas if d)

    async def tail(self, finished: Finished) -> bytes:
        done: Json = {
            "type": "transcript.text.done",
            "text": "".join(self._texts).strip(),
            "usage": _usage(finished.usage),
        }
        if self._timings:
            done["omni"] = timings_body(self.tally.request_id, finished.reports)
        return sse(done)


class Deltas:
    """Cuts pieces of text so that, joined, they are the whole text without the space around it."""

    def __init__(self) -> None:
        self._begun = False
        self._space = ""

    def cut(self, piece: str) -> str:
        """What can be told of the text by now; space at its end waits for what follows."""
        text = self._space + piece if self._begun else piece.lstrip()
        told = text.rstrip()
        self._space = text[len(told) :]
        self._begun = self._begun or bool(told)
        return told


def _usage(usage: Usage) -> Json:
    """In tokens: OpenAI's type of this event has no other."""
    prompt, completion = usage.prompt_tokens, usage.completion_text_tokens
    return {
        "type": "tokens",
        "input_tokens": prompt,
        "output_tokens": completion,
        "total_tokens": prompt + completion,
        "input_token_details": {
            "audio_tokens": usage.prompt_audio_tokens,
            "text_tokens": prompt - usage.prompt_audio_tokens,
        },
    }
