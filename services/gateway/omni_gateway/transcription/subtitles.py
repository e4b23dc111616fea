"""Subtitles: SubRip (srt) and WebVTT (vtt)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from omni_common.request import Segment


def srt(segments: Iterable[Segment]) -> str:
    """SubRip knows no escapes, so an arrow in a text loses a dash."""
    return "".join(
        f"{number}\n{_time(start, ',')} --> {_time(end, ',')}\n{text.replace('-->', '->')}\n\n"
        for number, (start, end, text) in enumerate(_cues(segments), 1)
    )


def vtt(segments: Iterable[Segment]) -> str:
    """`<`, `>` and `&` are markup in WebVTT and are escaped."""
    return "WEBVTT\n\n" + "".join(
        f"{_time(start, '.')} --> {_time(end, '.')}\n{escape(text, quote=False)}\n\n"
        for start, end, text in _cues(segments)
    )


def _cues(segments: Iterable[Segment]) -> Iterator[tuple[int, int, str]]:
    """Starts and ends in milliseconds, and texts of one line, since an empty line ends a cue. No cue is empty."""
    for segment in segments:
        text = " ".join(segment.text.split())
        if text:
            start = max(0, round(1000 * segment.start))
            yield start, max(start, round(1000 * segment.end)), text


def _time(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"
