"""From a stage's input to its result, stage by stage; what takes more than a few lines is in `components`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from omni_common.errors import InvalidRequest
from omni_common.request import (
    FinishReason,
    GenerationParams,
    GenerationRequest,
    Media,
    Message,
    Modality,
    Role,
    Sampling,
    Usage,
)
from omni_common.tensor import DType, Tensor
from omni_stage.models.echo.components.checksum import describe
from omni_stage.models.echo.config import PIPELINE
from omni_stage.models.echo.payload_types import (
    Answer,
    Counts,
    File,
    Files,
    Joined,
    Outline,
    Piece,
    Scale,
    Script,
    Split,
    Word,
    Words,
    expect,
)
from omni_stage.scheduler.contract import NewRequest

_BASE_HZ = {"low": 110.0, "high": 220.0}

# Each word with the space before it, and a space that a stop string left behind.
_TOKEN = re.compile(r" ?[^ ]+| ")


def split(request: NewRequest) -> Split:
    """The last thing that the user said, as words and files. Raises InvalidRequest when there is none."""
    message = _last_of_user(expect(request.payload, GenerationRequest))
    pieces = tuple(_pieces(message))
    if not pieces:
        raise InvalidRequest("The last user message is empty: there is nothing to echo.", param="messages")
    return Split(
        Outline(
            tuple(Piece.WORD if isinstance(piece, str) else Piece.FILE for piece in pieces),
            spoken=Modality.AUDIO in request.params.modalities,
        ),
        Words(tuple(piece for piece in pieces if isinstance(piece, str))),
        Files(tuple(piece for piece in pieces if isinstance(piece, File))),
    )


def upper(request: NewRequest) -> Words:
    return Words(tuple(word.upper() for word in expect(request.payload, Words).words))


def count(request: NewRequest) -> Counts:
    return Counts(tuple(describe(file) for file in expect(request.payload, Files).files))


def answer(request: NewRequest) -> Answer:
    """The words of both kinds, in the order of the message."""
    joined = expect(request.payload, Joined)
    sources = {Piece.WORD: iter(joined.words), Piece.FILE: iter(joined.counts)}
    words = tuple(next(sources[piece]) for piece in joined.outline.pieces)
    voice = request.params.voice or PIPELINE.default_voice
    return Answer(Script(words, joined.outline.spoken), Scale(_base_hz(voice)))


@dataclass(frozen=True, slots=True)
class Speech:
    """What say will say, one token a step; `finish` tells why it ends there."""

    tokens: tuple[str, ...]
    finish: FinishReason
    prompt_words: int

    def word(self, index: int) -> Word:
        if index < len(self.tokens) - 1:
            return Word(self.tokens[index])
        usage = Usage(prompt_tokens=self.prompt_words, completion_text_tokens=len(self.tokens))
        # An answer that a stop string left empty still has an end.
        return Word(self.tokens[index] if self.tokens else "", self.finish, usage)


def speech(request: NewRequest) -> Speech:
    """The answer up to the first stop string and the token limit."""
    words = expect(request.payload, Script).words
    tokens = tuple(_TOKEN.findall(_before_stop(" ".join(words), request.params.stop)))
    limit = _sampling(request.params).max_tokens
    if limit is None or len(tokens) <= limit:
        return Speech(tokens, FinishReason.STOP, len(words))
    return Speech(tokens[:limit], FinishReason.LENGTH, len(words))


def _sampling(params: GenerationParams) -> Sampling:
    return params.stage_sampling.get("say", Sampling()).over(params.sampling)


def _before_stop(text: str, stops: tuple[str, ...]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def _last_of_user(request: GenerationRequest) -> Message:
    for message in reversed(request.messages):
        if message.role is Role.USER:
            return message
    raise InvalidRequest("There is no user message to echo.", param="messages")


def _pieces(message: Message) -> Iterator[str | File]:
    for part in message.parts:
        if isinstance(part, Media):
            data = memoryview(part.data)
            yield File(part.modality, Tensor(DType.UINT8, (data.nbytes,), data))
        else:
            yield from part.text.split()


def _base_hz(voice: str) -> float:
    try:
        return _BASE_HZ[voice]
    except KeyError:
        raise InvalidRequest(f"There is no voice '{voice}'.", param="audio.voice") from None
