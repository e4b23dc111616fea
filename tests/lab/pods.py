"""Pods without stages: a real arena, its space, and a relay's peers. A test plays the stages on both sides."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import monotonic

from prometheus_client import REGISTRY

from omni_common.arena.holds import HoldTables
from omni_common.arena.layout import MAX_EXTENTS
from omni_common.arena.memory import Arena
from omni_common.deadline import Deadline
from omni_common.request import RequestKey
from omni_relay.core.shares import Bounds
from omni_relay.ledger import Ledger
from omni_relay.peers import Peers, PeerSettings
from omni_relay.peers.carriers.registry import CARRIERS
from omni_relay.ports import ArrivedTensor, PushOrder, PushResult, Transfer
from omni_relay.space import ArenaSpace, slot_of
from omni_relay.watched import start_thread
from omni_relay.wire.credentials import Credentials
from omni_relay.wire.sockets import Link

KIB, MIB = 1 << 10, 1 << 20
TOKEN = b"a token of a release under test"
STAGE = "sink-0"
PATIENCE = 30.0
"""Seconds: what no test gets near unless something hangs."""

_numbers = itertools.count(1)


def noise(size: int, seed: int = 0) -> bytearray:
    """Bytes that look random and are the same in every run."""
    return bytearray(Random(size * 1000 + seed).randbytes(size))  # noqa: S311  # not a secret


def key(request: str) -> RequestKey:
    return RequestKey(request)


class Pushed:
    """One push, as its stage sees it. As soon as it has ended its bytes are overwritten: whoever reads them later reads
    nonsense."""

    def __init__(self, data: bytearray, log: list[Pushed]) -> None:
        self.transfer = Transfer(7, next(_numbers))
        self.data = data
        self.verdicts: list[PushResult] = []
        self._log = log
        self._over = threading.Event()

    def ended(self, result: PushResult) -> None:
        self.data[:] = b"\xee" * len(self.data)
        self.verdicts.append(result)
        self._log.append(self)
        self._over.set()

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def wait(self, seconds: float = PATIENCE) -> PushResult:
        assert self._over.wait(seconds), "the push has not ended"
        return self.verdicts[0]

    @property
    def reason(self) -> str | None:
        """Why it failed; None if it did not."""
        error = self.wait().error
        return None if error is None else error.reason


@dataclass(frozen=True)
class Shape:
    """How a pod is set up."""

    size: int = 16 * MIB
    least: int = MIB
    inbound: float = 0.9
    credentials: Credentials = Credentials(token=TOKEN)  # noqa: RUF009  # frozen
    link: Link = Link(timeout=5.0)  # noqa: RUF009  # frozen
    heartbeat: float = 0.25
    transports: Sequence[str] = ("auto",)
    carriers: Mapping[str, str] = field(default_factory=lambda: CARRIERS)
    knows: frozenset[str] = frozenset({STAGE})


class Pod:
    """A relay's peers over a real arena, with one consumer that takes what comes."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.arena = Arena.create(folder, shape.size)
        self._tables = HoldTables(folder)
        bounds = Bounds(self.arena.size, shape.least, shape.inbound)
        self.space = ArenaSpace(self.arena, Ledger.create(folder, self.arena.epoch), bounds, self._tables)
        self.stage = Stage(self, shape.knows)
        settings = PeerSettings(
            ("127.0.0.1", 0),
            "127.0.0.1",
            shape.credentials,
            shape.link,
            shape.heartbeat,
            shape.transports,
            shape.carriers,
        )
        self._ahead = 0.0
        self.peers = Peers(settings, self.arena.view, self.space, self.stage, self.clock)
        self.ended: list[Pushed] = []
        self._closing = threading.Event()
        self.peers.start()
        self._ticking = start_thread("tick", self._tick)

    @property
    def address(self) -> str:
        return self.peers.address

    def push(
        self, to: str, data: bytearray, request: str = "r", *, consumer: str = STAGE, seconds: float = PATIENCE
    ) -> Pushed:
        pushed = Pushed(data, self.ended)
        deadline = self.clock() + seconds
        order = PushOrder(pushed.transfer, memoryview(data), to, consumer, key(request), deadline, "from>to")
        self.peers.submit(order, pushed.ended)
        return pushed

    @property
    def granted(self) -> int:
        """Extents that stages or other relays hold."""
        return sum(self.arena.extent_epoch(index) != 0 for index in range(MAX_EXTENTS))

    def pass_time(self, seconds: float) -> bool:
        """Lets its peers believe that so much time has gone by. False, so that it fits into `eventually(… or …)`."""
        self.peers.tick(self.clock())
        self._ahead += seconds
        self.peers.tick(self.clock())
        return False

    def clock(self) -> float:
        return monotonic() + self._ahead

    def close(self) -> None:
        self._closing.set()
        self._ticking.join()
        self.peers.close(Deadline.after(PATIENCE))
        self._tables.close()
        self.arena.close()

    def _tick(self) -> None:
        while not self._closing.wait(0.05):
            self.peers.tick(self.clock())
            self.space.tick()


class Stage:
    """All consumers of a pod. Implements ports.Consumers."""

    def __init__(self, pod: Pod, names: frozenset[str]) -> None:
        self._pod = pod
        self._names = set(names)
        self._changed = threading.Condition()
        self.arrivals: list[ArrivedTensor] = []
        self.keeps = False
        """Whether what arrives stays until the test releases it."""
        for name in names:
            pod.space.enter(name, _Nobody(), (), ())
        self.seen: dict[Transfer, bytes] = {}

    def knows(self, consumer: str) -> bool:
        return consumer in self._names

    def deliver(self, consumer: str, arrived: ArrivedTensor) -> bool:
        if consumer not in self._names or not self._pod.space.deliver(consumer, arrived):
            return False
        data = bytes(self.view(arrived))
        with self._changed:
            self.seen[arrived.transfer] = data
            self.arrivals.append(arrived)
            self._changed.notify_all()
        if not self.keeps:
            self.release(arrived)
        return True

    def view(self, arrived: ArrivedTensor) -> memoryview:
        return self._pod.arena.view[arrived.offset : arrived.offset + arrived.length]

    def release(self, arrived: ArrivedTensor) -> None:
        assert self._pod.space.release(STAGE, slot_of(arrived))

    def wait_for(self, count: int) -> list[ArrivedTensor]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.arrivals) >= count, PATIENCE), "too little has arrived"
            return list(self.arrivals)

    def lose(self, name: str) -> None:
        self._names.discard(name)


class _Nobody:
    """Asks for no extent."""

    def granted(self, extent: object) -> None:
        raise AssertionError

    def refused(self, size: int) -> None:
        raise AssertionError

    def freed(self, extent: int, offset: int) -> None:
        raise AssertionError


@contextmanager
def memory_folder() -> Iterator[Path]:
    """In memory where the machine has such a place, as a pod's shared folder is."""
    place = Path("/dev/shm")  # noqa: S108  # the folder in it has a name of its own
    with TemporaryDirectory(dir=place if place.is_dir() else None) as folder:
        yield Path(folder)


@contextmanager
def two_pods(folder: Path, shape: Shape = Shape(), other: Shape | None = None) -> Iterator[tuple[Pod, Pod]]:
    """One that pushes and one that receives."""
    first, second = Pod(folder / "a", shape), Pod(folder / "b", other or shape)
    try:
        yield first, second
    finally:
        first.close()
        second.close()


def counted(metric: str, **labels: str) -> float:
    """What the metrics of this process, with all its pods, say."""
    return REGISTRY.get_sample_value(metric, labels) or 0.0


def eventually(true: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Waits until it is. Fails with `what` when it does not come true."""
    until = monotonic() + seconds
    turn = threading.Event()
    while not true():
        assert monotonic() < until, what
        turn.wait(0.01)
