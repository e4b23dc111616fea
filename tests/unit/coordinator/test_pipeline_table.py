"""What a request may ask of a pipeline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from omni_common.errors import OmniError, Reason
from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import (
    GenerationParams,
    GenerationRequest,
    Media,
    Message,
    Modality,
    Role,
    Sampling,
    Task,
    Text,
)
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
EAR = PipelineConfig(
    name="ear",
    entry="listen",
    stages=(StageConfig(name="listen", terminal=Modality.TEXT),),
    input_modalities=frozenset({Modality.AUDIO}),
    output_modalities=frozenset({Modality.TEXT}),
    tasks=frozenset({Task.TRANSCRIPTION, Task.TRANSLATION}),
    languages=("en", "fr"),
)
TABLE = PipelineTable([PIPELINE, EAR])
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


def listening(task: Task, language: str = "", model: str = "ear", voice: str = "") -> GenerationRequest:
    params = GenerationParams(task=task, language=language, voice=voice)
    return GenerationRequest(model, (Message(Role.USER, (Media(Modality.AUDIO, b"x", "file"),)),), params)


def test_a_task_that_the_model_does_not_do_is_refused_with_the_models_that_do_it() -> None:
    reason, param, message = refusal(listening(Task.TRANSCRIPTION, model="omni"))
    assert (reason, param) == (Reason.UNSUPPORTED, "model")
    assert message == "The model 'omni' does no transcription; these can: ear."
    assert refusal(replace(ASK, model="ear"))[2] == "The model 'ear' does no chat; these can: omni."
    assert refusal(listening(Task.SPEECH))[2] == "The model 'ear' does no speech; no model here can."


def test_a_language_that_the_model_knows_or_that_nobody_told_is_kept() -> None:
    for language in ("fr", ""):
        assert TABLE.plan(listening(Task.TRANSLATION, language)).request.params.language == language


def test_an_unknown_language_is_refused_with_those_there_are() -> None:
    reason, param, message = refusal(listening(Task.TRANSCRIPTION, "de"))
    assert (reason, param) == (Reason.INVALID_REQUEST, "language")
    assert message.endswith("it knows en, fr.")


def test_a_model_that_names_no_voices_or_languages_takes_any() -> None:
    assert TABLE.plan(listening(Task.TRANSCRIPTION, voice="any")).request.params.voice == "any"
    open_one = PIPELINE.model_copy(update={"tasks": frozenset({Task.TRANSCRIPTION}), "input_modalities": {*Modality}})
    plan = PipelineTable([open_one]).plan(listening(Task.TRANSCRIPTION, "de", model="omni"))
    assert plan.request.params.language == "de"


def test_hundreds_of_voices_do_not_fill_an_error() -> None:
    crowd = PIPELINE.model_copy(update={"voices": tuple(f"speaker-{n:03}" for n in range(900))})
    with pytest.raises(OmniError) as refused:
        PipelineTable([crowd]).plan(asking(BOTH, voice="eve"))
    assert refused.value.message.endswith("speaker-048, speaker-049 and 850 more.")


def test_a_voice_is_refused_in_the_place_that_the_task_has_for_it() -> None:
    speaking = PIPELINE.model_copy(update={"tasks": frozenset({Task.SPEECH})})
    request = replace(ASK, params=GenerationParams(frozenset({Modality.AUDIO}), task=Task.SPEECH, voice="eve"))
    with pytest.raises(OmniError) as refused:
        PipelineTable([speaking]).plan(request)
    assert refused.value.param == "voice"


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
