"""`omni speak`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import openai

from omni_cli.conversation import SAMPLE_RATE, open_client
from omni_cli.errors import CommandError
from omni_cli.served import model_for
from omni_cli.speech_file import Format, complete, format_of, require_speech_file
from omni_common.request import Task

_BYTES_PER_SECOND = 2 * SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Script:
    """What is said and how."""

    text: str
    voice: str = ""  # the model's default
    speed: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Spoken:
    """`first` is when the first sound was there, in seconds; `pcm_bytes` counts samples, where the format has them."""

    first: float
    pcm_bytes: int | None

    @property
    def seconds(self) -> float | None:
        return None if self.pcm_bytes is None else self.pcm_bytes / _BYTES_PER_SECOND


async def speak(script: Script, output: Path, *, url: str, model: str | None) -> None:
    require_speech_file(output)
    async with open_client(url) as client:
        spoken = await say(client, model or await model_for(client, Task.SPEECH), script, output)
    what = "The speech is" if spoken.seconds is None else f"{spoken.seconds:.1f} s of speech are"
    print(f"{what} in {output}; the first sound came after {spoken.first:.2f} s")


async def say(client: openai.AsyncOpenAI, model: str, script: Script, output: Path) -> Spoken:
    """Writes the speech as it comes; a file is there only when it is whole."""
    with complete(output) as file:
        return await utter(client, model, script, format_of(output), file.write)


async def utter(
    client: openai.AsyncOpenAI, model: str, script: Script, form: Format, on_piece: Callable[[bytes], object]
) -> Spoken:
    """Hands the speech on piece by piece."""
    begun, first, size = time.monotonic(), 0.0, 0
    async with client.audio.speech.with_streaming_response.create(
        model=model,
        input=script.text,
        voice=script.voice,
        response_format=form,
        speed=script.speed,
        extra_body=None if script.seed is None else {"seed": script.seed},
    ) as reply:
        async for piece in reply.iter_bytes():
            first = first or time.monotonic() - begun
            on_piece(piece)
            size += len(piece)
    return Spoken(first, size if form == "pcm" else None)


def text_or_stdin(text: str) -> str:
    """`-` stands for what is piped in. Raises CommandError for bytes that are no text."""
    try:
        said = sys.stdin.read().strip() if text == "-" else text
        said.encode()  # what the shell gives as bytes of no text cannot be sent
    except UnicodeError:
        raise CommandError("The text is not UTF-8.") from None
    return said
