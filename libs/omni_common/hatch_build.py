"""Generates the gRPC stubs from proto/ into src/omni/ whenever this distribution is built or installed."""

from __future__ import annotations

import shutil
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
        if not PROTO.is_dir():  # an unpacked source distribution holds the stubs already
            return
        shutil.rmtree(OUT / "omni", ignore_errors=True)
        files = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
        failed = protoc.main([
            "protoc", f"--proto_path={PROTO}", f"--proto_path={protoc._get_resource_file_name('grpc_tools', '_proto')}",
            f"--python_out={OUT}", f"--grpc_python_out={OUT}", f"--mypy_out={OUT}", f"--mypy_grpc_out={OUT}", *files,
        ])
        if failed:
            raise RuntimeError("protoc refused the files under proto/; its message is above")
        for package in [OUT / "omni", *(OUT / "omni").rglob("*/")]:
            (package / "__init__.py").touch()
            (package / "py.typed").touch()
        build_data["artifacts"].append("src/omni/**")
