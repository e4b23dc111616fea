"""A tiny Qwen3-Omni for the tests of its parts."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from omni_stage.models.qwen3_omni.components.tiny import make_tiny  # imports torch: only who needs it pays

    folder = tmp_path_factory.mktemp("tiny-qwen3-omni")
    make_tiny(folder)
    return folder
