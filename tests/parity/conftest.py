"""What the comparisons share: one tiny checkpoint, the reference's answers to it, one mesh that serves it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from tests.parity.cases import Draw, messages
from tests.parity.over_http import Served
from tests.parity.reference import Reference, Spoken
from tests.running import strict_client

from omni_cli.launcher.mesh import open_mesh
from omni_cli.launcher.network import free_port
from omni_cli.launcher.plan import Wishes
from omni_cli.serving import serve
from omni_stage.models.qwen3_omni.components.tiny import make_tiny


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are rounded alike only when they are cut alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder)
    return folder


class Expected:
    """The reference's answers, each computed once."""

    def __init__(self, folder: Path) -> None:
        self._reference = Reference(folder)
        self.of = cache(self._of)
        self.say = cache(self._reference.say)

    def _of(self, case: str, draw: Draw) -> Spoken:
        return self._reference.generate(messages(case), draw)


@pytest.fixture(scope="package")
def expected(tiny: Path) -> Expected:
    return Expected(tiny)


@pytest.fixture(scope="package")
async def served(tiny: Path, anyio_backend: str) -> AsyncIterator[Served]:
    """A whole mesh of processes, as `omni up` starts it, and OpenAI's own client of it."""
    said: list[str] = []
    wishes = Wishes((serve("qwen3-omni", tiny),), port=free_port("127.0.0.1"), device="cpu")
    async with open_mesh(wishes, say=said.append, verbose=False) as mesh:
        await mesh.until_ready()
        async with strict_client(mesh.url) as client:
            yield Served(mesh, client, said)
