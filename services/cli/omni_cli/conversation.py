"""One question to a mesh through the official OpenAI client, and its answer as it comes."""

from __future__ import annotations

import base64
import ssl
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx2
import openai
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from omni_cli.errors import CommandError
from omni_cli.settings import CommandSettings
from omni_cli.waterfall import StageTiming, parse_timings

# OpenAI's pcm16: mono, 16 bits, 24 kHz, whatever the model's own rate is.
SAMPLE_RATE = 24_000
_SAMPLE_BYTES = 2
_IMAGE_TYPES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp", ".gif": "gif"}
_VIDEO_TYPES = {".mp4": "mp4", ".webm": "webm", ".mov": "quicktime", ".mkv": "x-matroska"}


class NoMesh(CommandError):
    """Nobody is there."""


@dataclass(frozen=True, slots=True)
class Question:
    """What the user puts to the model."""

    text: str
    images: Sequence[Path] = ()
    audios: Sequence[Path] = ()
    videos: Sequence[Path] = ()
    max_tokens: int | None = None
    seed: int | None = None


@dataclass(slots=True)
class Answer:
    """What came back beside the text, which was handed on as it came; seconds count from when it was asked for."""

    form: str = "pcm"
    speech: bytearray = field(default_factory=bytearray)
    timings: tuple[StageTiming, ...] = ()
    begun: float = field(default_factory=time.monotonic)
    first_text: float | None = None
    first_sound: float | None = None

    @property
    def seconds(self) -> float | None:
        """Where it came as samples."""
        return len(self.speech) / (_SAMPLE_BYTES * SAMPLE_RATE) if self.form == "pcm" else None


@asynccontextmanager
async def open_client(
    url: str, *, ca: Path | None = None, api_key: str | None = None, server_name: str = ""
) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client that tells failures as sentences. It is strict: a reply that OpenAI would not send is an error.

    `ca`, `api_key`: in place of what the environment says. `server_name`: whose certificate is asked for and believed,
    where it is not for the URL's host.
    """
    if not url.startswith(("http://", "https://")):
        raise CommandError(f"{url} is no URL; one is http://127.0.0.1:8000/v1.")
    settings = CommandSettings()
    async with openai.AsyncOpenAI(
        base_url=url,
        api_key=api_key or settings.api_key,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(
            verify=trust(ca or settings.ca_file), event_hooks={"request": [_asking_for(server_name)]}
        ),
        _strict_response_validation=True,
    ) as client:
        try:
            yield client
        except openai.APITimeoutError:  # a kind of the next, but somebody is there
            raise CommandError("The mesh did not answer in time.") from None
        except openai.APIConnectionError as error:
            raise _unanswered(url, error) from None
        except openai.APIResponseValidationError as error:
            raise CommandError(f"The mesh sent a reply that is not OpenAI's: {error.message}") from error
        except openai.AuthenticationError:
            raise CommandError(
                "The mesh does not know the API key that it was given."
                if api_key or settings.api_key_given
                else "The mesh asks for an API key. Name yours by OMNI_API_KEY."
            ) from None
        except openai.APIError as error:
            raise CommandError(f"The mesh refused: {error.message}") from None
        except httpx2.TransportError:  # in the middle of a body; before it the client has a name of its own for it
            raise CommandError("The mesh broke off in the middle of its answer.") from None


def _asking_for(server_name: str) -> Callable[[httpx2.Request], Awaitable[None]]:
    async def name(request: httpx2.Request) -> None:
        if server_name:
            request.extensions["sni_hostname"] = server_name

    return name


def trust(ca: Path | None) -> ssl.SSLContext | bool:
    """Raises CommandError."""
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca))
    except ssl.SSLError:
        raise CommandError(f"{ca} holds no certificate in PEM.") from None
    except OSError as error:
        raise CommandError(f"Cannot read {ca}: {error.strerror}.") from None


def _unanswered(url: str, error: BaseException) -> CommandError:
    """A mesh that is there and not trusted is another matter than one that is not there."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = cause.verify_message.rstrip(".")
        return CommandError(
            f"The certificate of {url} is not trusted: {why}. Name the CA that signed it by OMNI_CA_FILE."
        )
    if cause is not None:
        return CommandError(f"No TLS is spoken with {url}: {cause}. Is it http, or asks it for another version?")
    return NoMesh(f"No mesh answers at {url}. Start one with `omni up`.")


async def ask(
    client: openai.AsyncOpenAI,
    model: str,
    question: Question,
    *,
    speak: bool,
    on_text: Callable[[str], None],
    form: str = "pcm",
) -> Answer:
    """Streams one answer; `on_text` gets the text piece by piece. `form`: of the speech, as `omni speak` names it."""
    extra: dict[str, Any] = {}
    if speak:
        extra = {
            "modalities": ["text", "audio"],
            "audio": {"format": "pcm16" if form == "pcm" else form, "voice": ""},
        }  # "": the pipeline's default
    answer = Answer(form=form)
    stream = await client.chat.completions.create(
        model=model,
        messages=[message(question)],
        stream=True,
        max_completion_tokens=openai.omit if question.max_tokens is None else question.max_tokens,
        seed=openai.omit if question.seed is None else question.seed,
        extra_headers={"x-omni-stage-timings": "true"},
        **extra,
    )
    async with stream:  # also when its text cannot be shown
        async for chunk in stream:
            _take(chunk, answer, on_text)
    return answer


def message(question: Question) -> ChatCompletionMessageParam:
    """The question as one user message: media first, as the models were trained."""
    parts: list[dict[str, Any]] = [
        *({"type": "image_url", "image_url": {"url": _data_url(p, "image", _IMAGE_TYPES)}} for p in question.images),
        *({"type": "video_url", "video_url": {"url": _data_url(p, "video", _VIDEO_TYPES)}} for p in question.videos),
        *({"type": "input_audio", "input_audio": _audio(path)} for path in question.audios),
    ]
    if question.text:
        parts.append({"type": "text", "text": question.text})
    if not parts:
        raise CommandError("There is nothing to ask: give a text, an image, an audio or a video.")
    # `video_url` is a part that OpenAI's types do not have.
    return cast("ChatCompletionMessageParam", {"role": "user", "content": parts})


def write_wav(path: Path, pcm: bytes | bytearray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(_SAMPLE_BYTES)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm)


def _take(chunk: ChatCompletionChunk, answer: Answer, on_text: Callable[[str], None]) -> None:
    extension = (chunk.model_extra or {}).get("omni")
    if extension is not None:
        answer.timings = parse_timings(extension)
    for choice in chunk.choices:
        audio = choice.delta.audio
        if text := choice.delta.content or (audio and audio.transcript):
            answer.first_text = answer.first_text or time.monotonic() - answer.begun
            on_text(text)
        if audio and audio.data:
            answer.first_sound = answer.first_sound or time.monotonic() - answer.begun
            answer.speech += base64.b64decode(audio.data)


def _data_url(path: Path, kind: str, types: dict[str, str]) -> str:
    subtype = types.get(path.suffix.lower())
    if subtype is None:
        raise CommandError(f"{path} is no {kind} by its name; it must end in {', '.join(types)}.")
    return f"data:{kind}/{subtype};base64,{_base64(path)}"


def _audio(path: Path) -> dict[str, str]:
    return {"data": _base64(path), "format": path.suffix.lower().removeprefix(".") or "wav"}


def _base64(path: Path) -> str:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise CommandError(f"Cannot read {path}: {error.strerror}.") from None
