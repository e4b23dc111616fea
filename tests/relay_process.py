"""A relay as the process that it is in a pod."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from omni_common.testing.mail import PATIENCE

_SAMPLE = re.compile(r"^(omni_relay_\w+(?:{[^}]*})?) (\S+)$", re.M)


class Process(Protocol):
    """What is asked of a process, however it was started."""

    @property
    def pid(self) -> int: ...

    @property
    def stderr(self) -> IO[str] | None: ...

    def send_signal(self, number: signal.Signals, /) -> None: ...

    def kill(self) -> None: ...

    def terminate(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


class RelayProcess:
    """`log` is what it has written so far."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def logged(self, message: str, within: float = PATIENCE) -> dict[str, Any]:
        """The first record of that message, waiting for it. Raises AssertionError when it does not come."""
        with self._changed:
            self._changed.wait_for(lambda: self._find(message) is not None or not self._reader.is_alive(), within)
            record = self._find(message)
        assert record is not None, f"{message!r} is not in {self.log}"
        return record

    def ended(self) -> int:
        """Its exit code, waiting for it and for its last words."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def metrics(self) -> Mapping[str, float]:
        port = self.logged("metrics are served")["port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as reply:
            return {m[1]: float(m[2]) for m in _SAMPLE.finditer(reply.read().decode())}

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def memory(self) -> int:
        """Bytes of its own, without the arena."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]

    def _find(self, message: str) -> dict[str, Any] | None:
        return next((record for record in self.log if record["msg"] == message), None)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                with self._changed:
                    self.log.append(json.loads(line) if line.startswith("{") else {"msg": line})
                    self._changed.notify_all()


@contextmanager
def starting_relay(folder: Path, **settings: str) -> Iterator[RelayProcess]:
    """Whatever becomes of it; killed at the end."""
    named = {"FOLDER": str(folder), "BIND": "127.0.0.1:0", "METRICS_PORT": "0"} | settings
    environment = {**os.environ, **{f"OMNI_RELAY_{name}": value for name, value in named.items()}}
    command = [sys.executable, "-m", "omni_relay"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        relay = RelayProcess(process)
        try:
            yield relay
        finally:
            process.kill()
            relay.ended()


@contextmanager
def running_relay(folder: Path, **settings: str) -> Iterator[RelayProcess]:
    """That takes stages."""
    with starting_relay(folder, **settings) as relay:
        relay.logged("serving", within=3 * PATIENCE)
        yield relay
