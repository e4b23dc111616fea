"""A warm process that forks others: relays and stages, each in some 10 ms instead of a second, to be killed by the
hundred.

It has imported what they need and has no thread. Everything that it forks dies with it, and it ends when its end of the
line does: with the test.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from tests.lab.readable import readable
from tests.lab.stage_process import run_stage
from tests.relay_process import RelayProcess

from omni_common.testing.mail import PATIENCE
from omni_relay import __main__ as relay

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_PACKET = 1 << 16


class Forked:
    """A process that the nursery has forked, as `subprocess.Popen` would show it. Its exit code is not known."""

    def __init__(self, pid: int, handle: int, stderr: IO[str] | None = None) -> None:
        self.pid = pid
        self.stderr = stderr
        self._handle = handle

    def send_signal(self, number: signal.Signals) -> None:
        signal.pidfd_send_signal(self._handle, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Returns when it is dead, and with it its locks and its sockets."""
        if self._handle >= 0:
            with suppress(ProcessLookupError):  # it has ended by itself
                self.send_signal(signal.SIGKILL)
            self.wait(PATIENCE)

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutExpired."""
        if self._handle >= 0:
            if not readable(self._handle, timeout):
                raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
            os.close(self._handle)
            self._handle = -1
        return 0


class Nursery:
    """Its own end of the line. What it has forked lives until it is killed, or until the nursery ends."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def fork(self, spec: Mapping[str, object], *files: socket.socket | IO[str]) -> tuple[int, int]:
        """The process id, and a descriptor of the process. It gets copies of `files`."""
        socket.send_fds(self._line, [json.dumps(spec).encode()], [file.fileno() for file in files])
        answer, (handle,), _, _ = socket.recv_fds(self._line, _PACKET, 1)
        return int(answer), handle

    def start_relay(self, folder: Path, **settings: str) -> RelayProcess:
        """Its first words are still to come."""
        named = {"FOLDER": str(folder), "BIND": "127.0.0.1:0", "METRICS_PORT": "0"} | settings
        reading, writing = os.pipe()
        with open(writing, "w") as stderr:
            environment = {f"OMNI_RELAY_{name}": value for name, value in named.items()}
            pid, handle = self.fork({"relay": environment}, stderr)
        return RelayProcess(Forked(pid, handle, open(reading)))

    @contextmanager
    def relay(self, folder: Path, **settings: str) -> Iterator[RelayProcess]:
        """One that takes stages."""
        made = self.start_relay(folder, **settings)
        try:
            made.logged("serving", within=3 * PATIENCE)
            yield made
        finally:
            made.process.kill()
            made.ended()


@contextmanager
def nursery(*prefix: str) -> Iterator[Nursery]:
    """`prefix` is a command that runs another one, elsewhere."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [*prefix, sys.executable, "-m", "tests.lab.nursery", str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL) as process:
        theirs.close()
        ours.settimeout(PATIENCE)
        assert ours.recv(1), "the nursery does not start"
        try:
            yield Nursery(ours)
        finally:
            process.kill()


def _child(spec: Mapping[str, object], files: Sequence[int]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    match spec:
        case {"relay": dict(environment)}:
            os.dup2(files[0], 2)
            os.close(files[0])
            os.environ.update(environment)
            sys.argv = ["omni_relay"]
            relay.main()
        case {"stage": str(name), "folder": str(folder)}:
            run_stage(Path(folder), name, files)


def _fork(spec: Mapping[str, object], files: Sequence[int], line: socket.socket) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        line.close()
        _child(spec, files)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  # a forked process must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(code)


def _serve(line: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    line.send(b"!")
    while True:
        said, files, _, _ = socket.recv_fds(line, _PACKET, 8)
        if not said:
            return
        with ExitStack() as open_here:
            for file in files:
                open_here.callback(os.close, file)
            pid = _fork(json.loads(said), files, line)
            handle = os.pidfd_open(pid)
            open_here.callback(os.close, handle)
            socket.send_fds(line, [str(pid).encode()], [handle])


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as there:
        _serve(there)
