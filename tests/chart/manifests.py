"""The chart's plain manifests, for teams without Helm: `make manifests` writes them, a test compares them.

None holds a key: certificates come from Secrets that `certificates.sh` makes, or from cert-manager.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chart.helm import CHART, NEWEST, RELEASE, Helm
from tests.chart.tools import MAJORS, ROOT

FOLDER = ROOT / "k8s" / "plain"
NAMESPACE = "omni"
HEADER = "# Made from charts/omni by `make manifests`; README.md beside it says what it needs. Do not edit.\n"
# No pod of `helm test`: nobody would remove it.
COMMON: Mapping[str, Any] = {"tests": {"enabled": False}}
SECRETS: Mapping[str, Any] = {
    "tls": {
        "source": "existingSecrets",
        "existingSecrets": {name: f"omni-{name}-tls" for name in ("gateway", "coordinator", "stage", "relay")},
        "https": {"source": "existingSecret", "existingSecret": "omni-https"},
    }
}


@dataclass(frozen=True)
class Plain:
    """What one file is made from."""

    values: Mapping[str, Any]
    files: tuple[str, ...] = ()
    api_versions: tuple[str, ...] = field(default=())


PLAIN = {
    "omni.yaml": Plain({**COMMON, **SECRETS}),
    "omni-gpu.yaml": Plain({**COMMON, **SECRETS}, files=("values-gpu.yaml",)),
    "omni-cert-manager.yaml": Plain({**COMMON, "tls": {"source": "certManager"}}, api_versions=("cert-manager.io/v1",)),
}


def plain(helm: Helm, name: str) -> str:
    """What the file should hold."""
    wanted = PLAIN[name]
    options = [option for file in wanted.files for option in ("--values", str(CHART / file))]
    options += [option for version in wanted.api_versions for option in ("--api-versions", version)]
    options += ["--namespace", NAMESPACE, "--kube-version", NEWEST, *helm.as_options(wanted.values)]
    return HEADER + helm("template", RELEASE, CHART, *options)


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        helm = Helm(max(MAJORS), Path(home))
        for name in PLAIN:
            (FOLDER / name).write_text(plain(helm, name))


if __name__ == "__main__":
    main()
