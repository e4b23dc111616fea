"""The packaged weights, tiny.en: real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_stage.models.whisper.config import CHECKPOINT


@pytest.fixture(scope="session")
def weights() -> Path:
    assert CHECKPOINT.packaged is not None
    folder = CHECKPOINT.packaged.find()
    assert folder is not None, "`make setup` installs the weights"
    return folder
