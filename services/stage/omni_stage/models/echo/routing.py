"""Where each result goes, decided from the payload alone. The graph in `config.py` bounds it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from omni_common.request import GenerationParams, Modality
from omni_stage.models.echo.payload_types import Answer, Counts, Joined, Outline, Piece, Split, Words, expect


def after_split(value: object) -> Collection[str]:
    """The stages that have something to do, and always the join."""
    return _makers(expect(value, Split).outline)


def outline_of(value: object) -> object:
    return expect(value, Split).outline


def words_of(value: object) -> object:
    return expect(value, Split).words


def files_of(value: object) -> object:
    return expect(value, Split).files


def awaited(source: str, payload: object) -> Collection[str] | None:
    """Which results join for this request: the outline says it, the others cannot tell."""
    if source != "split":
        return None
    return ("split", *(stage for stage in _makers(expect(payload, Outline)) if stage != "join"))


def join(payloads: Mapping[str, object]) -> object:
    words, counts = payloads.get("upper"), payloads.get("count")
    return Joined(
        expect(payloads["split"], Outline),
        () if words is None else expect(words, Words).words,
        () if counts is None else expect(counts, Counts).words,
    )


def after_join(value: object) -> Collection[str]:
    return ("say", "beep") if expect(value, Answer).script.spoken else ("say",)


def script_of(value: object) -> object:
    return expect(value, Answer).script


def scale_of(value: object) -> object:
    return expect(value, Answer).scale


def say_streams(params: GenerationParams) -> Collection[str]:
    return ("write", "beep") if Modality.AUDIO in params.modalities else ("write",)


def _makers(outline: Outline) -> tuple[str, ...]:
    makers = {"upper": Piece.WORD, "count": Piece.FILE}
    return (*(stage for stage, piece in makers.items() if piece in outline.pieces), "join")
