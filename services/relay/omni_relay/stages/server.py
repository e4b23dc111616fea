"""Listens on `relay.sock`: a thread for each line, and who is here by name."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

from omni_common.clock import monotonic
from omni_common.telemetry import names
from omni_relay.ports import ArrivedTensor
from omni_relay.space import slot_of
from omni_relay.stages.line import Backlogs, StageLine
from omni_relay.stages.messages import Hello
from omni_relay.stages.session import Pod, StageSession, claims_of
from omni_relay.watched import start_thread

logger = logging.getLogger(__name__)

SOCKET = "relay.sock"
"""The socket's name in the pod's shared folder."""

# Lines at a time: many times the stages of any pod, and a bound on what a stage gone wild can take in threads.
MAX_LINES = 64

# What accept may meet that another moment mends.
_PASSING = {errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class StageServer:
    """The stages of the pod: a ports.Consumers, and the register of their sessions."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._backlogs = Backlogs()
        self._threads: dict[StageSession, threading.Thread | None] = {}
        self._stages: dict[str, StageSession] = {}
        self._pod: Pod | None = None
        self._listener: socket.socket | None = None
        self._inode = 0

    @property
    def pod(self) -> Pod:
        """Raises RuntimeError before `start`."""
        if self._pod is None:
            raise RuntimeError("the stages' server has not started")
        return self._pod

    def start(self, pod: Pod) -> None:
        """Takes the socket's name over from any former life. Raises OSError when the folder does not allow it."""
        self._pod = pod
        self._listener = self._listen()
        start_thread("backlogs", self._backlogs.run)
        start_thread("stages", self._accept, self._listener)

    def tick(self) -> None:
        """Cuts stages that have not read for long."""
        self._backlogs.cut_stalled()

    def stop(self, patience: float) -> bool:
        """Ends all lines; what stages have stays theirs, for them to claim from the next life. Waits for the lines'
        threads, `patience` seconds at most. Says whether the pod is empty: then the socket is gone too."""
        self._stopping.set()
        if self._listener is not None:
            with suppress(OSError):  # not connected, which is what a listener is
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        with self._lock:
            empty, threads = not self._stages, dict(self._threads)
        for session in threads:
            session.line.shut()
        end = monotonic() + patience
        for thread in threads.values():
            if thread is not None:
                thread.join(max(0.0, end - monotonic()))
        self._backlogs.stop()
        if empty:
            self._unlink()
        return empty

    # ports.Consumers

    def knows(self, consumer: str) -> bool:
        return consumer in self._stages

    def deliver(self, consumer: str, arrived: ArrivedTensor) -> bool:
        session, space = self._stages.get(consumer), self.pod.space
        if session is None or not space.deliver(consumer, arrived):
            return False
        return session.arrived(arrived) or not space.withdraw(slot_of(arrived))

    # Register

    def enter(self, session: StageSession, hello: Hello) -> None:
        with self._lock:
            former = self._stages.get(hello.replica)
            if former is not None:
                logger.warning("a stage has come again", extra={"replica": hello.replica})
                former.line.shut()
            session.welcome(self.pod.space.enter(hello.replica, session, *claims_of(hello, self.pod.arena)))
            self._stages[hello.replica] = session  # only now: nothing may reach it before its welcome
            names.RELAY_STAGES.set(len(self._stages))

    def leave(self, session: StageSession) -> None:
        with self._lock:
            if self._stages.get(session.replica) is session and not self._stopping.is_set():
                del self._stages[session.replica]
                names.RELAY_STAGES.set(len(self._stages))
                self.pod.space.leave_stage(session.replica)

    # Lines

    def _listen(self) -> socket.socket:
        """Under its name only once it listens: who finds the socket can connect."""
        draft = f"{SOCKET}.draft"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        # Through the folder's descriptor, since a socket's path has 107 bytes at most.
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=folder)
            listener.bind(f"/proc/self/fd/{folder}/{draft}")
            os.chmod(draft, 0o660, dir_fd=folder)
            listener.listen(MAX_LINES)
            self._inode = os.stat(draft, dir_fd=folder).st_ino
            os.rename(draft, SOCKET, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            listener.close()
            raise
        finally:
            os.close(folder)
        return listener

    def _unlink(self) -> None:
        path = self._folder / SOCKET
        with suppress(FileNotFoundError):
            if path.lstat().st_ino == self._inode:
                path.unlink()

    def _accept(self, listener: socket.socket) -> None:
        """A thread's target."""
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if self._stopping.is_set():
                    return
                if error.errno not in _PASSING:
                    raise
                logger.warning("no line could be taken", extra={"why": str(error)})
                self._stopping.wait(0.1)
            else:
                self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        session = StageSession(StageLine(connection, self._backlogs, self.pod.clock), self.pod, self)
        with self._lock:
            room = len(self._threads) < MAX_LINES and not self._stopping.is_set()
            if room:
                self._threads[session] = None
        if not room:
            logger.warning("a line is refused: there are as many as there may be")
            session.line.close()
            return
        thread = start_thread("stage", self._run, session)
        with self._lock:
            if session in self._threads:
                self._threads[session] = thread

    def _run(self, session: StageSession) -> None:
        """A thread's target."""
        try:
            session.run()
        finally:
            with self._lock:
                del self._threads[session]
