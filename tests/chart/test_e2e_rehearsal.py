"""The tests of a real cluster as far as they go without one: what needs no pod runs against the API server in memory,
and without any they say so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.chart.helm import Helm
from tests.chart.tools import ROOT
from tests.lab.kube_server import cluster

# They need the API only; the others a pod that answers.
NEED_NO_POD = "helm_test_passes or wrong_values or uninstall_leaves"


def test_without_a_cluster_they_are_skipped_and_say_so() -> None:
    told = _pytest(["tests/e2e"], {})
    assert told.returncode == 0
    assert told.stdout.count("NO CLUSTER") == 1
    assert "skipped" in told.stdout
    assert "passed" not in told.stdout


def test_a_release_is_installed_tested_and_removed_by_them(tmp_path: Path, helms: dict[int, Helm]) -> None:
    with cluster(tmp_path, "default") as running:
        told = _pytest(["tests/e2e/test_life.py", "-k", NEED_NO_POD], {"KUBECONFIG": str(running.kubeconfig)})
        assert told.returncode == 0, told.stdout[-3000:]
        assert "3 passed" in told.stdout
        left = {one["metadata"]["name"] for one in running.store.objects() if one["kind"] == "Namespace"}
    assert left == {"default"}


def _pytest(arguments: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--numprocesses=0", "-p", "no:cacheprovider", "-v", *arguments]
    path = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    return subprocess.run(
        command, cwd=ROOT, env={**path, **environment}, capture_output=True, text=True, timeout=110, check=False
    )
