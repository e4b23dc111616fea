"""That gRPC knows what the mesh asks of it: a release without a second engine would say so, and then it is to go."""

from __future__ import annotations

import os
import subprocess
import sys

_SCRIPT = """
import os, sys
import omni_common
import grpc
grpc.insecure_channel("127.0.0.1:1").close()
print(os.environ["GRPC_EXPERIMENTS"])
"""


def _run(**environment: str) -> tuple[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    command, environment = [sys.executable, "-c", _SCRIPT], inherited | environment
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30, env=environment)
    return done.stdout.strip(), done.stderr


def test_grpc_knows_what_is_asked_of_it() -> None:
    experiments, complaints = _run()
    assert experiments
    assert complaints == ""


def test_it_would_complain_and_who_asks_for_others_gets_them() -> None:
    experiments, complaints = _run(GRPC_EXPERIMENTS="no_such_thing")
    assert experiments == "no_such_thing"
    assert "no_such_thing" in complaints
