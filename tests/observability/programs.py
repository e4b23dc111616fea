"""Prometheus and promtool: those that are installed, else Debian's package, unpacked once under `.omni/prometheus`.

The package needs no root to be unpacked, and the programs need nothing of it but themselves. Where neither can be had,
the tests that need them are skipped and say so; CI installs the package, so that there they never are.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".omni" / "prometheus"
_FETCH_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Programs:
    """Where they are."""

    prometheus: Path
    promtool: Path


def programs() -> Programs:
    """Skips the test where there are none."""
    installed = shutil.which("prometheus"), shutil.which("promtool")
    if all(installed):
        return Programs(*map(Path, filter(None, installed)))
    kept = Programs(KEPT / "usr/bin/prometheus", KEPT / "usr/bin/promtool")
    if not kept.promtool.is_file():
        _fetch()
    return kept


def _fetch() -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        pytest.skip("Needs Prometheus: install it (Debian's package is `prometheus`), then run this test again.")
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with (KEPT.parent / ".prometheus.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not KEPT.is_dir():
            _unpack()


def _unpack() -> None:
    with tempfile.TemporaryDirectory(dir=KEPT.parent) as scratch:
        # As apt's own user cannot write into a folder of ours, it says so and fetches as us.
        fetched = _run(["apt-get", "download", "prometheus"], cwd=scratch)
        packages = list(Path(scratch).glob("prometheus_*.deb"))
        if fetched.returncode or not packages:
            pytest.skip(
                "Needs Prometheus, which is not installed and could not be fetched (`apt-get install prometheus`): "
                + fetched.stderr.strip()[-300:]
            )
        tree = Path(scratch) / "tree"
        _run(["dpkg-deb", "-x", str(packages[0]), str(tree)], cwd=scratch).check_returncode()
        tree.rename(KEPT)


def _run(command: list[str], *, cwd: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False)
