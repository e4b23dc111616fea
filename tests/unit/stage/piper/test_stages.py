"""Both stages in one process, with the packaged voice: what a caller gets, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.unit.stage.one_process import OneProcess, context

from omni_common.errors import InvalidRequest, OmniError, Reason, Unsupported
from omni_common.request import (
    AudioOutput,
    GenerationParams,
    GenerationRequest,
    Message,
    Modality,
    RequestKey,
    Role,
    Sampling,
    Task,
    TerminalResult,
    Text,
)
from omni_stage.models.piper.payload_types import Sentence
from omni_stage.models.piper.stages import FAMILY
from omni_stage.scheduler.contract import Chunk, Done, Dropped, Emit, NewRequest, Pause, Result, Resume
from omni_stage.testing.answers import Answers

RATE = 22050
PAUSE = bytes(2 * int(0.2 * RATE))
PARAMS = GenerationParams(modalities=frozenset({Modality.AUDIO}), task=Task.SPEECH)


def speech(text: str, **params: object) -> GenerationRequest:
    changed = replace(PARAMS, **params)  # type: ignore[arg-type]
    return GenerationRequest("piper", (Message(Role.USER, (Text(text, "input"),)),), changed)


def sound(piper: OneProcess, text: str, **params: object) -> bytes:
    return b"".join(output.pcm for output in piper.run(speech(text, **params)).sound)


def test_a_text_is_spoken(piper: OneProcess) -> None:
    outcome = piper.run(speech("Good morning, how can I help you today?"))
    samples = np.frombuffer(b"".join(output.pcm for output in outcome.sound), "<i2")
    result = outcome.results["synthesise"]

    assert {output.sample_rate for output in outcome.sound} == {RATE}
    assert 1.5 < len(samples) / RATE < 4
    assert np.abs(samples).max() > 5000
    assert result.finish_reason is None
    assert result.usage.completion_audio_tokens * 256 == len(samples)
    assert 30 < result.usage.prompt_tokens < 60


def test_outputs_are_short_so_that_a_slow_caller_holds_little(piper: OneProcess) -> None:
    sizes = [len(output.pcm) for output in piper.run(speech("This takes more than half a second to say.")).sound]

    assert set(sizes[:-1]) == {RATE}  # bytes: half a second of 16 bits
    assert 0 < sizes[-1] <= RATE


def test_between_sentences_there_is_a_pause_and_after_the_last_none(piper: OneProcess) -> None:
    both, one, two = (sound(piper, text) for text in ("Yes. No!", "Yes.", "No!"))

    assert both == one + PAUSE + two


def test_the_same_text_always_sounds_the_same_and_another_seed_different(piper: OneProcess) -> None:
    plain, again, zero, other, own = (
        sound(piper, "Say it again.", **settings)
        for settings in (
            {},
            {},
            {"sampling": Sampling(seed=0)},
            {"sampling": Sampling(seed=1)},
            {"stage_sampling": {"synthesise": Sampling(seed=1)}},
        )
    )

    assert plain == again == zero != other == own


def test_the_voice_may_be_named(piper: OneProcess) -> None:
    assert sound(piper, "Yes.", voice="en_US-joe-medium") == sound(piper, "Yes.")


INSTRUCTED = GenerationRequest(
    "piper", (Message(Role.SYSTEM, (Text("Whisper."),)), Message(Role.USER, (Text("Hello.", "input"),))), PARAMS
)


@pytest.mark.parametrize(
    ("request_", "kind", "param", "code"),
    [
        pytest.param(speech(""), InvalidRequest, "input", None, id="no text"),
        pytest.param(speech("🙂 ... ?!"), InvalidRequest, "input", None, id="nothing to say"),
        pytest.param(speech("a" * 4097), InvalidRequest, "input", "string_above_max_length", id="too long"),
        pytest.param(speech("Hi.", voice="nobody"), InvalidRequest, "voice", None, id="unknown voice"),
        pytest.param(INSTRUCTED, Unsupported, "instructions", None, id="instructions"),
        pytest.param(
            speech("Hi.", sampling=Sampling(temperature=0.5)), Unsupported, "temperature", None, id="a setting of text"
        ),
        pytest.param(
            speech("Hi.", stage_sampling={"synthesise": Sampling(top_p=0.5)}),
            Unsupported,
            "top_p",
            None,
            id="its stage",
        ),
        pytest.param(speech("Hi.", stop=("x",)), Unsupported, "stop", None, id="stop strings"),
    ],
)
def test_what_cannot_be_spoken_names_the_field_at_fault(
    piper: OneProcess, request_: GenerationRequest, kind: type[OmniError], param: str, code: str | None
) -> None:
    with pytest.raises(kind) as refused:
        piper.run(request_)

    assert (refused.value.param, refused.value.code) == (param, code)
    assert refused.value.reason in (Reason.INVALID_REQUEST, Reason.UNSUPPORTED)


class Running:
    """One stage, started."""

    def __init__(self, name: str, folder: Path) -> None:
        self.answers = Answers()
        self.scheduler = FAMILY.factories[name](context(FAMILY, FAMILY.pipeline.stage(name), folder)).scheduler
        self.scheduler.start(self.answers)


@pytest.fixture(scope="module")
def preprocess(joe: Path) -> Iterator[Running]:
    yield from _running("preprocess", joe)


@pytest.fixture(scope="module")
def synthesise(joe: Path) -> Iterator[Running]:
    yield from _running("synthesise", joe)


def _running(name: str, folder: Path) -> Iterator[Running]:
    stage = Running(name, folder)
    try:
        yield stage
    finally:
        stage.scheduler.stop()


def test_as_much_as_a_request_may_hold_becomes_sentences(preprocess: Running) -> None:
    key, text = RequestKey("long"), ("The quick brown fox jumps over the lazy dog. " * 100)[:4096]
    preprocess.scheduler.submit(NewRequest(key, PARAMS, speech(text)))

    assert isinstance(preprocess.answers.end_of(key), Result)
    pauses = [chunk.pause for chunk in preprocess.answers.chunks(key) if isinstance(chunk, Sentence)]
    assert pauses == [True] * 91 + [False]


def test_sentences_wait_while_the_way_out_is_full(preprocess: Running) -> None:
    key, after = RequestKey("held"), RequestKey("after")
    preprocess.scheduler.submit(NewRequest(key, PARAMS, speech("One. Two. Three.")))
    preprocess.scheduler.submit(Pause(key))
    preprocess.scheduler.submit(NewRequest(after, PARAMS, speech("Four.")))
    preprocess.answers.end_of(after)
    assert len(preprocess.answers.chunks(key)) <= 1

    preprocess.scheduler.submit(Resume(key))
    assert isinstance(preprocess.answers.end_of(key), Result)
    assert len(preprocess.answers.chunks(key)) == 3


def test_a_text_that_is_given_up_while_it_is_prepared_leaves_nothing(preprocess: Running) -> None:
    key = RequestKey("given up")
    preprocess.scheduler.submit(NewRequest(key, PARAMS, speech("One. " * 800)))
    preprocess.answers.wait_for(lambda said: any(isinstance(answer, Emit) and answer.key == key for answer in said))
    preprocess.scheduler.abort(key)

    assert isinstance(preprocess.answers.end_of(key), Dropped)
    assert len(preprocess.answers.chunks(key)) < 800
    load = preprocess.scheduler.load()
    assert (load.running, load.waiting) == (0, 0)


def test_the_first_sentence_is_heard_before_the_second_is_given(synthesise: Running, preprocess: Running) -> None:
    first, second = sentences(preprocess, "Here is the first. And the second.")
    key = RequestKey("early")
    synthesise.scheduler.submit(NewRequest(key, PARAMS, None))
    synthesise.scheduler.submit(Chunk(key, "preprocess", first))
    synthesise.answers.wait_for(lambda said: any(isinstance(answer, Emit) and answer.key == key for answer in said))
    heard = len(synthesise.answers.chunks(key))

    synthesise.scheduler.submit(Chunk(key, "preprocess", second))
    synthesise.scheduler.submit(Done(key, "preprocess"))
    end = synthesise.answers.end_of(key)
    assert isinstance(end, Result)
    assert isinstance(end.value, TerminalResult)
    assert len(synthesise.answers.chunks(key)) > heard > 0


def test_sentences_of_many_requests_are_computed_together_and_each_is_whole(
    synthesise: Running, preprocess: Running, piper: OneProcess
) -> None:
    texts = {RequestKey(f"request-{n}"): f"This is the sentence with number {n}." for n in range(1, 7)}
    for key, text in texts.items():
        synthesise.scheduler.submit(NewRequest(key, PARAMS, None))
        for chunk in sentences(preprocess, text):
            synthesise.scheduler.submit(Chunk(key, "preprocess", chunk))
        synthesise.scheduler.submit(Done(key, "preprocess"))
    for key, text in texts.items():
        assert isinstance(synthesise.answers.end_of(key), Result)
        heard, alone = (np.frombuffer(pcm, "<i2").astype(int) for pcm in (pcm_of(synthesise, key), sound(piper, text)))
        assert len(heard) == len(alone)
        assert np.abs(heard - alone).max() < 8

    together = [{a.key for a in call if isinstance(a, Emit)} & texts.keys() for call in synthesise.answers.calls]
    assert max(map(len, together)) > 1


def test_speech_that_is_given_up_leaves_nothing_and_disturbs_nobody(synthesise: Running, preprocess: Running) -> None:
    gone, stays = RequestKey("gone"), RequestKey("stays")
    chunks = sentences(preprocess, "One is here. Two is here. Three is here. Four is here.")
    for key in (gone, stays):
        synthesise.scheduler.submit(NewRequest(key, PARAMS, None))
        for chunk in chunks:
            synthesise.scheduler.submit(Chunk(key, "preprocess", chunk))
        synthesise.scheduler.submit(Done(key, "preprocess"))
    synthesise.answers.wait_for(lambda said: any(isinstance(a, Emit) and a.key == gone for a in said))
    synthesise.scheduler.abort(gone)

    assert isinstance(synthesise.answers.end_of(gone), Dropped)
    assert isinstance(synthesise.answers.end_of(stays), Result)
    assert len(pcm_of(synthesise, gone)) < len(pcm_of(synthesise, stays))
    load = synthesise.scheduler.load()
    assert (load.running, load.waiting) == (0, 0)


def sentences(preprocess: Running, text: str) -> list[object]:
    key = RequestKey(f"prepare {text}")
    preprocess.scheduler.submit(NewRequest(key, PARAMS, speech(text)))
    assert isinstance(preprocess.answers.end_of(key), Result)
    return list(preprocess.answers.chunks(key))


def pcm_of(stage: Running, key: RequestKey) -> bytes:
    return b"".join(chunk.pcm for chunk in stage.answers.chunks(key) if isinstance(chunk, AudioOutput))
