"""`omni transcribe`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import openai

from omni_cli.chat import show_text
from omni_cli.conversation import open_client
from omni_cli.errors import CommandError
from omni_cli.served import model_for
from omni_cli.wishes import Form
from omni_common.request import Task


@dataclass(frozen=True, slots=True)
class Recording:
    """What is listened to, and what is known about it."""

    file: Path
    language: str = ""
    prompt: str = ""


async def transcribe(
    recording: Recording, *, form: Form, words: bool, translate: bool, url: str, model: str | None
) -> None:
    """Text is shown as it comes; the other forms when they are whole."""
    _fits_together(recording, form=form, words=words, translate=translate)
    data = _read(recording.file)
    async with open_client(url) as client:
        task = Task.TRANSLATION if translate else Task.TRANSCRIPTION
        name = model or await model_for(client, task)
        if form == "text" and not translate:
            await hear(client, name, recording, data, show_text)
            print()
        else:
            show_text(await _whole(client, name, recording, data, form, words=words, translate=translate))
            print()


async def hear(
    client: openai.AsyncOpenAI, model: str, recording: Recording, data: bytes, on_text: Callable[[str], None]
) -> str:
    """The transcript, handed on piece by piece."""
    stream = await client.audio.transcriptions.create(
        model=model,
        file=(recording.file.name, data),
        stream=True,
        language=recording.language or openai.omit,
        prompt=recording.prompt or openai.omit,
    )
    text = ""
    async with stream:  # also when its text cannot be shown
        async for event in stream:
            if event.type == "transcript.text.delta":
                on_text(event.delta)
            elif event.type == "transcript.text.done":
                text = event.text
    return text


async def _whole(
    client: openai.AsyncOpenAI,
    model: str,
    recording: Recording,
    data: bytes,
    form: Form,
    *,
    words: bool,
    translate: bool,
) -> str:
    file = (recording.file.name, data)
    prompt = recording.prompt or openai.omit
    if translate:
        made = await client.audio.translations.with_raw_response.create(
            model=model, file=file, prompt=prompt, response_format=form
        )
        return made.text.rstrip("\n")
    heard = await client.audio.transcriptions.with_raw_response.create(
        model=model,
        file=file,
        prompt=prompt,
        language=recording.language or openai.omit,
        response_format=form,
        timestamp_granularities=["word", "segment"] if words else openai.omit,
    )
    return heard.text.rstrip("\n")


def _fits_together(recording: Recording, *, form: Form, words: bool, translate: bool) -> None:
    """Refuses options that would be ignored."""
    if words and form != "verbose_json":
        raise CommandError("Times of words come in verbose_json only: give --format verbose_json too.")
    if words and translate:
        raise CommandError("A translation has no times of words: leave out --words or --translate.")
    if recording.language and translate:
        raise CommandError("A translation finds out the language by itself: leave out --language or --translate.")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CommandError(f"Cannot read {file}: {error.strerror}.") from None
