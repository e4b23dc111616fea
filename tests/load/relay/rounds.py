"""What the processes of a measurement are asked for: rounds, a line of JSON each, answered by a line of JSON."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Self, TypeVar

import anyio
from anyio import to_thread


@dataclass(frozen=True, slots=True)
class Round:
    """`messages` of `size` bytes each, on each of so many edges, `at_once` of them under way at a time on each."""

    size: int
    messages: int
    at_once: int = 1
    edges: int = 1

    def render(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, line: str) -> Self:
        return cls(**json.loads(line))


Seconds = list[float]
"""Of each message; where several are under way at a time, for each edge the time that it took per message."""


def serve(ready: str, measure: Callable[[Round], Seconds]) -> None:
    """The sending process of a way: says `ready`, then measures what it is asked for until its input ends."""
    print(ready, flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(Round.parse(line))), flush=True)


async def serve_async(ready: str, measure: Callable[[Round], Awaitable[Seconds]]) -> None:
    print(ready, flush=True)
    # The pipe is the one thing that this thread reads, and no round is on meanwhile.
    while line := await to_thread.run_sync(sys.stdin.readline):
        print(json.dumps(await measure(Round.parse(line))), flush=True)


def end_with_parent() -> None:
    """The receiving process of a way ends when its input does, whatever it waits for: with who started it."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


T = TypeVar("T")


def one_by_one(send: Callable[[T], object], items: Iterable[T]) -> Seconds:
    """How long each send took; what making the items takes is not counted."""
    seconds = []
    for item in items:
        start = time.perf_counter()
        send(item)
        seconds.append(time.perf_counter() - start)
    return seconds


async def at_once(send: Callable[[T], Awaitable[None]], items: Iterable[T], number: int) -> Seconds:
    """How long each send took if `number` is 1; else the mean, making the items included, with that many under way."""
    items = iter(items)
    seconds: Seconds = []
    begin = time.perf_counter()

    async def lane() -> None:
        for item in items:
            start = time.perf_counter()
            await send(item)
            seconds.append(time.perf_counter() - start)

    async with anyio.create_task_group() as lanes:
        for _ in range(number):
            lanes.start_soon(lane)
    return seconds if number == 1 else [(time.perf_counter() - begin) / len(seconds)]
