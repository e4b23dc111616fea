"""Where each result goes, decided from the payload alone. The graph in `config.py` bounds it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from omni_common.request import GenerationParams, Modality
from omni_stage.models.qwen3_omni.payload_types import (
    AudioFeatures,
    ImageFeatures,
    Preprocessed,
    Prompt,
    TalkerPrompt,
    ThinkerInput,
    expect,
)


def after_preprocess(value: object) -> Collection[str]:
    """The encoders that have something to encode, and always the join."""
    value = expect(value, Preprocessed)
    encoders = {"image_encoder": value.images, "audio_encoder": value.audios}
    return ("aggregate", *(stage for stage, inputs in encoders.items() if inputs is not None))


def prompt_of(value: object) -> object:
    return expect(value, Preprocessed).prompt


def images_of(value: object) -> object:
    return expect(value, Preprocessed).images


def audios_of(value: object) -> object:
    return expect(value, Preprocessed).audios


def awaited(source: str, payload: object) -> Collection[str] | None:
    """Which results join for this request: the prompt says what it contains, the others cannot tell."""
    if source != "preprocess":
        return None
    layout = expect(payload, Prompt).layout
    pictures = layout.image_grid is not None or layout.video_grid is not None
    return (
        "preprocess",
        *(("image_encoder",) if pictures else ()),
        *(("audio_encoder",) if layout.audio_frames else ()),
    )


def join(payloads: Mapping[str, object]) -> object:
    image, audio = payloads.get("image_encoder"), payloads.get("audio_encoder")
    return ThinkerInput(
        expect(payloads["preprocess"], Prompt),
        None if image is None else expect(image, ImageFeatures),
        None if audio is None else expect(audio, AudioFeatures),
    )


def after_aggregate(value: object) -> Collection[str]:
    return ("thinker", "talker") if expect(value, ThinkerInput).prompt.speech else ("thinker",)


def talker_prompt(value: object) -> object:
    return TalkerPrompt(expect(value, ThinkerInput).prompt.layout)


def thinker_streams(params: GenerationParams) -> Collection[str]:
    return ("decode", "talker") if Modality.AUDIO in params.modalities else ("decode",)
