"""From a form to a request of the mesh. Pure: what it returns cannot be wrong any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from omni_common.errors import InvalidRequest
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
from omni_gateway.http.form import Form
from omni_gateway.media import media_of_bytes
from omni_gateway.pipelines import PipelineView
from omni_gateway.replies import refusal
from omni_gateway.transcription.schemas import LISTS, ResponseFormat, TranscriptionForm, TranslationForm

_FILE = "file"
_SCHEMAS: Mapping[Task, type[TranslationForm]] = {
    Task.TRANSCRIPTION: TranscriptionForm,
    Task.TRANSLATION: TranslationForm,
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a form asks for, before a pipeline has seen it."""

    task: Task
    model: str
    media: Media
    prompt: str
    response_format: ResponseFormat
    temperature: float | None
    language: str = ""
    words: bool = False
    segments: bool = True
    stream: bool = False


def parse_wish(form: Form, task: Task) -> Wish:
    fields = _fields(form, _SCHEMAS[task])
    media = media_of_bytes(Modality.AUDIO, _file(form), _FILE)
    if not isinstance(fields, TranscriptionForm):
        return Wish(task, fields.model, media, fields.prompt, fields.response_format, fields.temperature)
    _fits_together(fields)
    return Wish(
        task,
        fields.model,
        media,
        fields.prompt,
        fields.response_format,
        fields.temperature,
        language=fields.language.replace("_", "-").partition("-")[0].lower(),
        words="word" in fields.timestamp_granularities,
        segments="segment" in fields.timestamp_granularities or not fields.timestamp_granularities,
        stream=fields.stream,
    )


def build_request(wish: Wish, pipeline: PipelineView) -> GenerationRequest:
    """The wish's meaning for one pipeline."""
    if wish.language and pipeline.languages and wish.language not in pipeline.languages:
        raise InvalidRequest(
            f"The model '{pipeline.name}' does not know this language; it knows {', '.join(pipeline.languages)}.",
            param="language",
            code="invalid_value",
        )
    prompt = (Message(Role.SYSTEM, (Text(wish.prompt, "prompt"),)),) if wish.prompt else ()
    return GenerationRequest(
        pipeline.name,
        (*prompt, Message(Role.USER, (wish.media,))),
        GenerationParams(
            modalities=frozenset({Modality.TEXT}),
            sampling=Sampling(temperature=wish.temperature),
            task=wish.task,
            language=wish.language,
            word_times=wish.words,
        ),
    )


def _fields(form: Form, schema: type[TranslationForm]) -> TranslationForm:
    values: dict[str, str | list[str]] = {}
    for name, given in form.fields.items():
        bare = name.removesuffix("[]")
        known = name in schema.model_fields
        if bare in LISTS and bare in schema.model_fields:
            values[bare] = [*values.get(bare, []), *filter(None, given)]
        elif known and len(given) > 1:
            raise InvalidRequest(f"The parameter '{name}' is given twice.", param=name, code="invalid_value")
        elif name != _FILE and (given[0] or not known):  # an empty value means absent, as forms have no null
            values[name] = given[0]
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise refusal(error) from None


def _file(form: Form) -> memoryview:
    for name in form.files:
        if name != _FILE:
            raise InvalidRequest(f"The parameter '{name}' may not be a file.", param=name, code="invalid_value")
    given = form.files.get(_FILE, [])
    if len(given) == 1 and _FILE not in form.fields:
        return given[0]
    if given:
        raise InvalidRequest("The parameter 'file' is given twice.", param=_FILE, code="invalid_value")
    if _FILE in form.fields:
        raise InvalidRequest(
            "The parameter 'file' must be a file: its part needs a filename.", param=_FILE, code="invalid_value"
        )
    raise InvalidRequest("The parameter 'file' is required.", param=_FILE, code="missing_required_parameter")


def _fits_together(fields: TranscriptionForm) -> None:
    """The rules between fields."""
    if fields.timestamp_granularities and fields.response_format != "verbose_json":
        raise InvalidRequest(
            "The parameter 'timestamp_granularities' needs the response_format verbose_json.",
            param="timestamp_granularities",
            code="invalid_value",
        )
    if fields.stream and fields.response_format not in {"json", "text"}:
        raise InvalidRequest(
            "A stream is made of pieces of text: 'response_format' must be json or text.",
            param="response_format",
            code="invalid_value",
        )
