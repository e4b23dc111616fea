"""One page of a pod through the API server's port-forward, which ends inside the pod, behind every NetworkPolicy.

The protocol is a websocket of binary messages whose first byte is a channel: 0 carries the port's bytes, 1 says why it
failed; the first message of each names the port. Nothing tells that the other side has sent all, so that the page's own
length has to.
"""

from __future__ import annotations

import ssl
from typing import Any

_TIMEOUT = 5.0
_MOST_BYTES = 16 << 20
_DATA, _ERROR = 0, 1
_PROTOCOL = "v4.channel.k8s.io"
_HEAD_END = b"\r\n\r\n"
_LENGTH = "content-length"


class NotForwarded(Exception):
    """The server, the kubelet or the process did not give the page."""


def fetch(api: Any, namespace: str, pod: str, port: int, path: str) -> str:
    """Blocks for some seconds at most, for each piece. Raises NotForwarded."""
    import websocket

    _, url, headers, *_ = api.param_serialize(
        "GET",
        f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward",
        query_params=[("ports", str(port))],
        auth_settings=["BearerToken"],
    )
    settings = api.configuration
    known = {name.lower(): value for name, value in headers.items()}
    credentials = [f"Authorization: {known['authorization']}"] if "authorization" in known else []
    try:
        tunnel = websocket.create_connection(
            url.replace("http", "ws", 1),
            timeout=_TIMEOUT,
            header=credentials,
            subprotocols=[_PROTOCOL],
            sslopt={"context": _trust(settings)} if url.startswith("https") else None,
            http_no_proxy=["*"] if not settings.proxy else None,
        )
    except (websocket.WebSocketException, OSError) as error:
        raise NotForwarded(str(error)) from None
    try:
        tunnel.send_binary(bytes([_DATA]) + f"GET /{path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return _body(_Channel(tunnel))
    except (websocket.WebSocketException, OSError) as error:
        raise NotForwarded(str(error)) from None
    finally:
        tunnel.close(timeout=0)


class _Channel:
    """The bytes of the port."""

    def __init__(self, tunnel: Any) -> None:
        self._tunnel = tunnel
        self._named = {_DATA: False, _ERROR: False}

    def receive(self) -> bytes:
        """The next piece; nothing at the end."""
        while True:
            _, message = self._tunnel.recv_data()
            channel = message[0] if message else -1
            if channel not in self._named:
                return b""
            if not self._named[channel]:
                self._named[channel] = True
            elif channel == _ERROR:
                raise NotForwarded(message[1:].decode(errors="replace"))
            elif len(message) > 1:
                return bytes(message[1:])


def _body(channel: _Channel) -> str:
    """Of an HTTP reply, which says how long it is."""
    page = b""
    while _HEAD_END not in page:
        piece = channel.receive()
        if not piece or len(page) > _MOST_BYTES:
            raise NotForwarded("the reply has no end of its head")
        page += piece
    head, _, body = page.partition(_HEAD_END)
    status, *fields = head.decode("latin-1").split("\r\n")
    length = next(
        (int(value) for name, _, value in (f.partition(":") for f in fields) if name.lower() == _LENGTH), None
    )
    if " 200 " not in f"{status} " or length is None or length > _MOST_BYTES:
        raise NotForwarded(status)
    while len(body) < length:
        piece = channel.receive()
        if not piece:
            raise NotForwarded("the reply was cut short")
        body += piece
    return body[:length].decode(errors="replace")


def _trust(settings: Any) -> ssl.SSLContext:
    """As the client's other connections."""
    context = ssl.create_default_context(cafile=settings.ssl_ca_cert)
    if not settings.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    return context
