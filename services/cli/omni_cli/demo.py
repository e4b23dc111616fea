"""`omni demo`: everything once, on real input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omni_cli.chat import show_text
from omni_cli.checkpoint import make_tiny_checkpoint
from omni_cli.conversation import Question, ask, open_client, write_wav
from omni_cli.launcher.mesh import open_mesh
from omni_cli.launcher.network import free_port
from omni_cli.launcher.plan import Served, Wishes
from omni_cli.waterfall import render_waterfall

FAMILY = "qwen3-omni"
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
        _say(f"omni is ready at {mesh.url}/v1")
        await _converse(f"{mesh.url}/v1", mesh.pipelines[0].name, question, speak)


async def _converse(url: str, model: str, question: Question, speak: Path) -> None:
    shown = ", ".join(str(path) for path in (*question.images, *question.audios, *question.videos))
    _say(f"\nAsking {model} with {shown}. It answers:\n")
    async with open_client(url) as client:
        answer = await ask(client, model, question, speak=True, on_text=show_text)
    speak.parent.mkdir(parents=True, exist_ok=True)
    write_wav(speak, answer.speech)
    _say(f"\n\n{answer.seconds:.1f} s of speech are in {speak}. The stages worked so:\n")
    _say(render_waterfall(answer.timings))


def _say(line: str) -> None:
    print(line, flush=True)
