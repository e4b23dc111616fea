"""`omni demo`: everything once, on real input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import openai

from omni_cli.chat import show_text, where
from omni_cli.checkpoint import make_tiny_checkpoint
from omni_cli.conversation import Question, ask, open_client
from omni_cli.launcher.mesh import open_mesh
from omni_cli.launcher.network import free_port
from omni_cli.launcher.plan import Served, Wishes
from omni_cli.served import model_for
from omni_cli.speak import Script, say
from omni_cli.speech_file import complete
from omni_cli.transcribe import Recording, hear
from omni_cli.waterfall import render_waterfall
from omni_cli.word_errors import word_errors
from omni_common.request import Task

FAMILY = "qwen3-omni"
# What the demo says and hears, with the weights that are installed with it.
VOICES = ("piper", "whisper")
SENTENCE = "Good morning. One model speaks this sentence, and another one writes down what it hears."
_SPOKEN = "spoken.wav"
_HOST = "127.0.0.1"
_TINY = Path(".omni/tiny-qwen3-omni")
# Random weights rarely end a sentence by themselves.
_TINY_TOKENS = 48
ABOUT_TINY = f"""
The weights in {_TINY} are tiny and random: what they write and say is noise, made by the real computation.
For a model that knows something give it real ones: make demo MODEL=/path/or/hub-id"""


def tiny_checkpoint() -> str:
    """Where it is; made when there is none."""
    if not (_TINY / "config.json").is_file():
        print(f"Making a tiny random {FAMILY} in {_TINY}.", flush=True)
        make_tiny_checkpoint(FAMILY, _TINY)
    return str(_TINY)


def for_tiny(question: Question) -> Question:
    return replace(question, max_tokens=_TINY_TOKENS, seed=1)


async def demo(question: Question, served: Sequence[Served], *, speak: Path, verbose: bool) -> None:
    wishes = Wishes(served, host=_HOST, port=free_port(_HOST))
    async with open_mesh(wishes, say=_say, verbose=verbose) as mesh:
        await mesh.until_ready()
        url = f"{mesh.url}/v1"
        _say(f"omni is ready at {url}")
        speak.parent.mkdir(parents=True, exist_ok=True)
        async with open_client(url) as client:
            await _round_trip(client, speak.with_name(_SPOKEN))
            await _converse(client, question, speak)


async def _round_trip(client: openai.AsyncOpenAI, spoken: Path) -> None:
    """One model says a sentence, another writes down what it heard."""
    voice, ear = await model_for(client, Task.SPEECH), await model_for(client, Task.TRANSCRIPTION)
    _say(f"\n{voice} says:   {SENTENCE}")
    speech = await say(client, voice, Script(SENTENCE), spoken)
    _say(f"It is in {spoken}: {speech.seconds:.1f} s, the first sound after {speech.first:.2f} s.")
    heard = await hear(client, ear, Recording(spoken), spoken.read_bytes(), lambda _: None)  # noqa: ASYNC240 -- small
    _say(f"{ear} heard: {heard}")
    score = word_errors(SENTENCE, heard)
    _say(f"Word error rate: {score.errors} of {score.words} words, {score.rate:.1%}.")


async def _converse(client: openai.AsyncOpenAI, question: Question, speak: Path) -> None:
    shown = ", ".join(str(path) for path in (*question.images, *question.audios, *question.videos))
    _say(f"\nAsking {FAMILY} with {shown}. It answers:\n")
    answer = await ask(client, FAMILY, question, speak=True, on_text=show_text)
    with complete(speak) as file:
        file.write(answer.speech)
    _say(f"\n\n{where(answer, speak)}. The stages worked so:\n")
    _say(render_waterfall(answer.timings))


def _say(line: str) -> None:
    print(line, flush=True)
