"""Bodies as OpenAI's own types read them."""

from __future__ import annotations

import orjson
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from omni_common.request import FinishReason, StageReport, Usage
from omni_gateway.chat.chunks import Completion, Speech, new_audio_id, usage_body
from omni_gateway.http.sse import sse
from omni_gateway.timings import timings_body

COMPLETION = Completion("chatcmpl-1", "m", 1_700_000_000)
USAGE = Usage(10, 2, 3, 4, 5, prompt_cached_tokens=6)


def test_a_text_answer_has_every_key_that_openapi_requires() -> None:
    body = COMPLETION.whole(text="hi", speech=None, finish=FinishReason.STOP, usage=USAGE)
    ChatCompletion.model_validate(body, strict=True)
    assert body == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi", "refusal": None, "annotations": []},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": usage_body(USAGE),
    }


def test_a_spoken_answer_has_its_text_as_transcript_only() -> None:
    speech = Speech("audio_1", "AAAA", 9)
    body = COMPLETION.whole(text="hi", speech=speech, finish=FinishReason.LENGTH, usage=USAGE)
    message = ChatCompletion.model_validate(body, strict=True).choices[0].message
    assert message.content is None
    assert message.audio is not None
    assert message.audio.model_dump() == {"id": "audio_1", "data": "AAAA", "expires_at": 9, "transcript": "hi"}


def test_usage_adds_up() -> None:
    assert usage_body(USAGE) == {
        "prompt_tokens": 10,
        "completion_tokens": 9,
        "total_tokens": 19,
        "prompt_tokens_details": {"audio_tokens": 2, "cached_tokens": 6, "image_tokens": 3, "text_tokens": 5},
        "completion_tokens_details": {
            "accepted_prediction_tokens": 0,
            "audio_tokens": 5,
            "reasoning_tokens": 0,
            "rejected_prediction_tokens": 0,
            "text_tokens": 4,
        },
    }


def test_chunks_announce_usage_only_when_it_comes() -> None:
    assert COMPLETION.chunk({"content": "a"}, announce_usage=True)["usage"] is None
    assert "usage" not in COMPLETION.chunk({"content": "a"})
    usage = COMPLETION.usage_chunk(USAGE)
    assert usage["choices"] == []
    ChatCompletionChunk.model_validate(usage, strict=True)


def test_an_event_is_one_line_whatever_the_text() -> None:
    event = sse(COMPLETION.chunk({"content": "a\r\n\n b\u2028c"}))
    assert event.count(b"\n") == 2
    assert b"\r" not in event
    assert orjson.loads(event[6:])["choices"][0]["delta"]["content"] == "a\r\n\n b\u2028c"


def test_timings_come_in_the_order_in_which_stages_began() -> None:
    reports = [StageReport("b", "b-0", 2, 3, 4), StageReport("a", "a-0", 1, 2, 3)]
    stages = timings_body("r", reports)["stages"]
    assert isinstance(stages, list)
    assert [stage["stage"] for stage in stages] == ["a", "b"]


def test_audio_ids_cannot_be_guessed() -> None:
    assert len({new_audio_id() for _ in range(100)}) == 100
    assert len(new_audio_id()) == len("audio_") + 32
