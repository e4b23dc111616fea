"""Starts stage processes cheaply: one process imports the heavy modules once, then forks a child for each order.

    python -m omni_cli.launcher.forkserver CONTROL_FD PARENT_PID NAME MODULE...

The launcher and this process speak JSON lines over a socket pair. Orders: `spawn` (with a ticket, a service, its
settings and a log file) and `signal`. Answers: `ready` once, `started` with the pid, `exited` with the exit code.
Signals go through here because only the parent of a process knows for certain that its pid is still its own.

It stays single-threaded and touches neither gRPC nor a GPU: neither survives a fork. Some libraries start threads when
they are imported. A module that brings one is left to the children that need it: the server starts itself anew and
imports only what comes before that module.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from omni_cli.launcher import child


@dataclass(frozen=True, slots=True)
class Order:
    """What a forked child has to become."""

    name: str
    service: str
    settings: Mapping[str, str]
    log: str
    parent: int


class ForkServer:
    """The loop. `run` returns more than once: None here when the launcher is gone, an Order in every child."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pids: dict[int, int] = {}
        self._rest = b""
        self._wake, wake = socket.socketpair()
        for end in (self._wake, wake):
            end.setblocking(False)
        self._wake_writer = wake
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, _noted)
        signal.set_wakeup_fd(wake.fileno())

    def run(self) -> Order | None:
        self._say({"event": "ready"})
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._wake:
                    self._wake.recv(4096)
                    self._reap()
                    continue
                lines = self._read_orders()
                if lines is None:
                    return None
                for line in lines:
                    if (order := self._obey(json.loads(line))) is not None:
                        return order

    def _read_orders(self) -> list[bytes] | None:
        data = self._control.recv(65536)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def _obey(self, message: Mapping[str, Any]) -> Order | None:
        ticket = message["ticket"]
        if message["order"] == "signal":
            if ticket in self._pids:  # it may have ended while the order was under way
                os.killpg(self._pids[ticket], message["signal"])
            return None
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._forget()
            return Order(message["name"], message["service"], message["settings"], message["log"], parent)
        # Here as well as in the child: whoever comes first, a signal to the group finds it.
        with contextlib.suppress(ProcessLookupError):
            os.setpgid(pid, pid)
        self._pids[ticket] = pid
        self._say({"event": "started", "ticket": ticket, "pid": pid})
        return None

    def _reap(self) -> None:
        for ticket, pid in list(self._pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._pids[ticket]
                self._say({"event": "exited", "ticket": ticket, "code": os.waitstatus_to_exitcode(status)})

    def _say(self, message: Mapping[str, Any]) -> None:
        # Blocking is right: the messages are tiny and the launcher always reads.
        self._control.sendall(json.dumps(message).encode() + b"\n")

    def _forget(self) -> None:
        """In a child: drop what belongs to the server, and lead a process group so that signals reach grandchildren."""
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for end in (self._control, self._wake, self._wake_writer):
            end.close()


def become(order: Order) -> None:
    child.tie_to_parent(order.parent)
    child.name_process(order.name)
    log = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    child.adopt(order.settings)
    child.run(order.service)


def preload(modules: Sequence[str]) -> None:
    """Imports them in order; does not return when one of them starts a thread."""
    for number, module in enumerate(modules):
        importlib.import_module(module)
        if _threads() > 1:
            print(f"{module} starts threads when it is imported; every process imports it for itself.", flush=True)
            again = [*sys.orig_argv[: len(sys.orig_argv) - len(modules)], *modules[:number]]
            os.execv(sys.executable, again)  # noqa: S606 -- ourselves; pid, parent and descriptors stay


def _threads() -> int:
    """Of this process, those that libraries made without Python's knowledge too, where the system tells."""
    try:
        return len(os.listdir("/proc/self/task"))
    except FileNotFoundError:
        return threading.active_count()


def main() -> None:
    control, parent, name, *modules = sys.argv[1:]
    child.tie_to_parent(int(parent))
    child.name_process(name)
    preload(modules)
    # What is imported will never be garbage; frozen, the collector does not touch (and so copy) its pages.
    gc.collect()
    gc.freeze()
    order = ForkServer(socket.socket(fileno=int(control))).run()
    if order is not None:
        become(order)


def _noted(number: int, frame: FrameType | None) -> None:
    """SIGCHLD must have a handler for the wakeup descriptor to be written."""


if __name__ == "__main__":
    main()
