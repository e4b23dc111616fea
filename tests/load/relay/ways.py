"""Every way of a tensor that is measured: what it is called, the processes it needs, and the sizes it is for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.lab.netns import Wire
from tests.load.arena import make_arena
from tests.load.relay.frames import CONTROL
from tests.load.relay.in_pod import ARENA_BYTES, COPIED, MOVED, PLACED
from tests.load.relay.pods import LARGE, MANY, Protection, Secrets, two_pods
from tests.load.relay.rounds import Round, Seconds
from tests.load.relay.workers import Place, Side, Worker, processor_seconds, worker

KB, MB = 1 << 10, 1 << 20

MEMCPY, BARE, ONE_HOST = "memcpy", "bare arena", "SGLang-Omni's design"
ZMQ, ZMQ_UVLOOP, GRPC_AIO = "zmq.asyncio", "zmq.asyncio, uvloop", "grpc.aio, uvloop"
ARENA_PLACED, ARENA_COPIED, ARENA_MOVED = "arena, in place", "arena, copied in", "arena, copied in and out"
RAW, RAW_TLS, GRPC = "raw sockets", "raw TLS sockets", "gRPC, 1 MB chunks"
RELAY, RELAY_XXH3, RELAY_AEAD, RELAY_TLS = "relay", "relay, xxh3", "relay, AEAD", "relay, TLS"
EDGES = "relay, edges"

FRAMES_CONTROL = "frames, no tensor"
FRAMES_PLACED, FRAMES_COPIED, FRAMES_MOVED = "frames, in place", "frames, copied in", "frames, copied in and out"

# Messages of a round, at least, where no byte moves.
_STILL = 30

_ARENA = {PLACED: ARENA_PLACED, COPIED: ARENA_COPIED, MOVED: ARENA_MOVED}
_LOOPS = {"asyncio": ZMQ, "uvloop": ZMQ_UVLOOP}
_FRAMES = {PLACED: FRAMES_PLACED, COPIED: FRAMES_COPIED, MOVED: FRAMES_MOVED}
_PROTECTIONS = {
    RELAY: Protection(checksums=False),
    RELAY_XXH3: Protection(),
    RELAY_AEAD: Protection("aead"),
    RELAY_TLS: Protection("tls"),
}


@dataclass(frozen=True, slots=True)
class Way:
    """`pids` are those of every process that has a part in it."""

    sender: Worker
    pids: tuple[int, ...]
    least: int = 0
    most: int = 1 << 40
    messages: int = 1
    """That a round has at least: one that moves no bytes is a matter of microseconds, of which few say nothing."""

    def fits(self, size: int) -> bool:
        return self.least <= size <= self.most

    def measure(self, round_: Round) -> tuple[Seconds, float]:
        """How long the messages took, and the processor seconds of all processes together."""
        before = self._used()
        seconds = self.sender.measure(round_)
        return seconds, self._used() - before

    def _used(self) -> float:
        return sum(processor_seconds(pid) for pid in self.pids)


class Ways:
    """Opens them, each with processes of its own, all at once: what is compared is measured in turns."""

    def __init__(self, folder: Path, wire: Wire | None, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._pod = Place(Side.SENDER), Place(Side.RECEIVER)
        self._nodes = (Place(Side.SENDER, wire.left), Place(Side.RECEIVER, wire.right)) if wire else self._pod
        self._secrets = Secrets(folder)
        self._openers: dict[str, Callable[[], Way]] = {
            MEMCPY: self._memory,
            BARE: lambda: self._folder_pair("relay.bare", self._new_folder("bare"), messages=_STILL),
            **{name: partial(self._arena, mode) for mode, name in _ARENA.items()},
            **{name: partial(self._framed, mode) for mode, name in _FRAMES.items()},
            FRAMES_CONTROL: partial(self._framed, CONTROL, most=KB),
            ONE_HOST: self._one_host,
            **{name: partial(self._echo, "relay.zmq_echo", loop) for loop, name in _LOOPS.items()},
            GRPC_AIO: lambda: self._echo("relay.grpc_echo"),
            RAW: lambda: self._connected_pair("relay.sockets"),
            RAW_TLS: lambda: self._connected_pair("relay.sockets", str(self._secrets.folder)),
            GRPC: lambda: self._connected_pair("relay.grpc_chunks"),
            **{name: partial(self._relayed, name, protection) for name, protection in _PROTECTIONS.items()},
            EDGES: partial(self._relayed, EDGES, Protection(), edges=8),
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._openers)

    def open(self, names: Collection[str]) -> dict[str, Way]:
        """Those, in the order of all."""
        return {name: opener() for name, opener in self._openers.items() if name in names}

    def _memory(self) -> Way:
        memory = self._start(self._pod[0], "relay.memory")
        return Way(memory, (memory.process.pid,))

    def _arena(self, mode: str) -> Way:
        folder = self._new_folder(mode)
        epoch = str(make_arena(folder, ARENA_BYTES))
        return self._folder_pair("relay.in_pod", folder, epoch, mode, messages=_STILL if mode == PLACED else 1)

    def _one_host(self) -> Way:
        sender, receiver = self._pod
        address = f"ipc://{self._folder / 'one_host'}"
        other = self._start(receiver, "relay.one_host", "receive", address)
        return _way(other, self._start(sender, "relay.one_host", "send", address))

    def _echo(self, module: str, *arguments: str) -> Way:
        sender, receiver = self._pod
        other = self._start(receiver, module, "answer", *arguments)
        return _way(other, self._start(sender, module, "ask", *arguments, other.line), most=KB)

    def _folder_pair(self, module: str, folder: Path, *arguments: str, messages: int = 1) -> Way:
        sender, receiver = self._pod
        other = self._start(receiver, module, "receive", str(folder), *arguments)
        return _way(other, self._start(sender, module, "send", str(folder), *arguments), messages=messages)

    def _framed(self, mode: str, most: int = 1 << 40) -> Way:
        sender, receiver = self._pod
        folder = self._new_folder(f"frames-{mode}")
        epoch = str(make_arena(folder, ARENA_BYTES))
        still = _STILL if mode == PLACED else 1
        copy_out = ["--copy-out"] if mode == MOVED else []
        other = self._start(receiver, "hop_mesh", str(folder), epoch, *copy_out)
        return _way(other, self._start(sender, "relay.frames", str(folder), epoch, mode, other.line), most, still)

    def _connected_pair(self, module: str, *arguments: str) -> Way:
        sender, receiver = self._nodes
        other = self._start(receiver, module, "receive", receiver.address, *arguments)
        return _way(other, self._start(sender, module, "send", receiver.address, other.line, *arguments))

    def _relayed(self, name: str, protection: Protection, *, edges: int = 1) -> Way:
        folder = self._new_folder(name.replace(", ", "-"))
        settings = self._secrets.settings(protection)
        arenas = LARGE if edges == 1 else MANY
        pods = self._stack.enter_context(two_pods(folder, *self._nodes, settings, arenas=arenas, edges=edges))
        return Way(pods.sender, pods.pids)

    def _start(self, place: Place, module: str, *arguments: str) -> Worker:
        return self._stack.enter_context(worker(place, f"tests.load.{module}", *arguments))

    def _new_folder(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder


def _way(receiver: Worker, sender: Worker, most: int = 1 << 40, messages: int = 1) -> Way:
    return Way(sender, (sender.process.pid, receiver.process.pid), most=most, messages=messages)


@contextmanager
def open_ways(folder: Path, wire: Wire | None, names: Collection[str] = ()) -> Iterator[dict[str, Way]]:
    """The ways of those names; of all names if there are none. Raises KeyError for one that is no way's."""
    with ExitStack() as stack:
        ways = Ways(folder, wire, stack)
        if unknown := set(names) - set(ways.names):
            raise KeyError(*unknown)
        yield ways.open(names or ways.names)
