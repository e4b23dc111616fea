"""The packaged voice, its parts, and folders made of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.unit.stage.one_process import OneProcess, context, one_process

from omni_stage.models.piper.components.preprocess import Preprocessor
from omni_stage.models.piper.components.synthesiser import Synthesiser, open_synthesiser
from omni_stage.models.piper.components.voice import load_voice
from omni_stage.models.piper.config import CHECKPOINT
from omni_stage.models.piper.stages import FAMILY

VoiceMaker = Callable[[Mapping[str, object]], Path]


@pytest.fixture(scope="package")
def joe() -> Path:
    assert CHECKPOINT.packaged is not None
    folder = CHECKPOINT.packaged.find()
    assert folder is not None, "the extra 'piper' of omni-stage is not installed"
    return folder


@pytest.fixture
def voice_like_joe(joe: Path, tmp_path: Path) -> VoiceMaker:
    """Makes a voice folder with the packaged model, and its description with changes; None takes a key away."""

    def make(changes: Mapping[str, object]) -> Path:
        told = json.loads((joe / "en_US-joe-medium.onnx.json").read_text()) | changes
        (tmp_path / "voice.onnx").symlink_to(joe / "en_US-joe-medium.onnx")
        (tmp_path / "voice.onnx.json").write_text(json.dumps({k: v for k, v in told.items() if v is not None}))
        return tmp_path

    return make


@pytest.fixture(scope="package")
def preprocessor(joe: Path) -> Preprocessor:
    return Preprocessor(load_voice(joe))


@pytest.fixture(scope="package")
def synthesiser(joe: Path) -> Synthesiser:
    return open_synthesiser(load_voice(joe), context(FAMILY, FAMILY.pipeline.stage("synthesise"), joe))


@pytest.fixture(scope="package")
def piper(joe: Path) -> Iterator[OneProcess]:
    with one_process(FAMILY, joe) as piper:
        yield piper
