"""What the gateway and the coordinator add to an answer: `python -m tests.load.gateway`.

The stages are echo's, which compute next to nothing. The same request is asked in five ways that take turns within
each round: of the stages in one process, of the stages' processes without a coordinator (a stand-in sends the
dispatch that a coordinator would), of the coordinator by the gateway's own client, of the coordinator by the simple
RPC, and of the gateway over HTTP. What gateway and coordinator add is the last less the second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median

import anyio
from tests.load.mesh import HOST, running_mesh
from tests.load.one_process import one_process
from tests.load.report import Series, machine, millis, table
from tests.load.stand_in import stand_in
from tests.load.ways import Heard, connect, generate, http, question

from omni_cli.launcher.network import free_port
from omni_common.request import GenerationRequest
from omni_stage.models import load_family

ROUNDS = 7
REQUESTS = 40
WARM_UP = 20
DEADLINE = 240.0
# DESIGN's bar for gateway and coordinator together, idle, at the first byte.
BAR = 0.002

Ask = Callable[[GenerationRequest], Awaitable[Heard]]

ONE_PROCESS = "stages in one process"
STAGES = "stages, no coordinator"
CONNECT = "coordinator (Connect)"
GENERATE = "coordinator (Generate)"
HTTP = "gateway (HTTP)"


@dataclass(slots=True)
class Measured:
    first: Series = field(default_factory=Series)
    total: Series = field(default_factory=Series)


@asynccontextmanager
async def open_ways() -> AsyncIterator[Mapping[str, Ask]]:
    with one_process(load_family("echo")) as alone:
        # The mesh comes first: a process that uses gRPC already should start no others.
        address = f"{HOST}:{free_port(HOST)}"
        async with (
            running_mesh("echo", also_attach_to=address) as mesh,
            stand_in(mesh.pipeline, address) as stages,
            connect(mesh) as connected,
            generate(mesh) as generated,
            http(mesh) as over_http,
        ):
            yield {
                ONE_PROCESS: alone.ask,
                STAGES: stages.ask,
                CONNECT: connected.ask,
                GENERATE: generated.ask,
                HTTP: over_http.ask,
            }


async def measure() -> dict[str, Measured]:
    request = question("echo", "the mesh says it back")
    with anyio.fail_after(DEADLINE):
        async with open_ways() as ways:
            measured = {name: Measured() for name in ways}
            for ask in ways.values():
                for _ in range(WARM_UP):
                    await ask(request)
            for _ in range(ROUNDS):
                for name, ask in ways.items():
                    answers = [await ask(request) for _ in range(REQUESTS)]
                    measured[name].first.add([_first(answer) for answer in answers])
                    measured[name].total.add([answer.total for answer in answers])
    return measured


def _first(answer: Heard) -> float:
    if answer.first_text is None:
        raise ValueError("The answer had no text.")
    return answer.first_text


def show(measured: Mapping[str, Measured]) -> str:
    head = ["asked", "first text p50", "p99", "whole answer p50", "added to the first text p50"]
    rows = []
    for name, one in measured.items():
        cells = [name, millis(one.first.p50), millis(one.first.p99), millis(one.total.p50)]
        rows.append([*cells, "" if name == ONE_PROCESS else millis(_added(one, measured[STAGES]))])
    return table(head, rows)


def _added(one: Measured, to: Measured) -> float:
    return median(mine - theirs for mine, theirs in zip(one.first.medians, to.first.medians, strict=True))


def main() -> None:
    print(f"Answers of echo, milliseconds (p50 of {ROUNDS} rounds). {machine()}.\n")
    measured = anyio.run(measure, backend_options={"use_uvloop": True})
    print(show(measured))
    added = _added(measured[HTTP], measured[STAGES])
    print(f"\nGateway and coordinator add {millis(added)} ms at p50; the bar is {millis(BAR)} ms.")


if __name__ == "__main__":
    main()
