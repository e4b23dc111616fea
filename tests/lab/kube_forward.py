"""The kubelet's end of a port-forward, as an API server passes it on: a websocket (RFC 6455) around one connection."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
from http.server import BaseHTTPRequestHandler

_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY, _CLOSE = 2, 8
_DATA, _ERROR = 0, 1


def serve_forward(handler: BaseHTTPRequestHandler, port: int, behind: str | None) -> None:
    """Until the client leaves. `behind`: host:port of the pod's process; None: nothing listens there."""
    key = handler.headers["Sec-WebSocket-Key"] + _MAGIC
    handler.send_response(101)
    handler.send_header("Upgrade", "websocket")
    handler.send_header("Connection", "Upgrade")
    handler.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
    handler.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())  # noqa: S324
    handler.end_headers()
    handler.close_connection = True
    for channel in (_DATA, _ERROR):
        _send(handler, channel, struct.pack("<H", port))
    if behind is None:
        _send(handler, _ERROR, f"connection refused to port {port}".encode())
    else:
        _pass_on(handler, behind)
    while _receive(handler) is not None:  # the tunnel stays when the connection in it has ended
        pass


def _pass_on(handler: BaseHTTPRequestHandler, behind: str) -> None:
    host, _, port = behind.rpartition(":")
    asked = _receive(handler)
    if asked is None:
        return
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(asked[1:])
        while piece := connection.recv(4096):
            _send(handler, _DATA, piece)


def _send(handler: BaseHTTPRequestHandler, channel: int, data: bytes) -> None:
    payload = bytes([channel]) + data
    length = struct.pack("!BBH", 0x80 | _BINARY, 126, len(payload))
    handler.wfile.write(length + payload)
    handler.wfile.flush()


def _receive(handler: BaseHTTPRequestHandler) -> bytes | None:
    """A message of at most 64 KiB; None at the end."""
    try:
        first, second = handler.rfile.read(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", handler.rfile.read(2))
        mask = handler.rfile.read(4)
        data = handler.rfile.read(size)
    except (OSError, ValueError):
        return None
    if first & 0x0F == _CLOSE:
        return None
    return bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
