"""`omni chat`."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from omni_cli.conversation import Answer, Question, ask, open_client
from omni_cli.served import model_for
from omni_cli.speech_file import complete, format_of, require_speech_file
from omni_cli.waterfall import render_waterfall
from omni_common.request import Task


async def chat(question: Question, *, url: str, model: str | None, speak: Path | None, timings: bool) -> None:
    with ExitStack() as writing:
        form, keep = _place(writing, speak)
        async with open_client(url) as client:
            model = model or await model_for(client, Task.CHAT)
            answer = await ask(client, model, question, speak=speak is not None, on_text=show_text, form=form)
        print()
        keep(answer.speech)
    if speak is not None:
        print(where(answer, speak))
    if timings:
        print(render_waterfall(answer.timings))


def where(answer: Answer, file: Path) -> str:
    return f"{'The speech is' if answer.seconds is None else f'{answer.seconds:.1f} s of speech are'} in {file}"


def _place(writing: ExitStack, speak: Path | None) -> tuple[str, Callable[[bytes | bytearray], object]]:
    """The form to ask for, and what keeps the speech. Raises CommandError where it could not be kept."""
    if speak is None:
        return "pcm", lambda _: None
    require_speech_file(speak)
    return format_of(speak), writing.enter_context(complete(speak)).write


def show_text(piece: str) -> None:
    """A model may write anything, and a terminal obeys control characters; they are shown as a dot instead."""
    print("".join("·" if _commands(c) else c for c in piece), end="", flush=True)


def _commands(character: str) -> bool:
    # Only these: joiners and spaces of many kinds, which are not printable either, belong to texts of many languages.
    return unicodedata.category(character) == "Cc" and character not in "\n\t"
