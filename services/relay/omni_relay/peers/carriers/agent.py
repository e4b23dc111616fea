"""One end of NIXL: an agent with the arena registered, that writes into another one's and ends at a known moment."""

from __future__ import annotations

import contextlib
import importlib
import logging
import secrets
import select
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from itertools import count
from struct import Struct
from struct import error as StructError
from time import monotonic, sleep
from typing import Any, TypeVar

from omni_common.arena.memory import address_of
from omni_relay.peers.carriers.loading import unchanged
from omni_relay.peers.carriers.ucp import OPTIONS

Result = TypeVar("Result")

# One for each version of CUDA; both work without any.
_PACKAGES = ("nixl_cu12", "nixl_cu13")

_BACKEND, _MEMORY, _DEVICE = "UCX", "DRAM", 0

# NIXL has nothing to wait on. 1 MiB takes half a millisecond over TCP: a short pause is what noticing its end may cost,
# the long one is for peers that
# do not answer. Seconds.
_SHORT, _SHORT_ONES = 20e-6, 200
# Milliseconds.
_LONG = 1

_NOTE = Struct("<Q")
"""What is told of a write: how many there were before it."""


class NixlFailed(Exception):
    """What did not work: a sentence without its end."""


@dataclass(frozen=True, slots=True)
class _Library:
    version: str
    module: Any
    errors: tuple[type[Exception], ...]


@cache
def _library() -> _Library:
    """Raises NixlFailed."""
    for name in _PACKAGES:
        with contextlib.suppress(ModuleNotFoundError):
            return _loaded(name)
    raise NixlFailed(f"None of the packages {', '.join(_PACKAGES)} is installed")


def _loaded(name: str) -> _Library:
    try:
        with unchanged():
            module = importlib.import_module(name)
            bindings = importlib.import_module(f"{name}._bindings")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise
        raise NixlFailed(f"NIXL cannot be loaded: {error}") from error
    logger = logging.getLogger("nixl")
    logger.handlers.clear()  # its own, to stdout
    logger.propagate = True
    logger.setLevel(logging.WARNING)
    own = (each for each in vars(bindings).values() if isinstance(each, type) and issubclass(each, Exception))
    return _Library(metadata.version(name.replace("_", "-")), module, (*own, RuntimeError, ValueError))


class Agent:
    """What NIXL has for one connection: when it is gone, nothing is left that touches the arena. Costs 15 ms and four
    descriptors; the first one of a process half a second.

    One thread at a time writes and waits, any may close. Everything but `close` raises NixlFailed, after which the
    agent is closed.
    """

    def __init__(self, arena: memoryview) -> None:
        library = _library()
        self.library = f"NIXL {library.version}"
        self._errors: tuple[type[Exception], ...] = (*library.errors, NixlFailed)
        self._in_use = threading.Lock()
        self._closing = False
        self._arena = arena
        self._agent: Any = None
        self._memory: Any = None
        self._peer = ""
        self._written = 0
        self._landed = 0
        self._waited = 0
        with unchanged():
            self._do(partial(self._start, library.module))

    def _start(self, module: Any) -> None:
        # A progress thread of NIXL's own would keep a core busy, whether there is something to do or not.
        config = module.nixl_agent_config(enable_prog_thread=False, backends=[])
        self._agent = module.nixl_agent(secrets.token_hex(16), config)
        options = ",".join(f"{name}={value}" for name, value in OPTIONS.items())
        self._agent.create_backend(_BACKEND, {"engine_config": options})
        region = (address_of(self._arena), len(self._arena), _DEVICE, "")
        self._memory = self._agent.register_memory([region], _MEMORY)

    @property
    def metadata(self) -> bytes:
        """How other agents find this one and its arena."""
        return self._use(lambda: bytes(self._agent.get_agent_metadata()))

    def connect(self, metadata: bytes) -> None:
        """`write` goes there from now on. That nobody is there is found out by the first of them."""
        self._use(partial(self._connect, metadata))

    def _connect(self, metadata: bytes) -> None:
        name = self._agent.add_remote_agent(metadata)
        self._peer = name.decode() if isinstance(name, bytes) else name

    def write(self, data: memoryview, target: int, until: float) -> None:
        """Copies `data`, a part of the arena, to the address `target` of the peer, and tells it. `until` is on the
        monotonic clock."""
        self._use(partial(self._write, data, target, until))

    def _write(self, data: memoryview, target: int, until: float) -> None:
        agent = self._agent
        ours = agent.get_xfer_descs([(address_of(data), len(data), _DEVICE)], _MEMORY)
        theirs = agent.get_xfer_descs([(target, len(data), _DEVICE)], _MEMORY)
        handle = agent.initialize_xfer("WRITE", ours, theirs, self._peer, _NOTE.pack(self._written))
        self._written += 1
        try:
            state = agent.transfer(handle)
            for _ in self._pauses(until):
                if state != "PROC":
                    break
                state = agent.check_xfer_state(handle)
        finally:
            agent.release_xfer_handle(handle)
        if state != "DONE":
            raise NixlFailed("NIXL could not write")

    def wait(self, until: float, beside: int) -> None:
        """Until the peer has told of one more `write`. `beside` is the descriptor of a socket: when its peer hangs up,
        nothing is waited for any more."""
        self._use(partial(self._wait, until, beside))

    def _wait(self, until: float, beside: int) -> None:
        self._waited += 1
        for _ in self._pauses(until, beside):
            if self._landed >= self._waited:
                break
            for notes in self._agent.get_new_notifs().values():
                self._landed = max(self._landed, *(_number(note) + 1 for note in notes))

    def close(self) -> None:
        """When it returns, no memory is touched any more. Idempotent; a call under way ends with NixlFailed."""
        self._closing = True
        with self._in_use:
            self._destroy()

    def _pauses(self, until: float, beside: int | None = None) -> Iterator[None]:
        """Lets its caller look, again and again."""
        hung_up = select.poll()
        if beside is not None:
            hung_up.register(beside, select.POLLRDHUP)
        for turn in count():
            yield
            if self._closing:
                raise NixlFailed("this end was closed")
            if monotonic() >= until:
                raise NixlFailed("NIXL did not move a piece in time")
            if turn < _SHORT_ONES:
                sleep(_SHORT)
            elif hung_up.poll(_LONG):
                raise NixlFailed("the peer hung up")

    def _use(self, action: Callable[[], Result]) -> Result:
        with self._in_use:
            if self._agent is None:
                raise NixlFailed("this end was closed")
            return self._do(action)

    def _do(self, action: Callable[[], Result]) -> Result:
        try:
            return action()
        except self._errors as error:
            why = str(error) if isinstance(error, NixlFailed) else f"NIXL failed: {error}"
        # Out here the error is gone, and with it the frames that would keep handles and the agent alive.
        self._destroy()
        raise NixlFailed(why)

    def _destroy(self) -> None:
        if self._memory is not None:
            with contextlib.suppress(*self._errors):  # the agent goes all the same
                self._agent.deregister_memory(self._memory)
        self._agent = self._memory = None


def _number(note: bytes) -> int:
    """The number of a write; of what no write has told, one that changes nothing."""
    try:
        return int(_NOTE.unpack(note)[0])
    except StructError:
        return -1
