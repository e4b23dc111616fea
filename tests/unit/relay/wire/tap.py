"""Someone on the path between two relays: hears everything, and may say it again."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from tests.unit.relay.wire.meeting import PATIENCE


class Tap:
    """Passes on what one client and the server at `port` say, and keeps it."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard_of_client = bytearray()
        self.heard_of_server = bytearray()
        self._port = port
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Tap:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(PATIENCE)
        self._listener.close()

    def _run(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            back = threading.Thread(target=_pass_on, args=(server, client, self.heard_of_server))
            back.start()
            _pass_on(client, server, self.heard_of_client)
            back.join(PATIENCE)


def _pass_on(source: socket.socket, sink: socket.socket, heard: bytearray) -> None:
    with suppress(OSError):  # either end may leave in the middle
        while data := source.recv(65536):
            heard += data
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
