"""The echo pipeline, all stages in one process."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from tests.unit.stage.one_process import OneProcess, context, one_process

from omni_common.errors import InvalidRequest
from omni_common.request import (
    FinishReason,
    GenerationParams,
    GenerationRequest,
    Media,
    Message,
    Modality,
    Part,
    RequestKey,
    Role,
    Sampling,
    TerminalResult,
    Text,
    Usage,
)
from omni_stage.models.echo.payload_types import Script, Word
from omni_stage.models.echo.stages import FAMILY
from omni_stage.scheduler.contract import NewRequest
from omni_stage.testing.answers import Answers

SPOKEN = frozenset({Modality.TEXT, Modality.AUDIO})
PICTURE = bytes(range(256)) * 1024  # 256 KiB: too large to travel inside a payload


@pytest.fixture(scope="module")
def echo() -> Iterator[OneProcess]:
    with one_process(FAMILY) as echo:
        yield echo


def asking(*parts: Part | str, **params: object) -> GenerationRequest:
    said = tuple(Text(part) if isinstance(part, str) else part for part in parts)
    return GenerationRequest("echo", (Message(Role.USER, said),), GenerationParams(**params))  # type: ignore[arg-type]


def test_a_text_comes_back_in_capitals_word_by_word(echo: OneProcess) -> None:
    outcome = echo.run(asking("hello  small\nworld"))

    assert [getattr(output, "text", None) for output in outcome.outputs["write"]] == ["HELLO", " SMALL", " WORLD"]
    assert outcome.results["write"] == TerminalResult(FinishReason.STOP, Usage(3, completion_text_tokens=3))
    assert outcome.visited == ["split", "upper", "join", "say", "write"]


def test_a_request_visits_only_the_stages_that_its_message_needs(echo: OneProcess) -> None:
    picture = Media(Modality.IMAGE, PICTURE)

    assert echo.run(asking(picture)).visited == ["split", "count", "join", "say", "write"]
    assert echo.run(asking("see", picture, modalities=SPOKEN)).visited == [s.name for s in FAMILY.pipeline.stages]


def test_files_are_told_by_kind_size_and_checksum_in_their_place(echo: OneProcess) -> None:
    outcome = echo.run(asking("look", Media(Modality.IMAGE, PICTURE), "at this", Media(Modality.AUDIO, b"bleep")))

    picture, bleep = (f"{zlib.crc32(data):08x}" for data in (PICTURE, b"bleep"))
    assert outcome.text == f"LOOK image:262144:{picture} AT THIS audio:5:{bleep}"


def test_speech_is_a_tone_of_80_ms_for_each_word(echo: OneProcess) -> None:
    outcome = echo.run(asking("tick tock tick", modalities=SPOKEN))

    assert outcome.text == "TICK TOCK TICK"
    assert [(len(tone.pcm), tone.sample_rate) for tone in outcome.sound] == [(2 * 1920, 24_000)] * 3
    assert outcome.sound[0].pcm == outcome.sound[2].pcm != outcome.sound[1].pcm
    assert outcome.results["beep"] == TerminalResult(None, Usage(completion_audio_tokens=3))


def test_the_high_voice_is_an_octave_above_the_low_one(echo: OneProcess) -> None:
    low, high = (echo.run(asking("tick", modalities=SPOKEN, voice=voice)).sound[0].pcm for voice in ("low", "high"))

    assert _pitch(high) == pytest.approx(2 * _pitch(low), rel=0.05)


def _pitch(pcm: bytes) -> float:
    spectrum = np.abs(np.fft.rfft(np.frombuffer(pcm, "<i2"), 24_000 * 4))
    return float(spectrum.argmax()) / 4


def test_the_token_limit_bounds_the_words(echo: OneProcess) -> None:
    outcome = echo.run(asking("one two three", sampling=Sampling(max_tokens=2), modalities=SPOKEN))

    assert outcome.text == "ONE TWO"
    assert outcome.results["write"] == TerminalResult(FinishReason.LENGTH, Usage(3, completion_text_tokens=2))
    assert len(outcome.sound) == 2


def test_a_limit_for_the_stage_wins_over_the_general_one(echo: OneProcess) -> None:
    limits = {"sampling": Sampling(max_tokens=1), "stage_sampling": {"say": Sampling(max_tokens=3)}}

    assert echo.run(asking("one two three", **limits)).text == "ONE TWO THREE"


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        pytest.param(("WO",), "ONE T", id="inside a word"),
        pytest.param(("THREE", "TWO"), "ONE ", id="the earliest of several"),
        pytest.param(("ONE",), "", id="at the very start"),
        pytest.param(("FOUR",), "ONE TWO THREE", id="nowhere"),
    ],
)
def test_the_text_ends_before_the_first_stop_string(echo: OneProcess, stop: tuple[str, ...], text: str) -> None:
    outcome = echo.run(asking("one two three", stop=stop, modalities=SPOKEN))

    assert outcome.text == text
    assert outcome.results["write"].finish_reason is FinishReason.STOP


def test_only_the_last_user_message_is_echoed(echo: OneProcess) -> None:
    said = (Role.SYSTEM, "be brief"), (Role.USER, "first"), (Role.USER, "second"), (Role.ASSISTANT, "SEC")
    messages = tuple(Message(role, (Text(text),)) for role, text in said)

    assert echo.run(GenerationRequest("echo", messages)).text == "SECOND"


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param((), id="no message"),
        pytest.param((Message(Role.SYSTEM, (Text("hi"),)),), id="none of the user"),
        pytest.param((Message(Role.USER, (Text("  "),)),), id="only spaces"),
    ],
)
def test_nothing_to_echo_is_an_invalid_request(echo: OneProcess, messages: tuple[Message, ...]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        echo.run(GenerationRequest("echo", messages))

    assert refused.value.param == "messages"


def test_an_unknown_voice_is_an_invalid_request(echo: OneProcess) -> None:
    with pytest.raises(InvalidRequest, match="no voice 'shrill'") as refused:
        echo.run(asking("hello", modalities=SPOKEN, voice="shrill"))

    assert refused.value.param == "audio.voice"


def test_many_requests_are_said_side_by_side_each_to_its_end() -> None:
    say = FAMILY.factories["say"](context(FAMILY, FAMILY.pipeline.stage("say"), None)).scheduler
    answers = Answers()
    scripts = {RequestKey(f"request-{n}"): tuple(f"{n}.{word}" for word in range(n + 1)) for n in range(8)}

    for key, words in scripts.items():
        say.submit(NewRequest(key, GenerationParams(), Script(words, spoken=False)))
    say.start(answers)
    try:
        for key in scripts:
            answers.end_of(key)
    finally:
        say.stop()

    for key, words in scripts.items():
        said = [chunk for chunk in answers.chunks(key) if isinstance(chunk, Word)]
        assert "".join(word.text for word in said) == " ".join(words)
        assert [word.finish for word in said] == [None] * (len(words) - 1) + [FinishReason.STOP]
