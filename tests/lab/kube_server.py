"""A Kubernetes API server of one process and no cluster behind it: enough for helm's install, upgrade, rollback, test
and uninstall, for `lookup`, and for the Python client. Discovery, reading, writing, patches, watches.

An apply replaces what was applied before, as it does on a server when one manager owns every field; only the number of
replicas stays what it is where nobody applies one (that is how an autoscaler keeps it).
"""

from __future__ import annotations

import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml
from tests.lab import kube_wire
from tests.lab.kube_discovery import discovery
from tests.lab.kube_store import KINDS, Object, Place, Refusal, Store

_WATCH_SECONDS = 60.0
_NO_OPENAPI = b"\x0a\x032.0"  # a schema without types: clients then leave validation to the server
_OPENAPI_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


@dataclass(frozen=True)
class FakeCluster:
    """What runs: its objects and how to reach it."""

    store: Store
    kubeconfig: Path

    def secret(self, namespace: str, name: str) -> Object:
        """Raises Refusal where there is none."""
        return self.store.get(Place("v1", "secrets", namespace, name))


@contextmanager
def cluster(folder: Path, *namespaces: str) -> Iterator[FakeCluster]:
    """Serves until the end of the block; its kubeconfig lies in the folder."""
    store = Store()
    for name in namespaces:
        store.create(Place("v1", "namespaces", "", name), {"status": {"phase": "Active"}})
    handler = type("Handler", (_Handler,), {"store": store})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(_kubeconfig(server.server_address[1], namespaces[0] if namespaces else "default"))
        yield FakeCluster(store, kubeconfig)
    finally:
        store.close()
        server.shutdown()
        serving.join()
        server.server_close()


def _kubeconfig(port: int, namespace: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "nobody", "namespace": namespace}}],
            "current-context": "fake",
        }
    )


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _WATCH_SECONDS
    disable_nagle_algorithm = True  # head and body are two packets; the second would wait for the first one's receipt
    store: ClassVar[Store]

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def _serve(self) -> None:
        url = urllib.parse.urlparse(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        body = self._body()
        try:
            if url.path == "/readyz":
                self._write(200, b"ok", "text/plain")
            elif url.path == "/openapi/v2":
                self._write(200, _NO_OPENAPI, _OPENAPI_TYPE)
            elif (found := discovery(url.path)) is not None:
                self._answer(200, found)
            else:
                self._on_objects(_Target.of(url.path), query, body)
        except Refusal as refusal:
            status = {"status": "Failure", "message": refusal.message, "reason": refusal.reason, "code": refusal.code}
            self._answer(refusal.code, {"kind": "Status", "apiVersion": "v1", **status})

    def _body(self) -> Object:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if body.startswith(kube_wire.MAGIC):
            return kube_wire.decode(body)
        return dict(yaml.safe_load(body) or {})

    def _on_objects(self, target: _Target, query: dict[str, str], body: Object) -> None:
        place = target.place
        match self.command:
            case "GET" if place.name:
                self._answer(200, self.store.get(place))
            case "GET" if query.get("watch"):
                self._watch(target, query)
            case "GET":
                items = self.store.select(lambda at, one: target.takes(at, one, query))
                meta = {"resourceVersion": str(self.store.version)}
                self._answer(
                    200,
                    {"kind": f"{target.kind}List", "apiVersion": place.group_version, "metadata": meta, "items": items},
                )
            case "POST":
                self._answer(201, self.store.create(place._replace(name=body["metadata"]["name"]), body))
            case "PUT":
                self._answer(200, self.store.put(place, body))
            case "PATCH" if "apply" in self.headers["Content-Type"]:
                self._answer(200, self._apply(place, body))
            case "PATCH":
                self._answer(200, self.store.change(place, lambda before: _merge(before, body)))
            case "DELETE":
                self.store.delete(place)
                self._answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _apply(self, place: Place, body: Object) -> Object:
        try:
            before = self.store.get(place)
        except Refusal:
            return self.store.create(place, body)
        replicas = before.get("spec", {}).get("replicas")
        if replicas is not None and "replicas" not in body.get("spec", {}):
            body = body | {"spec": body["spec"] | {"replicas": replicas}}
        return self.store.put(place, body)

    def _watch(self, target: _Target, query: dict[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        since = int(query.get("resourceVersion") or 0)
        try:
            if query.get("sendInitialEvents") == "true":
                since = self.store.version
                for one in self.store.select(lambda at, one: target.takes(at, one, query)):
                    self._event("ADDED", one)
                done = {"resourceVersion": str(since), "annotations": {"k8s.io/initial-events-end": "true"}}
                head = {"kind": target.kind, "apiVersion": target.place.group_version}
                self._event("BOOKMARK", {**head, "metadata": done})
            for change in self.store.watch(since, float(query.get("timeoutSeconds") or _WATCH_SECONDS)):
                if target.takes(change.place, change.object, query):
                    self._event(change.what, change.object)
        except OSError:
            return  # who watched has gone

    def _event(self, what: str, content: Object) -> None:
        self.wfile.write(json.dumps({"type": what, "object": content}).encode() + b"\n")
        self.wfile.flush()

    def _answer(self, code: int, content: Object) -> None:
        self._write(code, json.dumps(content).encode(), "application/json")

    def _write(self, code: int, body: bytes, content_type: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@dataclass(frozen=True)
class _Target:
    """What a path names: an object, or those of a resource in a namespace or in all of them."""

    place: Place
    kind: str

    @classmethod
    def of(cls, path: str) -> _Target:
        match path.strip("/").split("/"):
            case ["api", "v1", *rest]:
                group_version = "v1"
            case ["apis", group, version, *rest]:
                group_version = f"{group}/{version}"
            case _:
                raise Refusal(404, "NotFound", f"nothing is served at {path}")
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource, name = rest[0], rest[1] if len(rest) > 1 else ""
        kind = KINDS.get(group_version, {}).get(resource)
        if kind is None:
            raise Refusal(404, "NotFound", f"the server has no {resource} of {group_version}")
        return cls(Place(group_version, resource, namespace, name), kind)

    def takes(self, place: Place, content: Object, query: dict[str, str]) -> bool:
        here, metadata = self.place, content["metadata"]
        if place[:2] != here[:2] or here.namespace not in ("", place.namespace):
            return False
        for one in filter(None, query.get("fieldSelector", "").split(",")):
            key, _, value = one.partition("=")
            if {"metadata.name": place.name, "metadata.namespace": place.namespace}.get(key) != value.lstrip("="):
                return False
        return _has_labels(metadata.get("labels") or {}, query.get("labelSelector", ""))


def _has_labels(labels: dict[str, str], selector: str) -> bool:
    """Of equality and inequality; sets (`in`) are not asked for here."""
    for one in filter(None, selector.split(",")):
        key, equals, value = one.replace("==", "=").partition("=")
        if key.endswith("!"):
            if labels.get(key.rstrip("!")) == value:
                return False
        elif (key not in labels) if not equals else (labels.get(key) != value):
            return False
    return True


def _merge(before: Any, patch: Any) -> Any:
    """A JSON merge patch; the directives of strategic ones are passed over, and their lists replace."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif not key.startswith("$"):
            merged[key] = _merge(merged.get(key), value)
    return merged
