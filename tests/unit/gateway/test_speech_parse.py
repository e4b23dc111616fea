"""From a body to a request for speech."""

from __future__ import annotations

import orjson
import pytest

from omni_common.errors import OmniError
from omni_common.request import GenerationRequest, Message, Modality, Role, Sampling, Task, Text
from omni_common.testing.scripts import pipeline_status
from omni_gateway.http.json_body import parse_json
from omni_gateway.pipelines import PipelineView, parse_pipeline
from omni_gateway.speech.parse import build_request
from omni_gateway.speech.replies import voices_body
from omni_gateway.speech.schemas import SpeechRequest


def pipeline(*voices: str) -> PipelineView:
    return parse_pipeline(pipeline_status("m", voices=voices, tasks=(Task.SPEECH,), stages=("voice",)))


def request_of(*voices: str, **fields: object) -> GenerationRequest:
    body = orjson.dumps({"model": "m", "input": " Hello. ", **fields})
    return build_request(parse_json(body, SpeechRequest), pipeline(*voices))


def test_a_text_is_spoken_as_it_stands() -> None:
    request = request_of("joe")
    assert request.messages == (Message(Role.USER, (Text(" Hello. ", "input"),)),)
    assert request.params.task is Task.SPEECH
    assert request.params.modalities == {Modality.AUDIO}
    assert request.params.sampling == Sampling()


@pytest.mark.parametrize("blank", ["", "  ", None])
def test_instructions_that_say_nothing_are_none(blank: str | None) -> None:
    assert request_of("joe", instructions=blank) == request_of("joe")


@pytest.mark.parametrize("voice", ["joe", "JOE", {"id": "Joe"}])
def test_a_voice_is_known_by_its_name_in_any_case(voice: object) -> None:
    assert request_of("amy", "joe", voice=voice).params.voice == "joe"


@pytest.mark.parametrize("voice", ["", None])
def test_no_voice_is_the_pipelines_own_choice(voice: str | None) -> None:
    assert request_of("amy", "joe", voice=voice).params.voice == ""


def test_a_pipeline_that_names_no_voices_decides_itself() -> None:
    assert request_of(voice="anyone").params.voice == "anyone"


def test_hundreds_of_voices_do_not_fill_an_error() -> None:
    with pytest.raises(OmniError) as caught:
        request_of(*(f"speaker-{i}" for i in range(900)), voice="nobody")
    assert caught.value.message.endswith("speaker-48, speaker-49 and 850 more.")


def test_what_the_caller_sent_is_not_repeated() -> None:
    private = "correct horse battery staple"
    with pytest.raises(OmniError) as caught:
        request_of("joe", input=private, voice=private)
    assert private not in caught.value.message


def test_seeds_below_zero_are_distinct_ones_of_the_mesh() -> None:
    assert request_of("joe", seed=-1).params.sampling == Sampling(seed=2**64 - 1)


def test_a_voice_of_two_pipelines_is_one_name_and_two_entries() -> None:
    body = voices_body([pipeline("joe", "amy"), pipeline("amy")])
    assert body["voices"] == ["joe", "amy"]
    assert isinstance(body["data"], list)
    assert len(body["data"]) == 3
