"""Renders as files that a reviewer reads: what a change of the chart does to each documented topology.

Certificates are made anew in every render, so their place is kept and not their content; so is that of dashboards,
rules and pipeline files, which are files of the chart themselves. `make golden` writes them again.
"""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import yaml
from tests.chart.documents import Render

FOLDER = Path(__file__).with_name("golden")
RANDOM = "(made anew in every render)"
# Of the chart's own certificates: which CA they are of, and when they are renewed.
_RANDOM_ANNOTATIONS = ("omni.dev/made-for", "omni.dev/renew-after", "omni.dev/expires", "omni.dev/changed-at")
_MATERIAL = re.compile(r"^(LS0tLS1CRUdJTi|-----BEGIN )")
_LONGEST = 1200


def normalised(render: Render) -> list[dict[str, Any]]:
    """Its documents in a fixed order, without what is random or long."""
    documents = [_normal(copy.deepcopy(one)) for one in render.documents]
    return sorted(documents, key=lambda one: (one["kind"], one["metadata"]["name"]))


def text(render: Render, but_for: Render | None = None) -> str:
    """As YAML; documents that are the same in the other render are left out."""
    known = normalised(but_for) if but_for else []
    return yaml.safe_dump_all([one for one in normalised(render) if one not in known], sort_keys=True, width=120)


def is_update() -> bool:
    return os.environ.get("UPDATE_GOLDEN") == "1"


def _normal(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _normal(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [_normal(one) for one in value]
    if isinstance(value, str):
        if key in _RANDOM_ANNOTATIONS or _MATERIAL.match(value):
            return RANDOM
        if len(value) > _LONGEST:
            return f"(a file: {key})"
    return value
