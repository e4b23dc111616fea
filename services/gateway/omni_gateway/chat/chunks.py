"""The bodies of answers, exactly as OpenAI's published types want them. Pure."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from omni_common.request import FinishReason, Usage
from omni_gateway.http.sse import Json


def new_audio_id() -> str:
    """Hard to guess: whoever knows it can replay what was said."""
    return f"audio_{secrets.token_hex(16)}"


def usage_body(usage: Usage) -> Json:
    """Speech counts as completion tokens, as it does for OpenAI."""
    completion = usage.completion_text_tokens + usage.completion_audio_tokens
    media = usage.prompt_audio_tokens + usage.prompt_image_tokens
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": usage.prompt_tokens + completion,
        "prompt_tokens_details": {
            "audio_tokens": usage.prompt_audio_tokens,
            "cached_tokens": usage.prompt_cached_tokens,
            "image_tokens": usage.prompt_image_tokens,
            "text_tokens": max(0, usage.prompt_tokens - media),
        },
        "completion_tokens_details": {
            "accepted_prediction_tokens": 0,
            "audio_tokens": usage.completion_audio_tokens,
            "reasoning_tokens": 0,
            "rejected_prediction_tokens": 0,
            "text_tokens": usage.completion_text_tokens,
        },
    }


@dataclass(frozen=True, slots=True)
class Speech:
    """Speech of a whole answer, in the caller's format, as base64."""

    id: str
    data: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Completion:
    """What is the same in every body of one answer."""

    id: str
    model: str
    created: int

    def whole(self, *, text: str, speech: Speech | None, finish: FinishReason, usage: Usage) -> Json:
        """The body of a unary answer. With speech the text is its transcript and `content` is null."""
        message: Json = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        if speech is not None:
            message["content"] = None
            message["audio"] = {
                "id": speech.id,
                "data": speech.data,
                "expires_at": speech.expires_at,
                "transcript": text,
            }
        choice = {"index": 0, "message": message, "finish_reason": str(finish), "logprobs": None}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage_body(usage)}

    def chunk(self, delta: Json, *, finish: FinishReason | None = None, announce_usage: bool = False) -> Json:
        """One chunk of a stream. With `announce_usage` it says that the usage is still to come."""
        finish_reason = None if finish is None else str(finish)
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        body: Json = {**self._head("chat.completion.chunk"), "choices": [choice]}
        if announce_usage:
            body["usage"] = None
        return body

    def usage_chunk(self, usage: Usage) -> Json:
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage_body(usage)}

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}
