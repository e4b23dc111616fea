"""A whole transcript in the format that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from omni_common.request import Segment, Task, Usage, Word
from omni_gateway.http.sse import Json
from omni_gateway.transcription.languages import language_name
from omni_gateway.transcription.parse import Wish
from omni_gateway.transcription.subtitles import srt, vtt

_TEXT = "text/plain; charset=utf-8"
_VTT = "text/vtt; charset=utf-8"
_JSON = "application/json"

# Whisper counts audio in frames of 10 ms.
_FRAMES_PER_SECOND = 100


@dataclass(frozen=True, slots=True)
class Transcript:
    """All that a request has brought."""

    segments: Sequence[Segment]
    usage: Usage
    # What JSON bodies tell under `omni`, where the caller asked for it.
    timings: Json | None = None

    @property
    def text(self) -> str:
        return "".join(s.text for s in self.segments).strip()


def render(transcript: Transcript, wish: Wish) -> tuple[str, bytes]:
    """The reply's content type and its body."""
    match wish.response_format:
        case "text":
            return _TEXT, f"{transcript.text}\n".encode()
        case "srt":
            return _TEXT, srt(transcript.segments).encode()
        case "vtt":
            return _VTT, vtt(transcript.segments).encode()
        case "json":
            return _JSON, _json(_plain(transcript, wish), transcript.timings)
        case "verbose_json":
            return _JSON, _json(_verbose(transcript, wish), transcript.timings)


def _json(body: Json, timings: Json | None) -> bytes:
    return orjson.dumps(body if timings is None else {**body, "omni": timings})


def _plain(transcript: Transcript, wish: Wish) -> Json:
    return {"text": transcript.text, **_usage(transcript.usage, wish.task)}


def _verbose(transcript: Transcript, wish: Wish) -> Json:
    body: Json = {
        "task": "transcribe" if wish.task is Task.TRANSCRIPTION else "translate",
        "language": _language(transcript, wish),
        "duration": transcript.usage.prompt_audio_seconds,
        "text": transcript.text,
    }
    if wish.segments:
        body["segments"] = [_segment(number, s) for number, s in enumerate(transcript.segments)]
    if wish.words:
        body["words"] = [_word(w) for s in transcript.segments for w in s.words]
    return {**body, **_usage(transcript.usage, wish.task)}


def _language(transcript: Transcript, wish: Wish) -> str:
    """Of the text; that of the first segment, where it was not told."""
    if wish.task is Task.TRANSLATION:
        return "english"
    heard = next((s.language for s in transcript.segments if s.language), "")
    return language_name(wish.language or heard)


def _usage(usage: Usage, task: Task) -> Json:
    """Translations have none in OpenAI's API."""
    if task is Task.TRANSLATION:
        return {}
    return {"usage": {"type": "duration", "seconds": usage.prompt_audio_seconds}}


def _segment(number: int, segment: Segment) -> Json:
    return {
        "id": number,
        # Where a model begins to read for a segment is its own affair; this is where the segment begins.
        "seek": round(segment.start * _FRAMES_PER_SECOND),
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": segment.tokens,
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }


def _word(word: Word) -> Json:
    return {"word": word.word.strip(), "start": word.start, "end": word.end}
