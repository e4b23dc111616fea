"""A stage's end of `relay.sock` that says what a test tells it, true or not. It blocks; the real one is RelayClient."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from omni.common.v1.request_pb2 import RequestKey
from omni.common.v1.tensor_pb2 import ArenaSlot, TransferId
from omni.relay.v1 import pod_pb2 as pb
from omni_common.arena.extents import Extent, parse_extent, render_extent
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.rpc.convert.envelope import duration_of
from omni_common.testing.mail import PATIENCE


class StageClient:
    """Raises TimeoutError when what must come does not."""

    def __init__(self, folder: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        at = os.open(folder, os.O_PATH)
        try:
            self.socket.connect(f"/proc/self/fd/{at}/relay.sock")  # waits while many others come
        except OSError:
            self.socket.close()
            raise
        finally:
            os.close(at)
        self.socket.settimeout(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    # What it says

    def say(self, **message: object) -> None:
        self.socket.send(pb.StageMessage(**message).SerializeToString())  # type: ignore[arg-type]

    def hello(
        self, replica: str, arena: int = 0, extents: Iterable[Extent] = (), arrived: Iterable[ArenaSlot] = ()
    ) -> pb.RelayWelcome:
        hello = pb.StageHello(
            contract_version=CONTRACT_VERSION,
            pipeline="toy",
            stage=replica,
            replica=replica,
            arena_epoch=arena,
            extents=map(render_extent, extents),
            arrived=arrived,
        )
        self.say(hello=hello)
        return self.hear().welcome

    def want(self, size: int) -> None:
        self.say(want=pb.WantExtent(size=size))

    def get(self, size: int) -> Extent:
        """Waits for it."""
        self.want(size)
        return self.granted()

    def granted(self) -> Extent:
        return parse_extent(self.hear("extent").extent)

    def give_back(self, extent: Extent) -> None:
        self.say(give_back=pb.ReturnExtent(index=extent.index))

    def push(self, number: int, slot: ArenaSlot, length: int, consumer: str, *, seconds: float = 60.0) -> None:
        push = pb.Push(
            transfer=transfer(number),
            slot=slot,
            length=length,
            to="other:7080",
            consumer=consumer,
            key=RequestKey(request_id="req_1", attempt=1),
            remaining=duration_of(seconds),
            edge="here>there",
        )
        self.say(push=push)

    def cancel(self, number: int) -> None:
        self.say(cancel=pb.CancelPush(transfer=transfer(number)))

    def release(self, *slots: ArenaSlot) -> None:
        self.say(release=pb.ReleaseArrived(slots=slots))

    # What it hears

    def hear(self, kind: str | None = None) -> pb.RelayMessage:
        """The next message, which is of that kind."""
        packet = self.socket.recv(1 << 16)
        assert packet, "the line has ended"
        message = pb.RelayMessage.FromString(packet)
        assert kind is None or message.WhichOneof("message") == kind, message
        return message

    def ends(self) -> None:
        """Waits until the relay has cut the line; what it had said before is lost."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass

    def says_nothing_for(self, seconds: float) -> bool:
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1 << 16)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)
        return False


def transfer(number: int) -> TransferId:
    return TransferId(source=7, number=number)
