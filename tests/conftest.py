"""What all tests share: anyio on asyncio, the backend that grpc.aio needs, and one event loop for the whole session.

grpc.aio has one poller for the process. When a loop is closed while it still holds an event for it, the next loop's
callbacks raise "Event loop is closed"; so there is one loop, kept alive by a fixture of the widest scope.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every async test uses `one_loop`."""
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("anyio"):
            item.fixturenames.insert(0, "one_loop")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """Alive from the first async test to the last, and with it anyio's runner."""
    yield  # noqa: PT022  # only a generator holds the runner until its end
