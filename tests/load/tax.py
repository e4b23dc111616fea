"""The mesh tax: `python -m tests.load.tax`.

Qwen3-Omni's stages on a tiny random checkpoint, the same questions with speech: in one process, where they hand each
other Python objects, and as a mesh of processes, asked over HTTP. Alone: first text, first audio, whole answer. With
more at once: answers per second of a closed loop. The two take turns within each round, and both must give the same
audio.

A tiny model computes little, so that the mesh's own cost shows. The stages of one process share a GIL; the mesh's do
not.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import anyio
import numpy as np
from tests.load.mesh import Mesh, running_mesh
from tests.load.one_process import one_process
from tests.load.report import Series, machine, millis, table, times
from tests.load.ways import Heard, Http, http, question

from omni_cli.checkpoint import make_tiny_checkpoint
from omni_common.request import GenerationRequest
from omni_stage.models import load_family

FAMILY = "qwen3-omni"
TINY = Path(".omni/tiny-qwen3-omni")
ROUNDS = 3
ALONE = 6
# Answers of one round at each number of requests under way.
AT_ONCE: Mapping[int, int] = {1: 4, 4: 12, 16: 24}
WARM_UP = 4
TOKENS = 24
# This seed makes the random weights speak for 47 codec frames, some four seconds.
QUESTION = question(FAMILY, "What do you hear and see?", speak=True, seed=4, max_tokens=TOKENS)
# Steps of 16-bit samples: a thousandth of full scale, as in the parity tests.
TOLERANCE = 33
DEADLINE = 400.0

Ask = Callable[[GenerationRequest], Awaitable[Heard]]

ONE_PROCESS, MESH = "one process", "mesh"


@dataclass(slots=True)
class Measured:
    first_text: Series = field(default_factory=Series)
    first_audio: Series = field(default_factory=Series)
    total: Series = field(default_factory=Series)
    # Seconds per answer, by how many are under way.
    busy: dict[int, Series] = field(default_factory=lambda: {number: Series() for number in AT_ONCE})


class Connections:
    """Asks the gateway with as many connections as there are requests at once."""

    def __init__(self, free: list[Http]) -> None:
        self._free = free

    async def ask(self, request: GenerationRequest) -> Heard:
        connection = self._free.pop()
        try:
            return await connection.ask(request)
        finally:
            self._free.append(connection)


@asynccontextmanager
async def connections(mesh: Mesh) -> AsyncIterator[Connections]:
    async with AsyncExitStack() as stack:
        yield Connections([await stack.enter_async_context(http(mesh)) for _ in range(max(AT_ONCE))])


def checkpoint() -> Path:
    if not (TINY / "config.json").is_file():
        make_tiny_checkpoint(FAMILY, TINY)
    return TINY.resolve()


@asynccontextmanager
async def open_ways() -> AsyncIterator[Mapping[str, Ask]]:
    async with running_mesh(FAMILY, checkpoint()) as mesh, connections(mesh) as over_http:
        with one_process(load_family(FAMILY), TINY) as alone:
            yield {ONE_PROCESS: alone.ask, MESH: over_http.ask}


async def measure() -> dict[str, Measured]:
    with anyio.fail_after(DEADLINE):
        async with open_ways() as ways:
            measured = {name: Measured() for name in ways}
            _require_same([(await ask(QUESTION)).speech for ask in ways.values()])
            for ask in ways.values():
                await _closed_loop(ask, WARM_UP, at_once=WARM_UP)
            for _ in range(ROUNDS):
                for name, ask in ways.items():
                    await _alone(ask, measured[name])
                for number, answers in AT_ONCE.items():
                    for name, ask in ways.items():
                        seconds = await _closed_loop(ask, answers, at_once=number)
                        measured[name].busy[number].add([seconds / answers])
    return measured


def _require_same(speeches: list[bytes]) -> None:
    """Within rounding: how many frames the vocoder gets at once depends on the moment, and floats are added so."""
    one, *others = [np.frombuffer(speech, "<i2").astype(np.int32) for speech in speeches]
    for other in others:
        if len(one) == 0 or len(one) != len(other) or np.abs(one - other).max() > TOLERANCE:
            raise ValueError("The mesh and the one process do not say the same.")


async def _alone(ask: Ask, measured: Measured) -> None:
    answers = [await ask(QUESTION) for _ in range(ALONE)]
    measured.first_text.add([_heard(answer.first_text) for answer in answers])
    measured.first_audio.add([_heard(answer.first_audio) for answer in answers])
    measured.total.add([answer.total for answer in answers])


async def _closed_loop(ask: Ask, answers: int, *, at_once: int) -> float:
    """Seconds for so many answers, with as many under way at once as there are askers."""
    waiting = [QUESTION] * answers

    async def asker() -> None:
        while waiting:
            await ask(waiting.pop())

    start = time.perf_counter()
    async with anyio.create_task_group() as askers:
        for _ in range(at_once):
            askers.start_soon(asker)
    return time.perf_counter() - start


def _heard(seconds: float | None) -> float:
    if seconds is None:
        raise ValueError("An answer came without text or without audio.")
    return seconds


def show(measured: Mapping[str, Measured]) -> str:
    alone, mesh = measured[ONE_PROCESS], measured[MESH]
    rows = [
        _row("first text, ms", alone.first_text, mesh.first_text),
        _row("first audio, ms", alone.first_audio, mesh.first_audio),
        _row("whole answer, ms", alone.total, mesh.total),
    ]
    for number in AT_ONCE:
        one, other = alone.busy[number], mesh.busy[number]
        cells = [f"answers/s, {number} at once", f"{1 / one.p50:.2f}", f"{1 / other.p50:.2f}", ""]
        rows.append([*cells, times(one.ratio_to(other))])
    return table(["", ONE_PROCESS, MESH, "later by", "mesh to one process"], rows)


def _row(name: str, one: Series, other: Series) -> list[str]:
    later = median(b - a for a, b in zip(one.medians, other.medians, strict=True))
    return [name, millis(one.p50), millis(other.p50), millis(later), times(other.ratio_to(one))]


def main() -> None:
    print(f"Tiny Qwen3-Omni, {TOKENS} text tokens and speech (p50 of {ROUNDS} rounds). {machine()}.\n")
    print(show(anyio.run(measure, backend_options={"use_uvloop": True})))
    print("\nBars: first audio at most 5 % or 15 ms later; throughput at least 0.97x.")


if __name__ == "__main__":
    main()
