"""The documented ways to install the chart. Each is checked by every test of renders, and has a golden render."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

VALUES = Path(__file__).with_name("values")


@dataclass(frozen=True)
class Topology:
    """Files of the chart's folder, then a file of `values/` here."""

    files: tuple[str, ...] = ()
    values: str = ""
    api_versions: tuple[str, ...] = ()

    def arguments(self) -> dict[str, Any]:
        """For `render`."""
        values = yaml.safe_load((VALUES / self.values).read_text()) if self.values else None
        return {"values": values, "files": self.files, "api_versions": self.api_versions}


TOPOLOGIES = {
    "default": Topology(),
    "gpu": Topology(files=("values-gpu.yaml",)),
    "ha": Topology(files=("values-ha.yaml",)),
}
