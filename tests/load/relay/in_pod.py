"""A hand-over within a pod through the arena alone, with a Unix socket in place of the frames between stages.

`python -m tests.load.relay.in_pod receive FOLDER EPOCH MODE` listens in the folder with the arena of that epoch;
`python -m tests.load.relay.in_pod send FOLDER EPOCH MODE` is asked for rounds. MODE: `placed` tensors are made in the
arena and viewed, `copied` ones are copied in and viewed, `moved` ones are copied in and out again.

A hand-over is over when the consumer has the view, or the copy, and has said so. That it lets go of earlier tensors,
and that the producer takes their slots back before it makes the next, happens between two hand-overs, as in a stage.
"""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.load.arena import open_reader, open_slots, place
from tests.load.held import Held
from tests.load.pool import Pool
from tests.load.relay.rounds import Round, end_with_parent, one_by_one, serve

from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef
from omni.stage.v1.stage_pb2 import ReleaseReply
from omni_common.data_ref import describe
from omni_common.relay.slots import FOREVER, Slots
from omni_common.tensor import DType, Tensor

# Room for the largest while it is handed over and its predecessor lives, in whatever gaps smaller ones left.
ARENA_BYTES = 704 << 20
PLACED, COPIED, MOVED = "placed", "copied", "moved"
MODES = (PLACED, COPIED, MOVED)
_MESSAGE = 1 << 16


def tensor(array: NDArray[np.uint8]) -> Tensor:
    return Tensor(DType.UINT8, (array.nbytes,), array.data)


def _send(folder: Path, epoch: int, mode: str) -> None:
    slots = open_slots(folder, epoch)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(str(folder / "in_pod.sock"))
    pool = Pool()

    answers: deque[bytes] = deque()

    def tensors(round_: Round) -> Iterator[Tensor]:
        for _ in range(round_.messages):
            while answers:
                for released in ReleaseReply.FromString(answers.popleft()).slots:
                    slots.release(released)
            yield place(slots, round_.size) if mode == PLACED else tensor(pool.take(round_.size))

    def hand_over(body: Tensor) -> None:
        ref = describe(body)
        ref.arena.CopyFrom(slots.made_in_place(body) or _copied_in(slots, body))
        connection.send(ref.SerializeToString())
        answers.append(connection.recv(_MESSAGE))

    serve("ready", lambda round_: one_by_one(hand_over, tensors(round_)))


def _copied_in(slots: Slots, body: Tensor) -> ArenaSlot:
    slot, data = slots.reserve(body.nbytes, FOREVER)
    data[:] = body.data
    return slot


def _receive(folder: Path, epoch: int, mode: str) -> None:
    end_with_parent()
    reader = open_reader(folder, epoch)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(folder / "in_pod.sock"))
    listener.listen()
    print("bound", flush=True)
    connection, _ = listener.accept()
    held = Held(copy_out=mode == MOVED)
    released: deque[ArenaSlot] = deque()
    reply = ReleaseReply()
    while message := connection.recv(_MESSAGE):
        data = reader.view(DataRef.FromString(message), released.append).data
        held.look(data)
        connection.send(reply.SerializeToString())
        held.keep(data)
        del data
        reply = ReleaseReply()
        while released:
            reply.slots.append(released.popleft())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["send", folder, epoch, mode]:
            _send(Path(folder), int(epoch), mode)
        case ["receive", folder, epoch, mode]:
            _receive(Path(folder), int(epoch), mode)
