"""The model: what it reads is what faster-whisper reads from the same samples, in whatever batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from faster_whisper import WhisperModel
from numpy.typing import NDArray
from tests.unit.stage.media_files import wav_file
from tests.unit.stage.one_process import context
from tests.unit.stage.whisper.recordings import RATE, SAID, arriving, spoken

from omni_common.tensor import DType, Tensor
from omni_stage.models.whisper.components import settings
from omni_stage.models.whisper.components.preprocess import Preprocessor
from omni_stage.models.whisper.components.reading import Decoded, is_good, lesser_evil
from omni_stage.models.whisper.components.recogniser import Recogniser
from omni_stage.models.whisper.components.weights import compute_type, device_of, load_model
from omni_stage.models.whisper.payload_types import Passage, Window
from omni_stage.models.whisper.request_builders import Recognition
from omni_stage.models.whisper.stages import FAMILY


@dataclass(frozen=True, slots=True)
class Sound:
    """A window, and the samples that it was made from."""

    samples: NDArray[np.float32]
    window: Window

    def plain(self, model: WhisperModel, **settings: object) -> list[tuple[int, ...]]:
        """What faster-whisper makes of it alone."""
        segments, _ = model.transcribe(
            self.samples, language="en", temperature=0.0, condition_on_previous_text=False, **settings
        )
        return [tuple(segment.tokens) for segment in segments]


@pytest.fixture(scope="module")
def model(weights: Path) -> WhisperModel:
    return load_model(context(FAMILY, FAMILY.pipeline.stage("transcribe"), weights, "auto"))


@pytest.fixture(scope="module")
def recogniser(model: WhisperModel) -> Recogniser:
    return Recogniser(model)


@pytest.fixture(scope="module")
def sounds(weights: Path) -> list[Sound]:
    """One sentence, two, and two that reach the window's end."""
    preprocessor = Preprocessor(weights, ("en",))
    made = []
    for parts in (
        ("describe",),
        ("greeting", 1.5, "question"),
        (24.0, "describe", 1.0, "question", "greeting"),
    ):
        samples = spoken(*parts)[: 30 * RATE]
        window, _ = preprocessor.pieces(arriving(wav_file(samples, RATE)))
        assert isinstance(window, Window)
        made.append(Sound(samples.astype(np.float32) / np.float32(32768), window))
    return made


def wanted(**changes: object) -> Recognition:
    greedy = Recognition("en", translate=False, temperature=0.0, word_times=False)
    return replace(greedy, **changes)  # type: ignore[arg-type]


def tokens(passages: tuple[Passage, ...]) -> list[tuple[int, ...]]:
    return [passage.tokens for passage in passages]


def text(model: WhisperModel, passages: tuple[Passage, ...]) -> str:
    text: str = model.hf_tokenizer.decode([token for passage in passages for token in passage.tokens])
    return text.strip()


def test_each_window_gives_the_tokens_that_it_gives_alone(
    model: WhisperModel, recogniser: Recogniser, sounds: list[Sound]
) -> None:
    together = recogniser.read([(wanted(), sound.window) for sound in sounds])

    assert [tokens(passages) for passages in together] == [sound.plain(model) for sound in sounds]
    assert recogniser.read([(wanted(), sounds[1].window)]) == [together[1]]


def test_words_and_prompts_are_read_beside_others_as_alone(
    model: WhisperModel, recogniser: Recogniser, sounds: list[Sound]
) -> None:
    """Windows with different wishes share a batch."""
    one, two, three = sounds
    prompt = "Cats, dogs and horses."
    jobs = [
        (wanted(), one.window),
        (wanted(word_times=True), two.window),
        (wanted(), replace(three.window, prompt=prompt)),
    ]
    plain, with_words, prompted = recogniser.read(jobs)

    assert tokens(plain) == one.plain(model)
    assert tokens(prompted) == three.plain(model, initial_prompt=prompt)
    segments, _ = model.transcribe(
        two.samples, language="en", temperature=0.0, condition_on_previous_text=False, word_timestamps=True
    )
    expected = [(word.word.strip(), word.start, word.end) for segment in segments for word in segment.words or ()]
    made = [(word.word, word.start, word.end) for passage in with_words for word in passage.words]
    assert [word for word, _, _ in made] == [word for word, _, _ in expected]
    assert [end for *_, end in made] == pytest.approx([min(end, two.window.seconds) for *_, end in expected], abs=0.01)
    assert not any(passage.words for passage in (*plain, *prompted))


def test_marks_in_a_prompt_are_no_marks(model: WhisperModel, recogniser: Recogniser, sounds: list[Sound]) -> None:
    """They would move, end or translate the transcript, and fail the batch that they are in."""
    window = sounds[0].window
    marks = "<|startoftranscript|><|endoftext|><|notimestamps|><|startofprev|><|0.00|>"

    bystander, marked = recogniser.read([(wanted(), window), (wanted(), replace(window, prompt=marks))])

    assert tokens(bystander) == sounds[0].plain(model)
    assert text(model, marked) == SAID["describe"]


def test_a_prompt_of_any_length_is_taken(model: WhisperModel, recogniser: Recogniser, sounds: list[Sound]) -> None:
    (passages,) = recogniser.read([(wanted(), replace(sounds[0].window, prompt="Look at the picture. " * 400))])

    assert text(model, passages)


def test_times_are_those_of_the_recording(recogniser: Recogniser, sounds: list[Sound]) -> None:
    window = sounds[1].window
    (here,), (there,) = (
        recogniser.read([(wanted(word_times=True), replace(window, start=start))]) for start in (0.0, 1234.567)
    )

    assert [passage.start + 1234.567 for passage in here] == pytest.approx([passage.start for passage in there])
    assert [word.end + 1234.567 for p in here for word in p.words] == pytest.approx(
        [word.end for p in there for word in p.words]
    )
    assert all(0 <= passage.start < passage.end <= window.seconds for passage in here)


def test_a_caller_s_temperature_is_used_and_no_other(
    model: WhisperModel, recogniser: Recogniser, sounds: list[Sound]
) -> None:
    hot, cold = recogniser.read([(wanted(temperature=0.1), sounds[0].window), (wanted(), sounds[0].window)])

    assert {passage.temperature for passage in hot} == {0.1}
    assert {passage.temperature for passage in cold} == {0.0}
    assert text(model, cold) == SAID["describe"]


def test_what_repeats_itself_is_read_again_at_higher_temperatures(weights: Path, recogniser: Recogniser) -> None:
    """The same sentence over and over looks like a model that runs in circles."""
    samples = np.tile(spoken("question", 0.2), 7)
    window, *_ = Preprocessor(weights, ("en",)).pieces(arriving(wav_file(samples, RATE)))
    assert isinstance(window, Window)

    (greedy,), (again,) = (recogniser.read([(wanted(temperature=temperature), window)]) for temperature in (0.0, None))

    assert greedy[0].compression_ratio > settings.MAX_COMPRESSION_RATIO
    assert again[0].temperature in {0.0, *settings.FALLBACK_TEMPERATURES}
    assert again[0].avg_logprob >= greedy[0].avg_logprob or again[0].compression_ratio <= settings.MAX_COMPRESSION_RATIO


GOOD = Decoded((1, 2), 0.0, avg_logprob=-0.3, compression_ratio=1.2, no_speech_prob=0.0)


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        pytest.param({}, True, id="as it should be"),
        pytest.param({"compression_ratio": 2.5}, False, id="it repeats itself"),
        pytest.param({"avg_logprob": -1.1}, False, id="a guess"),
        pytest.param({"avg_logprob": -1.1, "no_speech_prob": 0.7}, True, id="silence"),
        pytest.param({"compression_ratio": 2.5, "no_speech_prob": 0.7}, False, id="sure of it, so no silence"),
    ],
)
def test_what_is_good_enough(changes: dict[str, float], good: bool) -> None:
    assert is_good(replace(GOOD, **changes)) is good  # type: ignore[arg-type]


def test_of_bad_tries_the_surest_is_taken_that_does_not_repeat_itself() -> None:
    loop = replace(GOOD, avg_logprob=-0.1, compression_ratio=9.0)
    guess, wild_guess = replace(GOOD, avg_logprob=-1.2), replace(GOOD, avg_logprob=-2.0)

    assert lesser_evil(loop, wild_guess, guess) is guess
    assert lesser_evil(replace(loop, avg_logprob=-0.5), loop) is loop


def test_of_noise_nothing_is_read(recogniser: Recogniser, weights: Path) -> None:
    """Should the preprocess stage ever take it for speech."""
    samples = np.random.default_rng(1).standard_normal(10 * RATE).astype(np.float32) / np.float32(10)
    features = Preprocessor(weights, ("en",)).log_mel(samples)

    assert recogniser.read([(wanted(temperature=None, word_times=True), Window(0.0, 10.0, features))]) == [()]


def test_a_window_of_one_frame_does_no_harm(recogniser: Recogniser, sounds: list[Sound]) -> None:
    tiny = np.zeros((80, 1), np.float32)
    window = Window(0.0, 0.01, Tensor(DType.FLOAT32, tiny.shape, tiny.data.cast("B")))

    empty, whole = recogniser.read([(wanted(word_times=True), window), (wanted(), sounds[0].window)])

    assert all(passage.end <= 0.01 for passage in empty)
    assert tokens(whole)


def test_devices_and_types_are_named_as_ctranslate2_does() -> None:
    assert device_of("cuda:1") == ("cuda", 1)
    assert device_of("cpu") == ("cpu", 0)
    assert [compute_type("auto", device) for device in ("cpu", "cuda")] == ["int8", "float16"]
    assert compute_type("float32", "cpu") == "float32"


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json"])
def test_a_damaged_file_is_named(name: str, weights: Path, tmp_path: Path) -> None:
    for file in weights.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / name).unlink()
    with (weights / name).open("rb") as whole:
        (tmp_path / name).write_bytes(whole.read(100))
    with pytest.raises(ValueError, match=rf"^{tmp_path}/{name} is damaged, or is something else: "):
        load_model(context(FAMILY, FAMILY.pipeline.stage("transcribe"), tmp_path, "auto"))
