"""A pod that asks the release without a pause: from inside, through the Service, as an application would. (A forwarded
port leads to one pod, and goes with it.)"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.kube import Release
from tests.e2e.pods import last_words, remove, start_python

SCRIPT = Path(__file__).with_name("in_cluster_load.py")
AT_ONCE = 4
_POD_SECONDS = 180


@dataclass
class Load:
    """What came of it, when it has ended."""

    sent: int = 0
    failures: int = 0
    failed: list[str] = field(default_factory=list)


@contextmanager
def load(release: Release, *, model: str, image: str) -> Iterator[Load]:
    """Asks while the block runs."""
    name = f"load-{uuid.uuid4().hex[:8]}"
    settings = {
        "LOAD_HOST": f"{release.name}-gateway.{release.namespace}.svc",
        "LOAD_PORT": "443",
        "LOAD_MODEL": model,
        "LOAD_AT_ONCE": str(AT_ONCE),
        "LOAD_CA": "/ca/ca.crt",
    }
    start_python(release, name, image=image, script=SCRIPT.read_text(), env=settings)
    told = Load()
    try:
        release.kubectl("wait", f"pod/{name}", "--for=condition=Ready", f"--timeout={_POD_SECONDS}s")
        yield told
        release.kubectl("exec", name, "--", "touch", "/tmp/stop")  # noqa: S108  # in the container
        counts = json.loads(last_words(release, name, _POD_SECONDS))
        told.sent, told.failures, told.failed = counts["sent"], counts["failures"], counts["failed"]
    finally:
        remove(release, name)
