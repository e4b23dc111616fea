"""A Kubernetes API server that shows a cluster as a test draws it: lists of objects, logs, and its proxy to pods.

Over real HTTP, for the real client. It keeps nothing and changes nothing; `kube_server` is the one for helm.
"""

from __future__ import annotations

import http.client
import http.server
import json
import ssl
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml
from tests.lab.kube_forward import serve_forward
from tests.unit.relay.wire.authority import Files

Json = dict[str, Any]
_TOKEN = "not-a-secret"  # noqa: S105  # of this server


@dataclass
class Picture:
    """What the cluster is. `lists`: objects by resource ("pods", "nodes", ...). `logs` by (pod, container, previous).
    `proxies`: for "pod:port", host:port of a real server, or the page itself. `forbidden`: resources that nobody may
    see; "pods/proxy", "all pods" too. `forwards`: as proxies, for port-forwards."""

    lists: dict[str, list[Json]] = field(default_factory=dict)
    logs: dict[tuple[str, str, bool], str] = field(default_factory=dict)
    proxies: dict[str, str | tuple[int, str]] = field(default_factory=dict)
    forwards: dict[str, str] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    namespace: str = "speech"

    def add(self, resource: str, *objects: Json) -> None:
        self.lists.setdefault(resource, []).extend(objects)


class _Refusal(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def kube_api(folder: Path, picture: Picture, tls: Files | None = None) -> Iterator[Path]:
    """Serves until the end of the block. Gives the kubeconfig."""
    handler = type("Handler", (_Handler,), {"picture": picture})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.cert, tls.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        kubeconfig = folder / "kubeconfig"
        address = f"http://127.0.0.1:{server.server_address[1]}"
        if tls is not None:
            address = f"https://localhost:{server.server_address[1]}"
        write_kubeconfig(kubeconfig, address, picture.namespace, ca=tls.ca if tls else None)
        yield kubeconfig
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def write_kubeconfig(file: Path, server: str, namespace: str, *, ca: Path | None = None) -> None:
    trust = {"certificate-authority": str(ca)} if ca else {}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": server, **trust}}],
        "users": [{"name": "tester", "user": {"token": _TOKEN}}],
        "contexts": [
            {"name": "lab", "context": {"cluster": "lab", "user": "tester", "namespace": namespace}},
            {"name": "other", "context": {"cluster": "lab", "user": "tester", "namespace": "elsewhere"}},
        ],
        "current-context": "lab",
    }
    file.write_text(yaml.safe_dump(config))


def _below_version(path: str) -> list[str]:
    """Without `api/v1`, `apis/apps/v1` and the like."""
    parts = path.strip("/").split("/")
    return parts[2:] if parts[0] == "api" else parts[3:]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    picture: ClassVar[Picture]

    def do_GET(self) -> None:
        url = urllib.parse.urlparse(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        try:
            self._know_caller()
            if url.path.endswith("/portforward"):
                self._forward(url.path.split("/")[-2], int(query["ports"]))
                return
            status, body = self._page(url.path, query)
        except _Refusal as refusal:
            status = refusal.code
            said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": str(refusal), "code": status}
            body = json.dumps(said)
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if body.startswith("{") else "text/plain")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def _know_caller(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {_TOKEN}":
            raise _Refusal(401, "Unauthorized")

    def _page(self, path: str, query: Mapping[str, str]) -> tuple[int, str]:
        match _below_version(path):
            case ["namespaces", namespace, *_] if namespace != self.picture.namespace:
                return 200, json.dumps({"items": []})
            case ["namespaces", _, "pods", target, "proxy", *rest]:
                self._allow("pods/proxy")
                return self._proxy(target, "/".join(rest))
            case ["namespaces", _, "pods", pod, "log"]:
                self._allow("pods/log")
                return 200, self._log(pod, query)
            case ["namespaces", _, resource, name]:
                self._allow(resource)
                return 200, json.dumps(self._named(resource, name))
            case ["namespaces", _, resource]:
                self._allow(resource)
                return 200, json.dumps({"items": self._listed(resource, query)})
            case ["pods"]:
                self._allow("all pods")
                return 200, json.dumps({"items": self._listed("pods", {}) + self._listed("foreign pods", {})})
            case [resource]:
                self._allow(resource)
                return 200, json.dumps({"items": self._listed(resource, query)})
        raise _Refusal(404, "the server could not find the requested resource")

    def _allow(self, what: str) -> None:
        if what in self.picture.forbidden:
            raise _Refusal(403, f'{what} is forbidden: User "tester" cannot list resource "{what}"')

    def _listed(self, resource: str, query: Mapping[str, str]) -> list[Json]:
        wanted = [one.split("=") for one in filter(None, query.get("labelSelector", "").split(","))]
        found = self.picture.lists.get(resource, [])
        return [o for o in found if all((o["metadata"].get("labels") or {}).get(k) == v for k, v in wanted)]

    def _named(self, resource: str, name: str) -> Json:
        for one in self.picture.lists.get(resource, []):
            if one["metadata"]["name"] == name:
                return one
        raise _Refusal(404, f'{resource} "{name}" not found')

    def _log(self, pod: str, query: Mapping[str, str]) -> str:
        log = self.picture.logs.get((pod, query.get("container", ""), query.get("previous") == "true"))
        if log is None:
            raise _Refusal(400, f'previous terminated container "{query.get("container")}" in pod "{pod}" not found')
        return "".join(log.splitlines(keepends=True)[-int(query.get("tailLines", 1000)) :])

    def _forward(self, pod: str, port: int) -> None:
        self._allow("pods/portforward")
        serve_forward(self, port, self.picture.forwards.get(f"{pod}:{port}"))

    def _proxy(self, target: str, path: str) -> tuple[int, str]:
        """The scheme is how the server speaks to the pod."""
        pod = target.removeprefix("https:").removeprefix("http:")
        behind = self.picture.proxies.get(pod)
        if behind is None:
            raise _Refusal(503, f"error trying to reach service: dial tcp: no route to {pod}")
        if isinstance(behind, tuple):
            return behind
        connection = http.client.HTTPConnection(behind, timeout=5)
        try:
            connection.request("GET", f"/{path}")
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        except OSError as error:
            raise _Refusal(503, f"error trying to reach service: {error}") from None
        finally:
            connection.close()
