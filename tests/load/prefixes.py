"""What kept prompts save: `python -m tests.load.prefixes`.

The same short questions behind a long system prompt, of one mesh that keeps nothing and of one that keeps what prompts
begin with: behind a system prompt that it has never seen, and behind one that it has. Time to the first text, over
HTTP. The three take turns within each round.

A tiny model computes little for each token, and every request passes ten processes: what a real model saves is more.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import count

import anyio
from tests.load.mesh import running_mesh
from tests.load.report import Series, machine, millis, table, times
from tests.load.tax import FAMILY, checkpoint
from tests.load.ways import Http, http, question
from transformers import AutoTokenizer
from transformers import logging as transformers_logging

from omni_common.request import GenerationRequest, Message, Role, Text

SETTING = "OMNI_STAGE_PREFIX_CACHE"
ROUNDS = 5
ASKED = 6
# Letters of the system prompt, two for a token; the tiny model takes 4096 tokens in all.
LENGTHS = (250, 2000, 7500)
DEADLINE = 500.0
OFF, NEW, KNOWN = "nothing kept", "kept, new prompt", "kept, known prompt"

_numbers = count(1)


@contextmanager
def keeping(size: str) -> Iterator[None]:
    """For processes that are started meanwhile."""
    before = os.environ.get(SETTING)
    os.environ[SETTING] = size
    try:
        yield
    finally:
        if before is None:
            del os.environ[SETTING]
        else:
            os.environ[SETTING] = before


@asynccontextmanager
async def mesh_that_keeps(size: str) -> AsyncIterator[Http]:
    with keeping(size):
        async with running_mesh(FAMILY, checkpoint()) as mesh, http(mesh) as caller:
            yield caller


def rules(length: int, name: object) -> str:
    """So many letters that begin with the name."""
    return f"{name}: " + ("Answer in a short sentence, in the language of the question. " * 150)[:length]


def asked(system: str) -> GenerationRequest:
    """A question that nobody has asked before."""
    plain = question(FAMILY, f"What is {next(_numbers)}?", seed=4, max_tokens=2)
    return GenerationRequest(FAMILY, (Message(Role.SYSTEM, (Text(system),)), *plain.messages), plain.params)


def new(length: int) -> GenerationRequest:
    return asked(rules(length, next(_numbers)))


def known(length: int) -> GenerationRequest:
    return asked(rules(length, "The rules"))


async def measure() -> Mapping[int, Mapping[str, Series]]:
    with anyio.fail_after(DEADLINE):
        async with mesh_that_keeps("0") as off, mesh_that_keeps("256MiB") as kept:
            measured = {length: {name: Series() for name in (OFF, NEW, KNOWN)} for length in LENGTHS}
            for length, series in measured.items():
                ways = {OFF: partial(_ask, off, new), NEW: partial(_ask, kept, new), KNOWN: partial(_ask, kept, known)}
                for ask in ways.values():
                    await ask(length)
                for _ in range(ROUNDS):
                    for name, ask in ways.items():
                        series[name].add([await ask(length) for _ in range(ASKED)])
    return measured


async def _ask(caller: Http, make: Callable[[int], GenerationRequest], length: int) -> float:
    """Seconds to the first text."""
    heard = await caller.ask(make(length))
    if heard.first_text is None:
        raise ValueError("An answer came without text.")
    return heard.first_text


def show(measured: Mapping[int, Mapping[str, Series]]) -> str:
    transformers_logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint())
    rows = []
    for length, series in measured.items():
        off, cold, warm = series[OFF], series[NEW], series[KNOWN]
        tokens = len(tokenizer(rules(length, "The rules"))["input_ids"])
        cells = [f"{tokens:,} tokens", millis(off.p50), millis(cold.p50), millis(warm.p50)]
        rows.append([*cells, times(cold.ratio_to(off)), times(warm.ratio_to(cold))])
    return table(["system prompt", f"{OFF}, ms", f"{NEW}, ms", f"{KNOWN}, ms", "new to off", "known to new"], rows)


def main() -> None:
    before = time.strftime("%H:%M", time.gmtime())
    print(f"Time to the first text, tiny Qwen3-Omni (p50 of {ROUNDS} rounds, from {before} UTC). {machine()}.\n")
    print(show(anyio.run(measure, backend_options={"use_uvloop": True})))


if __name__ == "__main__":
    main()
