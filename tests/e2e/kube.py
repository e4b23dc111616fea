"""helm and kubectl on the cluster that KUBECONFIG names; every call has a deadline."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chart.tools import MAJORS, ROOT, NoTools, tools_of

CHART = ROOT / "charts" / "omni"
_FORWARDED = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
_FORWARD_SECONDS = 30.0


class Failed(Exception):
    """A command ended with an error; this is what it wrote."""


@dataclass(frozen=True)
class Release:
    """A release of the chart in a namespace of its own. Its name holds `omni`, so the objects' names begin with it."""

    name: str
    namespace: str
    values: Sequence[str] = ()  # further options of helm

    def helm(self, *arguments: str | Path, seconds: float = 900.0) -> str:
        return run("helm", *arguments, "--namespace", self.namespace, seconds=seconds)

    def kubectl(self, *arguments: str, seconds: float = 300.0, stdin: str | None = None) -> str:
        return run("kubectl", "--namespace", self.namespace, *arguments, seconds=seconds, stdin=stdin)

    def upgrade(self, *options: str, seconds: float = 900.0) -> str:
        """Installs it, or upgrades it; returns when it stands."""
        wait = ["--wait", "--timeout", f"{seconds:.0f}s"]
        chart = ["upgrade", "--install", self.name, str(CHART), "--create-namespace"]
        return self.helm(*chart, *self.values, *options, *wait, seconds=seconds + 60)

    def items(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        chosen = f"app.kubernetes.io/instance={self.name}" + (f",{selector}" if selector else "")
        return list(json.loads(self.kubectl("get", kind, "--selector", chosen, "--output", "json"))["items"])

    def deployments(self) -> Mapping[str, int]:
        """Their names, and how many pods each wants."""
        return {one["metadata"]["name"]: int(one["spec"]["replicas"]) for one in self.items("deployments")}

    def pods_of(self, deployment: str) -> list[str]:
        (found,) = (one for one in self.items("deployments") if one["metadata"]["name"] == deployment)
        labels = found["spec"]["selector"]["matchLabels"]
        chosen = ",".join(f"{key}={value}" for key, value in labels.items())
        return [one["metadata"]["name"] for one in self.items("pods", chosen)]

    def stands(self, seconds: float = 600.0) -> None:
        """Returns when every Deployment has what it wants. Raises Failed."""
        for name in self.deployments():
            self.kubectl("rollout", "status", f"deployment/{name}", f"--timeout={seconds:.0f}s", seconds=seconds + 30)

    def certificate_authority(self, folder: Path) -> Path:
        """The CA of its HTTPS endpoint, as a file."""
        path = folder / f"{self.name}-ca.crt"
        path.write_text(self.kubectl("get", "configmap", f"{self.name}-ca", "--output", r"jsonpath={.data.ca\.crt}"))
        return path

    @contextmanager
    def forwarded(self, service: str, port: int) -> Iterator[int]:
        """A port of this machine that leads to a pod of that Service."""
        command = [program("kubectl"), "--namespace", self.namespace, "port-forward", f"service/{service}", f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as forwarding:
            try:
                assert forwarding.stdout is not None
                line = forwarding.stdout.readline()
                if not (match := _FORWARDED.match(line)):
                    raise Failed(f"kubectl port-forward: {line.strip()}")
                yield int(match[1])
            finally:
                forwarding.terminate()
                forwarding.wait(_FORWARD_SECONDS)


def run(name: str, *arguments: str | Path, seconds: float, stdin: str | None = None) -> str:
    """What the program writes. Raises Failed."""
    command = [program(name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, input=stdin, check=False)
    if done.returncode:
        raise Failed(f"{name} {' '.join(map(str, arguments))}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def program(name: str) -> str:
    """The newest helm there is, and its kubectl; those of this machine where the wheels are not for it."""
    try:
        return str(tools_of(max(MAJORS)) / name)
    except NoTools:
        return name


def environment(name: str, default: str = "") -> str:
    return os.environ.get(name, default)
