"""What a speech request asks for: its text, and what a Piper voice can follow of its settings."""

from __future__ import annotations

from dataclasses import fields

from omni_common.errors import InvalidRequest, Unsupported
from omni_common.request import GenerationParams, GenerationRequest, Role, Sampling, Text
from omni_stage.models.piper.config import MAX_CHARACTERS


def text_of(request: GenerationRequest) -> str:
    """What is to be said. Raises Unsupported for what no Piper voice can do, InvalidRequest for a text too long."""
    _check_settings(request.params)
    said = []
    for message in request.messages:
        if message.role is Role.SYSTEM:
            raise Unsupported("A Piper voice follows no instructions: leave them out.", param="instructions")
        said += [part.text for part in message.parts if isinstance(part, Text)]
    text = "\n".join(said)
    if len(text) > MAX_CHARACTERS:
        too_long = f"The input has {len(text)} characters; at most {MAX_CHARACTERS} are spoken at a time."
        raise InvalidRequest(too_long, param="input", code="string_above_max_length")
    return text


def seed_of(params: GenerationParams) -> int:
    """The caller's seed, 0 where there is none: the same text then always sounds the same."""
    return params.stage_sampling.get("synthesise", Sampling()).over(params.sampling).seed or 0


def _check_settings(params: GenerationParams) -> None:
    """Of the settings of sampling only the seed means something here; the others may not be ignored in silence."""
    for sampling in (params.sampling, *params.stage_sampling.values()):
        for setting in fields(Sampling):
            if setting.name != "seed" and getattr(sampling, setting.name) is not None:
                raise Unsupported(f"A Piper voice has no {setting.name}: leave it out.", param=setting.name)
    if params.stop:
        raise Unsupported("A Piper voice knows no stop strings: leave them out.", param="stop")
