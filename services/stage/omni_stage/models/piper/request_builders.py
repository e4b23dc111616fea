"""What a speech request asks for: its text, and what a Piper voice can follow of its settings."""

from __future__ import annotations

from omni_common.errors import InvalidRequest, Unsupported
from omni_common.request import GenerationParams, GenerationRequest, Role, Sampling, Text
from omni_stage.asked import require_known
from omni_stage.models.piper.config import MAX_CHARACTERS


def text_of(request: GenerationRequest) -> str:
    """What is to be said. Raises Unsupported for what no Piper voice can do, InvalidRequest for a text too long."""
    # Of the settings of sampling only the seed means something here.
    require_known(request.params, {"seed"}, model="A Piper voice")
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
