"""From an OpenAI body to a request of the mesh. Pure: what it returns cannot be wrong any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omni_common.errors import InvalidRequest, Unsupported
from omni_common.request import GenerationParams, GenerationRequest, Message, Modality, Part, Role, Sampling, Text
from omni_gateway import schemas
from omni_gateway.chat.media import media_of_base64, media_of_url
from omni_gateway.chat.transcripts import Transcripts
from omni_gateway.http.json_body import parse_json
from omni_gateway.pipelines import PipelineView
from omni_gateway.sampling import seed_of, stage_sampling_of

_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,  # OpenAI's newer name of the same
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
}


def parse_body(body: bytes) -> schemas.ChatRequest:
    """The body's form, whose fields fit together."""
    chat = parse_json(body, schemas.ChatRequest)
    _fits_together(chat)
    return chat


def _fits_together(chat: schemas.ChatRequest) -> None:
    """The rules between fields."""
    speaks = "audio" in chat.modalities
    if speaks and chat.audio is None:
        raise InvalidRequest(
            "The parameter 'audio' is required when 'modalities' names audio.",
            param="audio",
            code="missing_required_parameter",
        )
    if chat.audio is not None and not speaks:
        raise InvalidRequest(
            "The parameter 'audio' needs modalities ['text', 'audio'].", param="audio", code="invalid_value"
        )
    if chat.stream_options is not None and not chat.stream:
        raise InvalidRequest(
            "The parameter 'stream_options' is only allowed when 'stream' is true.",
            param="stream_options",
            code="invalid_value",
        )


def build_request(chat: schemas.ChatRequest, pipeline: PipelineView, transcripts: Transcripts) -> GenerationRequest:
    """The body's meaning for one pipeline: its media decoded from base64, its modalities and voices checked."""
    modalities = frozenset({Modality.TEXT, *(Modality(m) for m in chat.modalities)})
    if unmade := modalities - pipeline.output_modalities:
        raise Unsupported(f"The model '{pipeline.name}' makes no {min(unmade)}.", param="modalities")
    messages = tuple(_message(m, f"messages[{i}]", transcripts) for i, m in enumerate(chat.messages))
    for part in (p for m in messages for p in m.parts if not isinstance(p, Text)):
        if part.modality not in pipeline.input_modalities:
            raise Unsupported(f"The model '{pipeline.name}' takes no {part.modality}.", param=part.param)
    return GenerationRequest(pipeline.name, messages, _params(chat, modalities, pipeline))


def _params(chat: schemas.ChatRequest, modalities: frozenset[Modality], pipeline: PipelineView) -> GenerationParams:
    voice = "" if chat.audio is None else pipeline.voice_called(schemas.voice_name(chat.audio.voice), "audio.voice")
    return GenerationParams(
        modalities=modalities,
        sampling=Sampling(
            temperature=chat.temperature,
            top_p=chat.top_p,
            top_k=chat.top_k,
            repetition_penalty=chat.repetition_penalty,
            seed=seed_of(chat.seed),
            max_tokens=chat.max_completion_tokens if chat.max_completion_tokens is not None else chat.max_tokens,
        ),
        stage_sampling=stage_sampling_of(chat.stage_sampling, pipeline),
        stop=(chat.stop,) if isinstance(chat.stop, str) else tuple(chat.stop),
        voice=voice,
    )


def _message(message: schemas.Message, path: str, transcripts: Transcripts) -> Message:
    match message:
        case schemas.AssistantMessage():
            parts = tuple(_assistant_parts(message, path, transcripts))
        case schemas.ToolMessage():
            raise Unsupported("Messages of tools are not supported by this server.", param=f"{path}.role")
        case _:
            parts = tuple(_parts(message.content, f"{path}.content"))
    return Message(_ROLES[message.role], parts)


def _assistant_parts(message: schemas.AssistantMessage, path: str, transcripts: Transcripts) -> Iterator[Part]:
    if message.content is None and message.audio is None and message.refusal is None:
        raise InvalidRequest(
            f"The parameter '{path}.content' is required.", param=f"{path}.content", code="missing_required_parameter"
        )
    if message.content:
        yield from _parts(message.content, f"{path}.content")
    if message.refusal:
        yield Text(message.refusal, f"{path}.refusal")
    if message.audio is not None:
        transcript = transcripts.get(message.audio.id)
        if transcript is None:
            raise InvalidRequest(
                "This audio is unknown or has expired; send what was said as text.",
                param=f"{path}.audio.id",
                code="invalid_value",
            )
        yield Text(transcript, f"{path}.audio.id")


def _parts(content: str | Sequence[schemas.AnyPart], path: str) -> Iterator[Part]:
    if isinstance(content, str):
        yield Text(content, path)
        return
    for index, part in enumerate(content):
        here = f"{path}[{index}]"
        match part:
            case schemas.TextPart():
                yield Text(part.text, here)
            case schemas.RefusalPart():
                yield Text(part.refusal, here)
            case schemas.ImagePart():
                yield media_of_url(Modality.IMAGE, part.image_url.url, f"{here}.image_url")
            case schemas.VideoPart():
                yield media_of_url(Modality.VIDEO, part.video_url.url, f"{here}.video_url")
            case schemas.AudioPart():
                yield media_of_base64(Modality.AUDIO, part.input_audio.data, f"{here}.input_audio")
            case schemas.UnservedPart():
                raise Unsupported(f"Parts of type '{part.type}' are not supported by this server.", param=here)
