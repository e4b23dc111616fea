"""One mesh with a real voice and a real recogniser, and what the tests say to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.running import Running, strict_client
from tests.voices.audio import Speech

from omni_cli.launcher.mesh import open_mesh
from omni_cli.launcher.network import free_port
from omni_cli.launcher.plan import Wishes
from omni_cli.serving import choose


@pytest.fixture(scope="package")
async def running(anyio_backend: str) -> AsyncIterator[Running]:
    """The mesh of processes that `omni up --pipeline piper --pipeline whisper` starts."""
    said: list[str] = []
    wishes = Wishes(choose(("piper", "whisper"), ()), port=free_port("127.0.0.1"), device="cpu")
    async with open_mesh(wishes, say=said.append, verbose=False) as mesh:
        await mesh.until_ready()
        async with strict_client(mesh.url) as client:
            yield Running(mesh, client, said)


@pytest.fixture(scope="package")
async def question(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WAV file of two spoken sentences."""
    spoken = await Speech.of(running.client, "Where did you put the keys? They were on the kitchen table.", "wav")
    file = tmp_path_factory.mktemp("spoken") / "question.wav"
    file.write_bytes(spoken.data)
    return file
