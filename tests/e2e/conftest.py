"""The cluster that KUBECONFIG names. Without one, nothing here runs, and it says so.

What the tests read from the environment:

* `KUBECONFIG`, and in it the current context: the cluster. Two nodes with 4 cores and 8 GiB are enough.
* `OMNI_E2E_REGISTRY`: where nodes pull the images from; unset, they have them already (`kind load docker-image`).
* `OMNI_E2E_TAG`: the images' tag; unset, the chart's.
* `OMNI_E2E_VALUES`: further values files, separated by colons.
"""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from openai import DefaultHttpxClient, OpenAI
from tests.e2e.kube import Failed, Release, environment, run

NO_CLUSTER = "NO CLUSTER: nothing of tests/e2e ran. Name one in KUBECONFIG, such as kind's (k8s/kind/README.md)."
PIPELINE = "qwen3-omni"


def why_not() -> str:
    """Why the tests cannot run; empty when they can."""
    if not environment("KUBECONFIG"):
        return NO_CLUSTER
    try:
        run("kubectl", "get", "--raw", "/readyz", seconds=30)
    except Failed as error:
        return f"{NO_CLUSTER} The one that it names does not answer: {error}"
    return ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if any(NO_CLUSTER in str(one.longrepr) for one in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(NO_CLUSTER, yellow=True, bold=True)


@pytest.fixture(scope="session")
def cluster() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def options(cluster: None) -> list[str]:
    """What every release of the tests is installed with."""
    told = [f"--values={path}" for path in filter(None, environment("OMNI_E2E_VALUES").split(":"))]
    for name, value in (("registry", "OMNI_E2E_REGISTRY"), ("tag", "OMNI_E2E_TAG")):
        if environment(value):
            told.append(f"--set=image.{name}={environment(value)}")
    return told


@pytest.fixture(scope="session")
def cli_image(options: list[str]) -> str:
    """The image that has Python and may run anywhere: that of the command."""
    registry = environment("OMNI_E2E_REGISTRY").rstrip("/")
    return f"{registry}/omni-cli:{_tag()}" if registry else f"omni-cli:{_tag()}"


@pytest.fixture(scope="module")
def release(options: list[str]) -> Iterator[Release]:
    """Installed without values of ours, in a namespace with the restricted standard, and gone after the module."""
    made = Release("omni", f"omni-e2e-{uuid.uuid4().hex[:6]}", options)
    run("kubectl", "create", "namespace", made.namespace, seconds=60)
    try:
        enforce = "pod-security.kubernetes.io/enforce=restricted"
        run("kubectl", "label", "namespace", made.namespace, enforce, seconds=60)
        made.upgrade()
        yield made
    finally:
        run("kubectl", "delete", "namespace", made.namespace, "--wait=false", seconds=60)


Connect = Callable[[], AbstractContextManager[OpenAI]]


@pytest.fixture
def connect(release: Release, tmp_path: Path) -> Connect:
    """Opens the official client on a forwarded port, with the release's own CA, over HTTPS."""

    @contextmanager
    def connected() -> Iterator[OpenAI]:
        trusted = ssl.create_default_context(cafile=str(release.certificate_authority(tmp_path)))
        with release.forwarded(f"{release.name}-gateway", 443) as port, DefaultHttpxClient(verify=trusted) as http:
            yield OpenAI(
                base_url=f"https://localhost:{port}/v1", api_key="none", http_client=http, timeout=120, max_retries=0
            )

    return connected


def _tag() -> str:
    return environment("OMNI_E2E_TAG") or "0.1.0"
