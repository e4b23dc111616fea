"""A hand-over within a pod as stages make it, by frames on a Deliver stream: the sending end of `tests.load.hop_mesh`.

`python -m tests.load.relay.frames FOLDER EPOCH MODE PORT` is asked for rounds; MODE as in `in_pod`,
or `control` for events that carry no tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import anyio
from tests.load.arena import open_slots, place
from tests.load.hop_mesh import mesh_hop
from tests.load.pool import Pool
from tests.load.relay.in_pod import PLACED, tensor
from tests.load.relay.rounds import Round, Seconds, at_once, serve_async

from omni_common.rpc.contract import POD_INLINE_LIMIT
from omni_common.tensor import Tensor
from omni_common.transfer import TensorSender

CONTROL = "control"


async def _send(folder: Path, epoch: int, mode: str, port: int) -> None:
    slots = open_slots(folder, epoch)
    pool = Pool()

    def tensors(round_: Round) -> Iterable[Tensor]:
        if mode == PLACED and round_.size > POD_INLINE_LIMIT:
            return (place(slots, round_.size) for _ in range(round_.messages))
        return (tensor(array) for array in pool.pieces(round_.size, round_.messages))

    async with mesh_hop(port, TensorSender(slots), slots) as hop:

        async def measure(round_: Round) -> Seconds:
            if mode == CONTROL:
                return await at_once(lambda _: hop.tell(), range(round_.messages), round_.at_once)
            return await at_once(hop.send, tensors(round_), round_.at_once)

        await serve_async("ready", measure)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [folder, epoch, mode, port]:
            anyio.run(_send, Path(folder), int(epoch), mode, int(port), backend_options={"use_uvloop": True})
