"""Conversations that begin alike, as callers have them: a long system prompt, turn after turn, the same question of
another picture. The tiny model's own answers are noise that no tokenizer reads back as it was written, so what the
assistant has said is given."""

from __future__ import annotations

from collections.abc import Mapping

from tests.parity.cases import Draw, film, picture, sound

from omni_common.request import GenerationRequest, Media, Message, Modality, Part, Role, Text

RULES = "You answer in one short sentence, in the language of the question, and you never guess what you cannot see. "
SYSTEM = Message(Role.SYSTEM, (Text(RULES * 4),))
SAID = Message(Role.ASSISTANT, (Text("It is a small thing, and it does not move."),))

PARTS: Mapping[str, Part] = {
    "t": Text("What is this, and why is it here?"),
    "u": Text("And what was it before that?"),
    "i": Media(Modality.IMAGE, picture(1, 96, 64)),
    "j": Media(Modality.IMAGE, picture(5, 96, 64)),  # as large as the other one: the same tokens
    "k": Media(Modality.IMAGE, picture(2, 160, 192)),
    "a": Media(Modality.AUDIO, sound()),
    "v": Media(Modality.VIDEO, film()),
}


def conversation(*turns: str) -> tuple[Message, ...]:
    """The turns of the user's, by the letters of their parts, each but the last with its answer."""
    first, *others = [Message(Role.USER, tuple(PARTS[letter] for letter in turn)) for turn in turns]
    return (SYSTEM, first, *(message for turn in others for message in (SAID, turn)))


def asked(messages: tuple[Message, ...], draw: Draw) -> GenerationRequest:
    return GenerationRequest("qwen3-omni", messages, draw.params())
