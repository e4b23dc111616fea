"""Generates the gRPC stubs from proto/ into src/omni/ whenever this distribution is built or installed."""

from __future__ import annotations

import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent
PROTO = HERE.parents[1] / "proto"
OUT = HERE / "src"


class StubsHook(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if PROTO.is_dir():  # an unpacked source distribution holds the stubs already
            with tempfile.TemporaryDirectory(dir=OUT) as made:
                generate(Path(made))
                shutil.rmtree(OUT / "omni", ignore_errors=True)  # not before the new ones are whole
                (Path(made) / "omni").rename(OUT / "omni")
        build_data["artifacts"].append("src/omni/**")


def generate(out: Path) -> None:
    """Runs protoc over all of proto/. Raises RuntimeError when it refuses."""
    wellknown = protoc._get_resource_file_name("grpc_tools", "_proto")
    plugins = [f"--plugin={name}={_script(name)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    outs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    if protoc.main(["protoc", f"--proto_path={PROTO}", f"--proto_path={wellknown}", *plugins, *outs, *files]):
        raise RuntimeError("protoc refused the files under proto/; its message is above")
    for package in [out / "omni", *(path for path in (out / "omni").rglob("*") if path.is_dir())]:
        (package / "__init__.py").touch()
        (package / "py.typed").touch()


def _script(name: str) -> str:
    """Where an isolated build has it (on the path), or the environment whose Python runs this (maybe not on it)."""
    found = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        raise RuntimeError(f"{name} is missing; it comes with mypy-protobuf")
    return found
