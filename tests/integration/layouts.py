"""How the stages of the echo pipeline can lie: in processes and pods of their own, or together."""

from __future__ import annotations

import pytest
from tests.integration.mesh import Layout

from omni_stage.models import load_pipeline_config

ALL = tuple(stage.name for stage in load_pipeline_config("echo").stages)
FRONT, BACK = ALL[:4], ALL[4:]

A_PROCESS_EACH = pytest.param(Layout(), id="a process each")
ONE_PROCESS = pytest.param(Layout(together=[ALL]), id="one process")
SHARED_PROCESSES = (
    ONE_PROCESS,
    pytest.param(Layout(together=[FRONT, BACK], pods=dict.fromkeys(BACK, "elsewhere")), id="two processes in two pods"),
    pytest.param(
        Layout(together=[("split", "join"), ("say", "beep")], pods={"count": "elsewhere"}), id="some share a process"
    ),
)
ONE_OR_MANY = (A_PROCESS_EACH, ONE_PROCESS)
