"""How long a tensor takes from one stage's process to the next one's: `python -m tests.load.hop`.

One transfer is timed at the sender from having the tensor to the receiver's word that it has it. The mesh's hop in
one pod and without a relay, a plain hop of ZeroMQ and shared memory, and one memcpy of the same bytes take turns within
each round. Every source and every memcpy target walks through more memory than any cache holds; the arena does so
because the consumer holds what it got last. No process is pinned: stages are not.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import numpy as np
from numpy.typing import NDArray
from tests.load.arena import make_arena, open_slots
from tests.load.children import child
from tests.load.held import HELD_BYTES
from tests.load.hop_mesh import mesh_hop
from tests.load.hop_plain import PlainHop, plain_hops
from tests.load.pool import Pool
from tests.load.report import Series, machine, micros, table, times

from omni_common.allocator import keep_freed_memory
from omni_common.rpc.contract import INLINE_LIMIT
from omni_common.tensor import DType, Tensor
from omni_common.transfer import TensorSender, Way

KB, MB = 1 << 10, 1 << 20
# Bytes of a message, and how many of them make a round.
SIZES: Mapping[int, int] = {64: 100, 4 * KB: 100, 64 * KB: 100, MB: 30, 16 * MB: 8, 64 * MB: 4}
ROUNDS = 7
WARM_UP = 3
# The largest message while HELD_BYTES are held, and as much again for what waits to be released.
ARENA_BYTES = 2 * (HELD_BYTES + 64 * MB)
DEADLINE = 240.0

Send = Callable[[Tensor], Awaitable[None]]

MEMCPY, PLAIN, PLAIN_INLINE, POD, CHECKED, ABROAD = "memcpy", "plain", "plain inline", "pod", "checked", "abroad"


def tensor(array: NDArray[np.uint8]) -> Tensor:
    return Tensor(DType.UINT8, (array.nbytes,), array.data)


class Bench:
    """All ways of one transfer, measured in turns."""

    def __init__(self, ways: Mapping[str, Send], plain: PlainHop) -> None:
        self._ways = ways
        self._plain = plain
        self._source = Pool()
        self._target = Pool()

    async def measure(self, size: int, messages: int) -> dict[str, Series]:
        names = [name for name in self._ways if _fits(name, size)]
        series = {name: Series() for name in (MEMCPY, *names)}
        for name in names:
            await self._round(name, size, WARM_UP)
        for _ in range(ROUNDS):
            series[MEMCPY].add([self._copy(size) for _ in range(messages)])
            for name in names:
                series[name].add(await self._round(name, size, messages))
        return series

    def _copy(self, size: int) -> float:
        source, target = self._source.take(size), self._target.take(size)
        start = time.perf_counter()
        np.copyto(target, source)
        return time.perf_counter() - start

    async def _round(self, name: str, size: int, messages: int) -> list[float]:
        send = self._ways[name]
        seconds = []
        for _ in range(messages):
            body = tensor(self._source.take(size))
            start = time.perf_counter()
            await send(body)
            seconds.append(time.perf_counter() - start)
            self._plain.tidy()
        return seconds


def _fits(name: str, size: int) -> bool:
    """Small tensors travel inside the frame, whatever the pod; large ones do not travel inside a ZeroMQ message."""
    return size <= INLINE_LIMIT if name == PLAIN_INLINE else size > INLINE_LIMIT or name in (PLAIN, POD)


@asynccontextmanager
async def open_bench(folder: Path) -> AsyncIterator[Bench]:
    address = f"ipc://{folder / 'plain'}"
    epoch = make_arena(folder, ARENA_BYTES)
    slots = open_slots(folder, epoch)
    with (
        child("tests.load.hop_mesh", str(folder), str(epoch)) as port,
        child("tests.load.hop_plain", address),
        plain_hops(address) as (plain, plain_inline),
    ):
        async with (
            mesh_hop(int(port), TensorSender(slots), slots) as pod,
            mesh_hop(int(port), TensorSender(slots, arena_checksums=True), slots) as checked,
            mesh_hop(int(port), TensorSender(), slots, Way.STREAM) as abroad,
        ):
            ways: dict[str, Send] = {
                PLAIN: plain.send,
                PLAIN_INLINE: plain_inline.send,
                POD: pod.send,
                CHECKED: checked.send,
                ABROAD: abroad.send,
            }
            yield Bench(ways, plain)


async def measure() -> dict[int, dict[str, Series]]:
    with TemporaryDirectory(dir="/dev/shm", prefix="omni-bench-") as folder, anyio.fail_after(DEADLINE):
        async with open_bench(Path(folder)) as bench:
            return {size: await bench.measure(size, messages) for size, messages in SIZES.items()}


def show(results: Mapping[int, Mapping[str, Series]]) -> str:
    head = ["size", "memcpy", "ZeroMQ + shm", "ZeroMQ inline", "one pod", "of memcpy", "of ZeroMQ + shm", "of the bar"]
    head += ["checked", "no relay", "of ZeroMQ + shm"]
    frame = results[min(results)][POD]
    return table(head, [_row(size, series, frame) for size, series in results.items()])


def _row(size: int, series: Mapping[str, Series], frame: Series) -> list[str]:
    """The bar: at most twice the copy that no hop can do without, plus one frame (the smallest message's hop)."""
    pod, memcpy, plain = series[POD], series[MEMCPY], series[PLAIN]
    bar = Series([[2 * copy + one] for copy, one in zip(memcpy.medians, frame.medians, strict=True)])
    cells = [_size(size), micros(memcpy.p50), micros(plain.p50), _micros(series.get(PLAIN_INLINE)), micros(pod.p50)]
    cells += [times(pod.ratio_to(memcpy)), times(pod.ratio_to(plain)), times(pod.ratio_to(bar))]
    abroad = series.get(ABROAD)
    return [*cells, _micros(series.get(CHECKED)), _micros(abroad), times(abroad.ratio_to(plain)) if abroad else ""]


def _micros(series: Series | None) -> str:
    return "" if series is None else micros(series.p50)


def _size(size: int) -> str:
    for unit, name in ((MB, "MB"), (KB, "KB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def main() -> None:
    keep_freed_memory()
    print(f"Hop between two processes, microseconds (p50, {ROUNDS} rounds). {machine()}.\n")
    print(show(anyio.run(measure, backend_options={"use_uvloop": True})))


if __name__ == "__main__":
    main()
