"""A node of one machine: runs pods of the chart by podman as a kubelet would.

What it takes from a pod: init steps one after the other, sidecars, containers, environment with the pod's own facts,
volumes (emptyDir, in memory with its size; ConfigMaps and Secrets), users and groups, read-only root, capabilities,
limits, startup probes, and at the end SIGTERM with the grace. A Service is a name of its pods in the network.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chart.documents import Document, Pod, Render, selects
from tests.images import probes
from tests.images.podman import inspect, podman, run

_VARIABLE = re.compile(r"\$\(([A-Z_]+)\)")
_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_PAGE = 4096
_STEP_SECONDS = 300
_PROBE_INTERVAL = 0.2  # seconds; what is probed has no other way to say that it is ready


@dataclass
class Running:
    """A pod that runs. `containers` are podman's names by the pod's own, in their order."""

    pod: Pod
    name: str
    address: str
    containers: dict[str, str] = field(default_factory=dict)

    def execute(self, container: str, *command: str) -> str:
        return podman("exec", self.containers[container], *command)

    def logs(self, container: str) -> str:
        done = run("logs", self.containers[container])
        return done.stdout + done.stderr

    def stop(self, container: str, grace: float) -> tuple[int, float]:
        """SIGTERM, and SIGKILL after the grace: its exit code and the seconds that it took."""
        name = self.containers[container]
        begun = time.monotonic()
        podman("stop", "--time", str(round(grace)), name, seconds=grace + 30)
        return int(inspect("container", name)["State"]["ExitCode"]), time.monotonic() - begun


class Node:
    """`images` gives the name of the image here for the one that a container asks for."""

    def __init__(self, name: str, scratch: Path, render: Render, images: Callable[[str], str]) -> None:
        self._name = name
        self._scratch = scratch
        self._render = render
        self._images = images
        self._volumes: list[str] = []

    def start(self, pod: Pod, name: str) -> Running:
        """The pod, when each of its startup probes has passed. Raises AssertionError with its log when one does not."""
        running, mounts = self._prepare(pod, name)
        for container in (*pod.spec.get("initContainers", ()), *pod.containers):
            self._begin(running, container, mounts, step=container in pod.steps)
        for container in pod.containers:
            self._await(running, container)
        return running

    def complete(self, pod: Pod, name: str, seconds: float) -> str:
        """Runs a pod of one container to its end; what it wrote. Raises AssertionError when that was not well."""
        running, mounts = self._prepare(pod, name)
        (container,) = pod.containers
        self._begin(running, container, mounts, step=True, seconds=seconds)
        return running.logs(container["name"])

    def _prepare(self, pod: Pod, name: str) -> tuple[Running, dict[str, str]]:
        """The pod without a container, and its volumes by their names."""
        full = f"{self._name}-{name}"
        aliases = [option for alias in self._services(pod) for option in ("--network-alias", alias)]
        podman("pod", "create", "--name", full, "--network", self._name, *aliases, "--share", "net,ipc,uts")
        podman("pod", "start", full)
        infra = inspect("pod", full)["InfraContainerID"]
        address = inspect("container", infra)["NetworkSettings"]["Networks"][self._name]["IPAddress"]
        running = Running(pod, full, address)
        return running, {one["name"]: self._volume(full, one, pod) for one in pod.spec.get("volumes", ())}

    def run_again(self, running: Running, container: Document, name: str) -> Running:
        """A container of the pod's kind once more, beside the others."""
        mounts = {one["name"]: f"{running.name}-{one['name']}" for one in running.pod.spec.get("volumes", ())}
        self._begin(running, {**container, "name": name}, mounts, step=True)
        return running

    def remove(self) -> None:
        """All of it."""
        for pod in podman("pod", "ps", "--format", "{{.Name}}", "--filter", f"name=^{self._name}-").split():
            run("pod", "rm", "--force", "--time", "0", pod)
        for volume in self._volumes:
            run("volume", "rm", "--force", volume)

    def _services(self, pod: Pod) -> Iterator[str]:
        for service in self._render.of("Service"):
            if selects({"matchLabels": service["spec"]["selector"]}, dict(pod.labels)):
                yield service["metadata"]["name"]

    def _begin(
        self,
        running: Running,
        container: Document,
        mounts: Mapping[str, str],
        *,
        step: bool,
        seconds: float = _STEP_SECONDS,
    ) -> None:
        name = f"{running.name}-{container['name']}"
        words = [*_security(running.pod, container), *_limits(container), *self._environment(running, container)]
        for mount in container.get("volumeMounts", ()):
            words += [
                "--volume",
                f"{mounts[mount['name']]}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}",
            ]
        command = list(container.get("command", ()))
        if command:
            words += ["--entrypoint", command[0]]
        words += [self._images(container["image"]), *command[1:], *map(str, container.get("args", ()))]
        running.containers[container["name"]] = name
        if step:
            done = run("run", "--pod", running.name, "--name", name, *words, seconds=seconds)
            assert done.returncode == 0, f"{name} ended with {done.returncode}: {done.stdout}{done.stderr}"
            return
        podman("run", "--detach", "--pod", running.name, "--name", name, *words)
        if container.get("restartPolicy") == "Always":
            self._await(running, container)

    def _environment(self, running: Running, container: Document) -> list[str]:
        facts = {
            "metadata.name": running.name,
            "metadata.namespace": "team",
            "status.podIP": running.address,
            "spec.nodeName": "node",
        }
        values: dict[str, str] = {}
        for one in container.get("env", ()):
            value = one["value"] if "value" in one else facts[one["valueFrom"]["fieldRef"]["fieldPath"]]
            values[one["name"]] = _VARIABLE.sub(lambda match: values[match[1]], value)
        return [word for name, value in values.items() for word in ("--env", f"{name}={value}")]

    def _await(self, running: Running, container: Document) -> None:
        probe = container.get("startupProbe")
        if probe is None:
            return
        allowed = time.monotonic() + probe["periodSeconds"] * probe["failureThreshold"]
        while not probes.passes(probe, running.address, container):
            state = inspect("container", running.containers[container["name"]])["State"]["Status"]
            log = running.logs(container["name"])[-4000:]
            assert state == "running", f"{container['name']} is {state}: {log}"
            assert time.monotonic() < allowed, f"{container['name']} did not start: {log}"
            time.sleep(_PROBE_INTERVAL)

    def _volume(self, pod: str, volume: Document, of: Pod) -> str:
        name = f"{pod}-{volume['name']}"
        group = of.spec["securityContext"]["fsGroup"]
        if "emptyDir" in volume:
            return self._empty(name, volume["emptyDir"], group)
        folder = self._scratch / name
        folder.mkdir()
        kind, key = ("ConfigMap", "name") if "configMap" in volume else ("Secret", "secretName")
        asked = volume["configMap" if kind == "ConfigMap" else "secret"]
        data = self._render.one(kind, asked[key])["data"]
        items = {one["key"]: one["path"] for one in asked.get("items", ())} or {key: key for key in data}
        for key, path in items.items():
            content = data[key].encode() if kind == "ConfigMap" else base64.b64decode(data[key])
            (folder / path).write_bytes(content)
            (folder / path).chmod(asked.get("defaultMode", 0o644))
            os.chown(folder / path, 0, group)
        folder.chmod(0o755)
        return str(folder)

    def _empty(self, name: str, asked: Mapping[str, Any], group: int) -> str:
        memory = asked.get("medium") == "Memory"
        # podman 4 takes no size; blocks are pages.
        options = (
            f"nr_blocks={_bytes(asked['sizeLimit']) // _PAGE},mode=2777,gid={group},nosuid,nodev" if memory else ""
        )
        tmpfs = ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", f"o={options}"] if memory else []
        podman("volume", "create", *tmpfs, name)
        self._volumes.append(name)
        if not memory:
            folder = Path(inspect("volume", name)["Mountpoint"])
            os.chown(folder, 0, group)
            folder.chmod(0o2777)
        return name


@contextmanager
def node_of(render: Render, name: str, scratch: Path, images: Callable[[str], str]) -> Iterator[Node]:
    """A network and what runs in it; nothing of it is left."""
    podman("network", "create", name)
    node = Node(name, scratch, render, images)
    try:
        yield node
    finally:
        node.remove()
        run("network", "rm", "--force", name)
        shutil.rmtree(scratch, ignore_errors=True)


def _security(pod: Pod, container: Document) -> list[str]:
    of_pod, own = pod.spec["securityContext"], container["securityContext"]
    # The runtime's own seccomp profile is podman's default, as RuntimeDefault is.
    words = ["--user", f"{of_pod['runAsUser']}:{of_pod['runAsGroup']}", "--group-add", str(of_pod["fsGroup"])]
    words += [f"--cap-drop={name}" for name in own["capabilities"]["drop"]]
    if own["readOnlyRootFilesystem"]:
        words += ["--read-only", "--read-only-tmpfs=false"]
    if not own["allowPrivilegeEscalation"]:
        words += ["--security-opt", "no-new-privileges"]
    return words


def _limits(container: Document) -> list[str]:
    limits = container["resources"]["limits"]
    words = ["--pids-limit", "512"]
    if "memory" in limits:
        words += ["--memory", str(_bytes(limits["memory"]))]
    if "cpu" in limits:
        words += ["--cpus", str(limits["cpu"])]
    return words


def _bytes(quantity: str | int) -> int:
    text = str(quantity)
    return int(text[:-2]) * _UNITS[text[-2:]] if text[-2:] in _UNITS else int(text)
