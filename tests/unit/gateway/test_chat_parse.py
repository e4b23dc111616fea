"""From a body to a request of the mesh."""

from __future__ import annotations

import base64

import orjson
import pytest

from omni_common.errors import OmniError, Reason
from omni_common.request import GenerationRequest, Media, Modality, Role, Sampling, Text
from omni_common.testing.clock import ManualClock
from omni_common.testing.scripts import pipeline_status
from omni_gateway.chat.parse import build_request, parse_body
from omni_gateway.chat.transcripts import Transcripts
from omni_gateway.pipelines import parse_pipeline

PIPELINE = parse_pipeline(pipeline_status("m"))
USER = {"role": "user", "content": "hi"}


def request_of(**fields: object) -> GenerationRequest:
    transcripts = Transcripts(clock=ManualClock(), lifetime=60)
    body = orjson.dumps({"model": "m", "messages": [USER], **fields})
    return build_request(parse_body(body), PIPELINE, transcripts)


def refusal_of(**fields: object) -> OmniError:
    with pytest.raises(OmniError) as caught:
        request_of(**fields)
    return caught.value


def parts(*content: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": list(content)}]}


def image(url: object) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({name: value}, name, id=name)
        for name, value in {
            "tools": [],
            "tool_choice": "none",
            "functions": [],
            "function_call": "auto",
            "parallel_tool_calls": True,
            "response_format": {"type": "json_schema", "json_schema": {"name": "x"}},
            "logprobs": True,
            "top_logprobs": 3,
            "n": 2,
            "logit_bias": {"50256": -100},
            "frequency_penalty": 0.5,
            "presence_penalty": -0.5,
            "prediction": {"type": "content", "content": "x"},
            "web_search_options": {},
            "reasoning_effort": "low",
            "verbosity": "low",
            "store": True,
            "service_tier": "priority",
            "request_id": "mine",
        }.items()
    ],
)
def test_what_is_not_served_is_refused_by_name(fields: dict[str, object], param: str) -> None:
    refusal = refusal_of(**fields)
    assert (refusal.reason, refusal.param) == (Reason.UNSUPPORTED, param)
    assert (refusal.surface.http, refusal.surface.code) == (400, "unsupported_parameter")


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "logprobs": False, "top_logprobs": 0, "logit_bias": {}, "store": False},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "response_format": {"type": "text"}},
        {"service_tier": "default", "user": "u", "safety_identifier": "s", "prompt_cache_key": "k"},
        {"metadata": {"a": "b"}},
        {"tools": None, "tool_choice": None, "logprobs": None, "n": None, "temperature": None, "audio": None},
    ],
)
def test_what_asks_for_nothing_special_is_accepted(fields: dict[str, object]) -> None:
    assert request_of(**fields) == request_of()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 3}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0].role"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [USER, {"role": "alien", "content": "hi"}]}, "messages[1].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (parts({"type": "text"}), "messages[0].content[0].text"),
        (parts({"type": "text", "text": "a"}, {"type": "hologram"}), "messages[0].content[1].type"),
        (parts({"type": "image_url"}), "messages[0].content[0].image_url"),
        (parts(image(None)), "messages[0].content[0].image_url.url"),
        (parts(image(1)), "messages[0].content[0].image_url.url"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"seed": 2**63}, "seed"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": 2**40}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": [""]}, "stop[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"modalities": []}, "modalities"),
        ({"modalities": ["video"]}, "modalities[0]"),
        ({"modalities": ["audio"]}, "audio"),
        ({"audio": {"format": "wav"}}, "audio"),
        ({"modalities": ["audio"], "audio": {"format": "midi"}}, "audio.format"),
        ({"modalities": ["audio"], "audio": {"format": "wav", "voice": "nobody"}}, "audio.voice"),
        ({"stage_sampling": {"thinker": {"temperature": 9}}}, "stage_sampling.thinker.temperature"),
        ({"stage_sampling": {"cellar": {}}}, "stage_sampling"),
        ({"metadata": {"a": 1}}, "metadata.a"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(fields: dict[str, object], param: str) -> None:
    refusal = refusal_of(**fields)
    assert (refusal.reason, refusal.param) == (Reason.INVALID_REQUEST, param)
    assert refusal.code
    assert refusal.message.endswith(".")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "tool", "content": "x", "tool_call_id": "1"}, "messages[0].role"),
        ({"role": "function", "content": "x", "name": "f"}, "messages[0].role"),
        ({"role": "assistant", "content": None, "tool_calls": [{}]}, "messages[0].tool_calls"),
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, "messages[0].content[0].type"),
        ({"role": "system", "content": [{"type": "file", "file": {}}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": "x", "cache_control": {}}, "messages[0].cache_control"),
    ],
)
def test_messages_that_openai_knows_and_we_do_not_are_unsupported(message: dict[str, object], param: str) -> None:
    refusal = refusal_of(messages=[message])
    assert (refusal.reason, refusal.param) == (Reason.UNSUPPORTED, param)


def test_the_roles_and_the_content_of_a_conversation_arrive() -> None:
    request = request_of(
        messages=[
            {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "developer", "content": "c"},
            {"role": "user", "content": "d", "name": "eve"},
            {"role": "assistant", "content": "e", "refusal": None, "annotations": [], "audio": None},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "f"}]},
            {"role": "user", "content": ""},
        ]
    )
    assert [(m.role, *(p.text for p in m.parts if isinstance(p, Text))) for m in request.messages] == [
        (Role.SYSTEM, "a", "b"),
        (Role.SYSTEM, "c"),
        (Role.USER, "d"),
        (Role.ASSISTANT, "e"),
        (Role.ASSISTANT, "f"),
        (Role.USER, ""),
    ]


def test_sampling_is_what_the_caller_set_and_nothing_else() -> None:
    assert request_of().params.sampling == Sampling()
    request = request_of(
        temperature=0,
        top_p=1,
        top_k=5,
        repetition_penalty=1.1,
        seed=3,
        max_tokens=4,
        max_completion_tokens=6,
        stop="x",
        stage_sampling={"talker": {"temperature": 0.5, "seed": -1}},
    )
    assert request.params.sampling == Sampling(0, 1, 5, 1.1, 3, 6)
    assert request.params.stage_sampling == {"talker": Sampling(temperature=0.5, seed=2**64 - 1)}
    assert request.params.stop == ("x",)


def test_speech_always_comes_with_its_text_in_a_voice_of_the_pipeline() -> None:
    request = request_of(modalities=["audio"], audio={"format": "wav", "voice": {"id": "chelsie"}})
    assert request.params.modalities == {Modality.TEXT, Modality.AUDIO}
    assert request.params.voice == "Chelsie"


def test_an_image_arrives_as_bytes_whatever_type_it_claims() -> None:
    png = b"\x89PNG\r\n\x1a\nrest"
    url = f"data:text/plain;charset=x;base64,{base64.b64encode(png).decode()}"
    request = request_of(**parts(image(url)))
    assert request.messages[0].parts == (Media(Modality.IMAGE, png, "messages[0].content[0].image_url"),)


@pytest.mark.parametrize("depth", [10, 900, 5_000, 100_000])
@pytest.mark.parametrize("field", ["messages", "metadata", "tools"])
def test_deep_nesting_is_refused_and_breaks_nothing(field: str, depth: int) -> None:
    body = b'{"model": "m", "%s": %s%s}' % (field.encode(), b"[" * depth, b"]" * depth)
    with pytest.raises(OmniError) as caught:
        parse_body(body)
    assert caught.value.surface.http == 400
