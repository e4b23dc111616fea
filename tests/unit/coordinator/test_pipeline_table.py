"""What a request may ask of a pipeline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from omni_common.errors import OmniError, Reason
from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import GenerationParams, GenerationRequest, Media, Message, Modality, Role, Sampling, Text
from omni_coordinator.core.pipeline_table import PipelineTable

PIPELINE = PipelineConfig(
    name="omni",
    entry="prepare",
    stages=(
        StageConfig(name="vocoder", terminal=Modality.AUDIO, needs=Modality.AUDIO),
        StageConfig(name="decode", terminal=Modality.TEXT),
        StageConfig(name="join", wait_for=("prepare", "encoder"), to=("decode",), stream_to=("vocoder",)),
        StageConfig(name="encoder", to=("join",)),
        StageConfig(name="prepare", to=("join", "encoder")),
    ),
    input_modalities=frozenset({Modality.TEXT, Modality.IMAGE}),
    output_modalities=frozenset({Modality.TEXT, Modality.AUDIO}),
    voices=("ada", "bob"),
    default_voice="bob",
)
TABLE = PipelineTable([PIPELINE])
ASK = GenerationRequest("omni", (Message(Role.USER, (Text("hello"),)),))
BOTH = frozenset({Modality.TEXT, Modality.AUDIO})


def asking(
    modalities: frozenset[Modality] = frozenset({Modality.TEXT}), voice: str = "", sampled: str = ""
) -> GenerationRequest:
    stage_sampling = {sampled: Sampling()} if sampled else {}
    return replace(ASK, params=GenerationParams(modalities, stage_sampling=stage_sampling, voice=voice))


def refusal(request: GenerationRequest) -> tuple[Reason, str | None, str]:
    with pytest.raises(OmniError) as refused:
        TABLE.plan(request)
    return refused.value.reason, refused.value.param, refused.value.message


def test_visits_come_in_the_order_of_the_graph_with_their_sources() -> None:
    visits = TABLE.plan(asking(modalities=BOTH)).visits
    order = [visit.stage for visit in visits]
    assert set(order) == set(PIPELINE.by_name)
    for visit in visits:
        assert all(order.index(source) < order.index(visit.stage) for source in visit.sources)
    assert {visit.stage: visit.sources for visit in visits}["join"] == {"prepare", "encoder"}


def test_a_request_for_text_visits_no_stage_that_only_speaks() -> None:
    course = TABLE.plan(ASK)
    assert "vocoder" not in {visit.stage for visit in course.visits}
    assert course.terminals == {"decode"}


def test_a_request_for_speech_has_both_terminals_and_the_default_voice() -> None:
    course = TABLE.plan(asking(modalities=BOTH))
    assert course.terminals == {"decode", "vocoder"}
    assert course.request.params.voice == "bob"


def test_the_voice_that_was_asked_for_is_kept() -> None:
    assert TABLE.plan(asking(modalities=BOTH, voice="ada")).request.params.voice == "ada"


def test_sampling_for_a_stage_that_there_is_goes_through() -> None:
    assert TABLE.plan(asking(sampled="join")).request.params.stage_sampling == {"join": Sampling()}


def test_an_unknown_model_is_refused_with_the_names_there_are() -> None:
    reason, param, message = refusal(replace(ASK, model="other"))
    assert (reason, param) == (Reason.MODEL_NOT_FOUND, "model")
    assert "omni" in message


@pytest.mark.parametrize(
    ("request_", "reason", "param"),
    [
        pytest.param(asking(voice="eve"), Reason.INVALID_REQUEST, "audio.voice", id="unknown voice"),
        pytest.param(
            asking(modalities=frozenset({Modality.VIDEO})), Reason.UNSUPPORTED, "modalities", id="unknown output"
        ),
        pytest.param(
            asking(sampled="nobody"),
            Reason.INVALID_REQUEST,
            "stage_sampling.nobody",
            id="sampling for a stage that there is not",
        ),
        pytest.param(
            replace(ASK, messages=(Message(Role.USER, (Text("look"), Media(Modality.VIDEO, b"x"))),)),
            Reason.UNSUPPORTED,
            "messages[0].content[1]",
            id="input that the model does not take",
        ),
        pytest.param(
            replace(ASK, messages=(Message(Role.USER, (Media(Modality.AUDIO, b"x", param="messages[3].sound"),)),)),
            Reason.UNSUPPORTED,
            "messages[3].sound",
            id="input that the model does not take, named as the caller wrote it",
        ),
    ],
)
def test_a_request_that_the_pipeline_cannot_serve_is_refused_naming_the_part(
    request_: GenerationRequest, reason: Reason, param: str
) -> None:
    assert refusal(request_)[:2] == (reason, param)
