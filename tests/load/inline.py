"""From which size on a tensor had better not ride inside its frame: `python -m tests.load.inline`.

A hop between two processes as in `tests.load.hop`, of each size once inside the frame, once through the arena of one
pod, and once as a blob, in turns. Where there are relays between two pods, their way is measured by
`tests.load.relay`: it runs beside the frame, so what counts is by how much it is later than the frame.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
from tests.load.arena import make_arena, open_slots
from tests.load.children import child
from tests.load.held import HELD_BYTES
from tests.load.hop import KB, MB, Send, tensor
from tests.load.hop_mesh import mesh_hop
from tests.load.pool import Pool
from tests.load.relay.rounds import at_once
from tests.load.report import Series, machine, micros, table, times

from omni_common.transfer import TensorSender, Way

SIZES = (64, KB, 4 * KB, 8 * KB, 16 * KB, 32 * KB, 64 * KB, 128 * KB, 256 * KB)
MESSAGES = 60
ROUNDS = 9
WARM_UP = 5
DEADLINE = 240.0

INLINE, ARENA, BLOB = "inside the frame", "arena", "blob"


@asynccontextmanager
async def open_ways(folder: Path) -> AsyncIterator[Mapping[str, Send]]:
    epoch = make_arena(folder, 2 * HELD_BYTES)
    slots = open_slots(folder, epoch)
    with child("tests.load.hop_mesh", str(folder), str(epoch)) as port:
        async with (
            mesh_hop(int(port), TensorSender(inline_limit=MB), slots, Way.STREAM) as inline,
            mesh_hop(int(port), TensorSender(slots, inline_limit=0), slots) as arena,
            mesh_hop(int(port), TensorSender(inline_limit=0), slots, Way.STREAM) as blob,
        ):
            yield {INLINE: inline.send, ARENA: arena.send, BLOB: blob.send}


async def measure() -> dict[int, dict[str, Series]]:
    pool = Pool()
    results = {size: {name: Series() for name in (INLINE, ARENA, BLOB)} for size in SIZES}
    with TemporaryDirectory(dir="/dev/shm", prefix="omni-bench-") as folder, anyio.fail_after(DEADLINE):
        async with open_ways(Path(folder)) as ways:
            for size, series in results.items():
                for send in ways.values():
                    await at_once(send, map(tensor, pool.pieces(size, WARM_UP)), 1)
                for _ in range(ROUNDS):
                    for name, send in ways.items():
                        series[name].add(await at_once(send, map(tensor, pool.pieces(size, MESSAGES)), 1))
    return results


def show(results: Mapping[int, Mapping[str, Series]]) -> str:
    head = ["bytes", INLINE, ARENA, "of it inside", BLOB, "of it inside"]
    return table(head, [_row(size, series) for size, series in results.items()])


def _row(size: int, series: Mapping[str, Series]) -> list[str]:
    inline, arena, blob = series[INLINE], series[ARENA], series[BLOB]
    cells = [f"{size:,}", micros(inline.p50), micros(arena.p50), times(inline.ratio_to(arena))]
    return [*cells, micros(blob.p50), times(inline.ratio_to(blob))]


def main() -> None:
    print(f"A tensor inside its frame or beside it, microseconds (p50, {ROUNDS} rounds). {machine()}.\n")
    print(show(anyio.run(measure, backend_options={"use_uvloop": True})))


if __name__ == "__main__":
    main()
