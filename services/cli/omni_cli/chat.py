"""`omni chat`."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from omni_cli.conversation import Question, ask, open_client, require_wav, write_wav
from omni_cli.served import model_for
from omni_cli.waterfall import render_waterfall
from omni_common.request import Task


async def chat(question: Question, *, url: str, model: str | None, speak: Path | None, timings: bool) -> None:
    if speak is not None:
        require_wav(speak)
    async with open_client(url) as client:
        model = model or await model_for(client, Task.CHAT)
        answer = await ask(client, model, question, speak=speak is not None, on_text=show_text)
    print()
    if speak is not None:
        write_wav(speak, answer.speech)
        print(f"{answer.seconds:.1f} s of speech are in {speak}")
    if timings:
        print(render_waterfall(answer.timings))


def show_text(piece: str) -> None:
    """A model may write anything, and a terminal obeys control characters; they are shown as a dot instead."""
    print("".join("·" if _commands(c) else c for c in piece), end="", flush=True)


def _commands(character: str) -> bool:
    # Only these: joiners and spaces of many kinds, which are not printable either, belong to texts of many languages.
    return unicodedata.category(character) == "Cc" and character not in "\n\t"
