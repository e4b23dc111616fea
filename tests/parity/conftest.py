"""What the comparisons share: one tiny checkpoint, the reference's answers to it, one mesh that serves it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from tests.parity.cases import Draw, messages
from tests.parity.hops import HOPS, Hop
from tests.parity.over_http import Served
from tests.parity.reference import Reference, Spoken
from tests.running import strict_client

from omni_cli.launcher.mesh import open_mesh
from omni_cli.launcher.network import free_port
from omni_cli.launcher.plan import Wishes
from omni_cli.serving import serve
from omni_stage.models.qwen3_omni.components.tiny import make_tiny


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-hop", action="store_true", help="Run all comparisons of a mesh with every way of tensors."
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Beside the ordinary way of tensors, only tests that are marked `every_hop` run, unless all are asked for."""
    if config.getoption("--every-hop"):
        return
    left = [item for item in items if _is_left_out(item)]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


def _is_left_out(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return False
    hop = item.callspec.params.get("hop", HOPS[0])
    return hop is not HOPS[0] and item.get_closest_marker("every_hop") is None


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
        self.answer = cache(self._reference.generate)
        self.say = cache(self._reference.say)

    def _of(self, case: str, draw: Draw) -> Spoken:
        return self._reference.generate(messages(case), draw)


@pytest.fixture(scope="package")
def expected(tiny: Path) -> Expected:
    return Expected(tiny)


@pytest.fixture(scope="package", params=HOPS, ids=lambda hop: hop.name)
def hop(request: pytest.FixtureRequest) -> Hop:
    way: Hop = request.param
    if why := way.missing:
        pytest.skip(why)
    return way


@pytest.fixture(scope="package")
async def served(tiny: Path, hop: Hop, anyio_backend: str) -> AsyncIterator[Served]:
    """A whole mesh of processes, as `omni up` starts it, and OpenAI's own client of it."""
    said: list[str] = []
    qwen = serve("qwen3-omni", tiny)
    wishes = Wishes((qwen,), port=free_port("127.0.0.1"), device="cpu", **hop.wishes_for(qwen.pipeline))
    with hop.forced():
        async with open_mesh(wishes, say=said.append, verbose=False) as mesh:
            await mesh.until_ready()
            async with strict_client(mesh.url) as client:
                yield Served(mesh, client, said)
