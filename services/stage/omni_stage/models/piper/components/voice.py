"""A Piper voice on disk: one model, and beside it the JSON file that says how to use it. Needs no tensor library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationError

from omni_stage.program import StageContext

MODEL_SUFFIX = ".onnx"
CONFIG_SUFFIX = ".onnx.json"


class Audio(BaseModel):
    """Of the samples that the model makes."""

    sample_rate: PositiveInt


class Espeak(BaseModel):
    voice: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+-]*$")


class Inference(BaseModel):
    """How much the samples and the durations vary, and how slowly the voice speaks."""

    noise_scale: float = Field(ge=0)
    length_scale: PositiveFloat
    noise_w: float = Field(ge=0)


class Language(BaseModel):
    family: str = ""


class VoiceFile(BaseModel):
    """The description of a voice, as Piper's training writes it; what is of no use here is left out.

    `phoneme_map` has stand-ins for symbols that the model does not know.
    """

    audio: Audio
    espeak: Espeak
    inference: Inference
    phoneme_id_map: Mapping[str, tuple[int, ...]]
    phoneme_map: Mapping[str, tuple[str, ...]] = {}
    phoneme_type: Literal["espeak"] = "espeak"  # other voices take text as it is, or phonemes of another program
    speaker_id_map: Mapping[str, int] = {}
    language: Language = Language()


@dataclass(frozen=True, slots=True)
class Voice:
    """A model and its description."""

    model: Path
    told: VoiceFile

    @property
    def names(self) -> tuple[str, ...]:
        """Of its speakers, by number, the first being the default; a model without any is named by its file."""
        speakers = self.told.speaker_id_map
        return tuple(sorted(speakers, key=lambda name: speakers[name])) or (self.model.stem,)

    @property
    def language(self) -> str:
        """ISO 639-1, where the language has such a code."""
        return self.told.language.family or self.told.espeak.voice.partition("-")[0]

    @property
    def sample_rate(self) -> int:
        return self.told.audio.sample_rate

    def speaker(self, name: str) -> int:
        return self.told.speaker_id_map.get(name, 0)


def open_voice(context: StageContext) -> Voice:
    """The voice that this stage speaks with. Raises ValueError with a sentence."""
    if context.model is None:
        raise ValueError(f"Stage '{context.stage.name}' of {context.pipeline.name} needs the folder of a voice.")
    return load_voice(context.model)


def load_voice(folder: Path) -> Voice:
    """Raises ValueError with a sentence when the folder does not hold exactly one whole voice."""
    models = sorted(folder.glob(f"*{MODEL_SUFFIX}"))
    if len(models) != 1:
        there = ", ".join(model.name for model in models) or "no such file"
        raise ValueError(f"A Piper voice is a folder with one *{MODEL_SUFFIX} file; in {folder} there is {there}.")
    file = models[0].with_name(models[0].stem + CONFIG_SUFFIX)
    if not file.is_file():
        raise ValueError(f"The Piper voice {models[0].name} needs its description {file.name} beside it.")
    try:
        return Voice(models[0], VoiceFile.model_validate_json(file.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{file.name} does not describe a Piper voice: {where}: {first['msg']}.") from error
