"""Questions to the API server, by the `kubernetes` client's ways to log in. Bounded in time and in bytes.

Objects stay JSON: the client's models refuse what a newer or older server may say, and reading needs none of them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from omni_cli.cluster.forward import fetch
from omni_cli.errors import CommandError

# A server that needs longer to begin, or to say the next piece, does not answer.
_CONNECT, _READ = 5.0, 10.0
# A list of all pods of a large cluster is some tens of MB.
_MOST_BYTES = 64 << 20
# Above what asks at once: a thread that nobody waits for any more still holds its place for some seconds.
_AT_ONCE = 16
DEFAULT_RELEASE = "omni"
_IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SERVER = "the API server"


class CannotReach(CommandError):
    """There is no cluster to ask, it does not answer, or it does not know us."""

    code = 2


class NotGiven(CommandError):
    """The server answered and gave nothing: it is not allowed, or not there."""

    def __init__(self, path: str, status: int, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.status = status

    @property
    def forbidden(self) -> bool:
        return self.status in {401, 403}


@dataclass(frozen=True, slots=True)
class Where:
    """Which cluster, and which release in it; empty: what the kubeconfig says."""

    namespace: str = ""
    release: str = DEFAULT_RELEASE
    kubeconfig: Path | None = None
    context: str = ""


class Cluster:
    """An API server, and a namespace in it."""

    def __init__(self, api: Any, namespace: str) -> None:
        self._api = api
        self._limiter = anyio.CapacityLimiter(_AT_ONCE)
        self.namespace = namespace
        self.host: str = api.configuration.host

    async def objects(self, path: str, **query: str) -> list[Mapping[str, Any]]:
        """The items of a list. Raises CannotReach and NotGiven."""
        text = await self.text(path, query)
        try:
            items = json.loads(text)["items"]
        except (ValueError, KeyError, TypeError):
            raise CannotReach(f"What answers at {self.host} is no Kubernetes API server.") from None
        return items if isinstance(items, list) else []

    async def text(
        self, path: str, query: Mapping[str, str] | None = None, *, any_status: bool = False, patience: float = _READ
    ) -> str:
        """A page. `any_status`: also of a server that says that it is not well. `patience`: seconds for each piece.

        Raises CannotReach and NotGiven.
        """
        asking = partial(self._get, path, query or {}, patience)
        status, body = await to_thread.run_sync(asking, abandon_on_cancel=True, limiter=self._limiter)
        if status < 400 or (any_status and status == 503):
            return body.decode(errors="replace")
        message = _message(body) or f"status {status}"
        if status == 401:
            raise CannotReach(f"The API server at {self.host} does not know these credentials: {message}.")
        raise NotGiven(path, status, message)

    async def forwarded(self, pod: str, port: int, path: str) -> str:
        """A page of a pod by a port-forward. Raises NotForwarded."""
        asking = partial(fetch, self._api, self.namespace, pod, port, path)
        return await to_thread.run_sync(asking, abandon_on_cancel=True, limiter=self._limiter)

    def _get(self, path: str, query: Mapping[str, str], patience: float) -> tuple[int, bytes]:
        import urllib3

        request = self._api.param_serialize(
            "GET",
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json, */*"},
            auth_settings=["BearerToken"],
        )
        try:
            reply = self._api.call_api(*request, _request_timeout=(_CONNECT, patience)).response
            try:
                body = reply.read(_MOST_BYTES, decode_content=True)
                whole = reply.length_remaining in {0, None}
            finally:
                reply.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise CannotReach(f"The API server at {self.host} does not answer: {_reason(error)}.") from None
        if not whole and len(body) >= _MOST_BYTES:
            raise NotGiven(path, 413, f"it is larger than {_MOST_BYTES >> 20} MiB")
        return reply.status, body


@asynccontextmanager
async def open_cluster(where: Where) -> AsyncIterator[Cluster]:
    """Raises CannotReach when nothing says where a cluster is."""
    cluster = await to_thread.run_sync(_connect, where)
    yield cluster


def _connect(where: Where) -> Cluster:
    import urllib3
    import yaml
    from kubernetes import client, config

    settings: Any = client.Configuration()
    try:
        namespace = _log_in(config, settings, where)
    except (yaml.YAMLError, UnicodeError, AttributeError, KeyError, TypeError, StopIteration):
        # What the client makes of other files.
        raise CannotReach(f"No cluster to ask: {where.kubeconfig or 'KUBECONFIG'} holds no kubeconfig.") from None
    except (config.ConfigException, OSError, ValueError) as error:
        raise CannotReach(f"No cluster to ask: {str(error).rstrip('.')}.") from None
    settings.retries = urllib3.Retry(0)
    return Cluster(client.ApiClient(settings), where.namespace or namespace)


def _log_in(config: Any, settings: Any, where: Where) -> str:
    """The namespace that is meant when none is named."""
    file = str(where.kubeconfig) if where.kubeconfig else None
    try:
        _, current = config.list_kube_config_contexts(config_file=file)
    except config.ConfigException:
        if where.kubeconfig or where.context or not _IN_CLUSTER_NAMESPACE.is_file():
            raise
        config.load_incluster_config(client_configuration=settings)
        return _IN_CLUSTER_NAMESPACE.read_text().strip()
    config.load_kube_config(
        config_file=file, context=where.context or None, client_configuration=settings, persist_config=False
    )
    if where.context:
        contexts, _ = config.list_kube_config_contexts(config_file=file)
        current = next(context for context in contexts if context["name"] == where.context)
    return str(current.get("context", {}).get("namespace") or "default")


def _message(body: bytes) -> str:
    """Of a Status object."""
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    return str(said.get("message", "")).rstrip(".") if isinstance(said, dict) else ""


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    said = str(cause).rpartition(": ")[2].rpartition("] ")[2]
    return said.strip("().'\" ") or type(cause).__name__
