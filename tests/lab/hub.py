"""A hub of models on loopback, as far as the official client asks it: one model at one commit, files in ranges.

It can break a download off midway, and stand still; what it was asked for is kept.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "somebody/fish"
COMMIT = "1f" * 20
_RANGE = re.compile(r"bytes=(\d+)-")


class Hub(ThreadingHTTPServer):
    """`breaks` names files whose bytes end midway, once each; while `open_to_all` is not set, bodies wait."""

    daemon_threads = True

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files = dict(files)
        self.breaks: set[str] = set()
        self.sent: list[tuple[str, int]] = []  # file, from which byte on
        self.open_to_all = threading.Event()
        self.open_to_all.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed midway is nothing to tell about."""


@contextmanager
def serve_hub(files: Mapping[str, bytes]) -> Iterator[Hub]:
    with Hub(files) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            hub.open_to_all.set()
            hub.shutdown()
            thread.join(10)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self._file(body=False)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in (f"/api/models/{MODEL}/revision/main", f"/api/models/{MODEL}/revision/{COMMIT}"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in self.server.files.items()]
            self._json({"id": MODEL, "sha": COMMIT, "siblings": siblings})
        elif path == f"/api/models/{MODEL}/tree/{COMMIT}":
            self._json(
                [{"type": "file", "path": n, "size": len(d), "oid": _etag(d)} for n, d in self.server.files.items()]
            )
        else:
            self._file(body=True)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, *, body: bool) -> None:
        name = self.path.partition("?")[0].removeprefix(f"/{MODEL}/resolve/{COMMIT}/")
        data = self.server.files.get(name)
        if data is None:
            found = self.path.startswith(f"/api/models/{MODEL}/")
            code = "RevisionNotFound" if found else "RepoNotFound"
            self._send(404, b"{}", {"X-Error-Code": code, "X-Error-Message": "there is none"})
            return
        start = int(match[1]) if (match := _RANGE.match(self.headers.get("Range", ""))) else 0
        about = {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if start:
            about["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if body:
            self.server.sent.append((name, start))
            self.server.open_to_all.wait(60)
        self._send(206 if start else 200, data[start:], about, name=name, body=body)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str], *, name: str = "", body: bool = True) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if not body:
            return
        if name in self.server.breaks:
            self.server.breaks.discard(name)
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Not on the tests' output."""


def _etag(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
