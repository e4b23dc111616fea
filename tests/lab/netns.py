"""Two nodes in one machine: network namespaces joined by a veth pair, and what can go wrong between them.

A namespace here has no name: this process holds it by a descriptor, as its children do by living in it. So nothing is
left behind however a test ends, and two runs never meet. Needs root, iproute2, nsenter and, for faults, iptables.

The kernel of our machines has no netem: bandwidth is limited by tbf, packets are lost by iptables and delayed by
`tests.lab.delay`. What a fault does to a connection that is open, TCP decides: test deadlines, not packets.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")

_LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
INTERFACE = "eth0"
# A command of iproute2 or iptables takes some 10 ms; a machine under load is no reason to fail.
_COMMAND_DEADLINE = 20.0
# Of a token bucket: at least one packet as segmentation offload makes them, or tbf has to cut each one up.
_BURST = 128 << 10
# Packets that wait longer than this behind a bandwidth limit are dropped.
_BACKLOG_MILLISECONDS = 200


def missing() -> str | None:
    """Why there can be no network laboratory here, or None if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    wanted = {"ip": "iproute2", "tc": "iproute2", "nsenter": "util-linux", "iptables": "iptables"}
    if lacking := sorted({package for tool, package in wanted.items() if shutil.which(tool) is None}):
        return f"network namespaces need {' and '.join(lacking)}: apt-get install {' '.join(lacking)}"
    try:
        os.close(_new_namespace())
    except OSError as error:
        return f"this machine allows no network namespaces: {error}"
    return None


@dataclass(frozen=True, slots=True)
class Node:
    """One end of the wire. `address` is its IPv4 address there."""

    address: str
    namespace: str

    def command(self, *command: str) -> list[str]:
        """The command that runs `command` on this node; its process id is that of `command` itself."""
        return ["nsenter", f"--net={self.namespace}", "--", *command]

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns when a thread on this node calls it: sockets that it opens stay on the node."""

        def there() -> T:
            _enter(self.namespace)
            return function()

        return _in_thread(there)

    def do(self, *command: str) -> None:
        """Runs `command` here to its end. Raises CalledProcessError if it fails."""
        _do(*self.command(*command))

    @contextmanager
    def rule(self, *rule: str) -> Iterator[None]:
        """An iptables rule for as long as the context lasts: its chain, then what it matches and does."""
        self.do("iptables", "-w", "-A", *rule)
        try:
            yield
        finally:
            self.do("iptables", "-w", "-D", *rule)


@dataclass(frozen=True, slots=True)
class Wire:
    """Two nodes and the wire between them. Each fault lasts as long as its context; several may be on at once.

    Faults touch the wire only: what a node says to itself goes on.
    """

    left: Node
    right: Node

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.left, self.right

    @contextmanager
    def partition(self, how: Literal["DROP", "REJECT"] = "DROP") -> Iterator[None]:
        """Nothing passes: silently, or so that each TCP segment is answered with a reset."""
        match = [] if how == "DROP" else ["-p", "tcp"]
        verdict = ["-j", "DROP"] if how == "DROP" else ["-j", "REJECT", "--reject-with", "tcp-reset"]
        # The resets themselves have to get out.
        spare = [] if how == "DROP" else ["!", "--tcp-flags", "RST", "RST"]
        with (
            self.right.rule("INPUT", "-i", INTERFACE, *match, *verdict),
            self.right.rule("OUTPUT", "-o", INTERFACE, *match, *spare, *verdict),
        ):
            yield

    @contextmanager
    def loss(self, probability: float) -> Iterator[None]:
        """Packets vanish at random, each way. One packet may be 64 KiB: the nodes hand over what TCP has not cut up."""
        random = ["-m", "statistic", "--mode", "random", "--probability", f"{probability:.6f}"]
        with ExitStack() as rules:
            for node in self.nodes:
                rules.enter_context(node.rule("INPUT", "-i", INTERFACE, *random, "-j", "DROP"))
            yield

    @contextmanager
    def bandwidth(self, bytes_per_second: int) -> Iterator[None]:
        """At most that many bytes a second, each way."""
        limit = ["rate", f"{8 * bytes_per_second}bit", "burst", str(_BURST), "latency", f"{_BACKLOG_MILLISECONDS}ms"]
        with ExitStack() as limits:
            for node in self.nodes:
                node.do("tc", "qdisc", "add", "dev", INTERFACE, "root", "tbf", *limit)
                limits.callback(node.do, "tc", "qdisc", "del", "dev", INTERFACE, "root")
            yield

    @contextmanager
    def delay(self, seconds: float, jitter: float = 0.0) -> Iterator[None]:
        """Each packet arrives `seconds` later, more or less by up to `jitter`, each way; jitter reorders packets."""
        with ExitStack() as delays:
            for node in self.nodes:
                delays.enter_context(_delayed(node, seconds, jitter))
            yield


@contextmanager
def two_nodes() -> Iterator[Wire]:
    """Two nodes that reach each other and nobody else. Raises OSError or CalledProcessError where `missing()`."""
    files = [_new_namespace(), _new_namespace()]
    try:
        # By way of this process, which holds them: a name under /run/netns would outlive it.
        paths = [f"/proc/{os.getpid()}/fd/{file}" for file in files]
        _do(
            "ip",
            "link",
            "add",
            INTERFACE,
            "netns",
            paths[0],
            "type",
            "veth",
            "peer",
            "name",
            INTERFACE,
            "netns",
            paths[1],
        )
        wire = Wire(Node("10.77.0.1", paths[0]), Node("10.77.0.2", paths[1]))
        for node in wire.nodes:
            node.do("ip", "address", "add", f"{node.address}/24", "dev", INTERFACE)
            node.do("ip", "link", "set", "lo", "up")
            node.do("ip", "link", "set", INTERFACE, "up")
            # The host's default would be inherited: bbr paces, which on a wire without delay only costs time.
            node.do("ip", "route", "replace", "10.77.0.0/24", "dev", INTERFACE, "congctl", "cubic")
        yield wire
    finally:
        for file in files:
            os.close(file)


@contextmanager
def _delayed(node: Node, seconds: float, jitter: float) -> Iterator[None]:
    command = node.command(sys.executable, "-m", "tests.lab.delay", str(seconds), str(jitter))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise ChildProcessError("tests.lab.delay ended before it was ready")
            # Bypassed when the process is gone: its end must not cut the wire.
            with node.rule("INPUT", "-i", INTERFACE, "-j", "NFQUEUE", "--queue-num", "0", "--queue-bypass"):
                yield
        finally:
            process.kill()


def _new_namespace() -> int:
    """A descriptor of a network namespace that nobody is in. Raises OSError."""

    def leave_and_open() -> int:
        _check(_LIBC.unshare(CLONE_NEWNET))
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return _in_thread(leave_and_open)


def _enter(namespace: str) -> None:
    file = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_LIBC.setns(file, CLONE_NEWNET))
    finally:
        os.close(file)


def _in_thread(function: Callable[[], T]) -> T:
    """A namespace is a thread's own: one that enters another must not come back, so it ends."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function).result()


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _do(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=_COMMAND_DEADLINE)
