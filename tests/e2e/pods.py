"""Pods of the tests' own, as the restricted standard wants them: nothing but Python and a writable /tmp."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tests.e2e.kube import Release


def start_python(
    release: Release, name: str, *, image: str, script: str, arguments: Sequence[str] = (), env: Mapping[str, str] = {}
) -> None:
    """Runs a script once, with the release's CA in /ca/ca.crt."""
    container = {
        "name": name,
        "image": image,
        "command": ["python", "-c", script, *arguments],
        "env": [{"name": key, "value": value} for key, value in env.items()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "ca", "mountPath": "/ca"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    user = {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": user,
            "containers": [container],
            "volumes": [
                {"name": "ca", "configMap": {"name": f"{release.name}-ca"}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
            ],
        },
    }
    release.kubectl("apply", "--filename", "-", stdin=json.dumps(pod))


def last_words(release: Release, name: str, seconds: int) -> str:
    """The last line that it wrote, when it has ended well. Raises Failed."""
    done = "--for=jsonpath={.status.phase}=Succeeded"
    release.kubectl("wait", f"pod/{name}", done, f"--timeout={seconds}s", seconds=seconds + 30)
    return release.kubectl("logs", name).strip().splitlines()[-1]


def remove(release: Release, name: str) -> None:
    release.kubectl("delete", "pod", name, "--wait=false", "--ignore-not-found")
