"""The documented ways to install the chart, and others. Each is checked by every test of renders; the documented ones
have golden renders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from tests.chart.helm import OLDEST

VALUES = Path(__file__).with_name("values")


@dataclass(frozen=True)
class Topology:
    """Files of the chart's folder, then a file of `values/` here."""

    files: tuple[str, ...] = ()
    values: str = ""
    api_versions: tuple[str, ...] = ()
    oldest: str = OLDEST  # the Kubernetes that it needs
    golden: Literal["", "whole", "difference"] = ""  # all of it, or what is not as in the default

    def arguments(self) -> dict[str, Any]:
        """For `render`."""
        values = yaml.safe_load((VALUES / self.values).read_text()) if self.values else None
        return {"values": values, "files": self.files, "api_versions": self.api_versions}


TOPOLOGIES = {
    "default": Topology(golden="whole"),
    "gpu": Topology(files=("values-gpu.yaml",), golden="whole"),
    "ha": Topology(files=("values-ha.yaml",), golden="difference"),
    "observed": Topology(values="observed.yaml"),
    "scaled": Topology(values="scaled.yaml"),
    "cert-manager": Topology(values="cert-manager.yaml"),
    "voices": Topology(values="voices.yaml"),
    "dra": Topology(values="dra.yaml", oldest="1.34.0"),
}
DOCUMENTED = [name for name, one in TOPOLOGIES.items() if one.golden]
