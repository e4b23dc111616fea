"""One trial for each thing that a model can do: what was measured, and what is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import as_file, files

import openai

from omni_cli.conversation import Question, ask
from omni_cli.served import Abilities
from omni_cli.speak import Script, utter
from omni_cli.transcribe import Recording, hear
from omni_cli.verify.sound import Sound, level_text, sound_of, wrong_with
from omni_cli.word_errors import word_errors
from omni_common.request import Modality, Task

# What is said in the packaged recording, and what speech models say.
UTTERANCE = "Good morning, how can I help you today?"
# A model that never ends is cut short: what is tried is the way through the mesh.
_TOKENS = 48
# A tiny random model ends where it likes, with some seeds before it has made a sound. One that fails fails with all.
_SEEDS = (0, 1, 2)
_LEAST_ANSWER = 0.2
_LEAST_SENTENCE = 0.5


@dataclass(frozen=True, slots=True)
class Trial:
    """`measured` are parts of a line, `wrong` are sentences."""

    measured: Sequence[str]
    wrong: Sequence[str] = ()


Try = Callable[[openai.AsyncOpenAI, str, Abilities], Awaitable[Trial]]


async def try_chat(client: openai.AsyncOpenAI, model: str, abilities: Abilities) -> Trial:
    """By voice where the model hears, and with an answer by voice where it speaks."""
    speaks = Modality.AUDIO in abilities.output_modalities
    words: list[str] = []
    begun = time.monotonic()
    with as_file(files(__package__) / "utterance.wav") as file:
        question = (
            Question("", audios=(file,), max_tokens=_TOKENS, seed=1)
            if Modality.AUDIO in abilities.input_modalities
            else Question(UTTERANCE, max_tokens=_TOKENS, seed=1)
        )
        answer = await ask(client, model, question, speak=speaks, on_text=words.append)
    took = time.monotonic() - begun
    measured = [] if answer.first_text is None else [f"first text {answer.first_text:.2f} s"]
    wrong = [] if "".join(words).strip() else ["No text came."]
    if speaks:
        sound = sound_of(answer.speech)
        measured += _heard(sound, answer.first_sound, took)
        wrong += wrong_with(sound, at_least=_LEAST_ANSWER)
    return Trial(measured, wrong)


async def try_speech(client: openai.AsyncOpenAI, model: str, abilities: Abilities) -> Trial:
    """In its own voice; the last seed's failure is the trial's."""
    del abilities
    for seed in _SEEDS[:-1]:
        with suppress(openai.InternalServerError):
            if not (trial := await _speech(client, model, seed)).wrong:
                return trial
    return await _speech(client, model, _SEEDS[-1])


async def _speech(client: openai.AsyncOpenAI, model: str, seed: int) -> Trial:
    speech = bytearray()
    begun = time.monotonic()
    spoken = await utter(client, model, Script(UTTERANCE, seed=seed), "pcm", speech.extend)
    sound = sound_of(speech)
    measured = _heard(sound, spoken.first, time.monotonic() - begun)
    return Trial(measured, [*wrong_with(sound, at_least=_LEAST_SENTENCE)])


async def try_transcription(client: openai.AsyncOpenAI, model: str, abilities: Abilities) -> Trial:
    """What it mishears is told, and is no failure: that is between the model and its weights."""
    del abilities
    first: list[float] = []
    begun = time.monotonic()
    with as_file(files(__package__) / "utterance.wav") as file:
        recording = Recording(file)
        data = file.read_bytes()  # small, and of this distribution
    text = await hear(client, model, recording, data, lambda _: first.append(time.monotonic() - begun))
    measured = [f"first text {first[0]:.2f} s"] if first else []
    if not text.strip():
        return Trial(measured, ["No text came."])
    score = word_errors(UTTERANCE, text)
    return Trial([*measured, f"{len(text.split())} words heard, {score.errors} of {score.words} wrong"])


TRIALS: Mapping[Task, Try] = {
    Task.CHAT: try_chat,
    Task.SPEECH: try_speech,
    Task.TRANSCRIPTION: try_transcription,
}


def _heard(sound: Sound, first: float | None, took: float) -> list[str]:
    """RTF: the time that it took over its length."""
    if not sound.seconds:
        return []
    return [
        f"first audio {first or 0.0:.2f} s",
        f"{sound.seconds:.2f} s of audio",
        f"RTF {took / sound.seconds:.2f}",
        level_text(sound.level),
    ]
