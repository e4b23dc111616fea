"""What all tests share: anyio on asyncio, the backend that grpc.aio needs, and one event loop for the whole session;
and that CI skips nothing which it could have.

grpc.aio has one poller for the process. When a loop is closed while it still holds an event for it, the next loop's
callbacks raise "Event loop is closed"; so there is one loop, kept alive by a fixture of the widest scope.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator

import pytest

# What the machine of CI has not: a test that is marked so may be skipped even there.
NOT_IN_CI = ("gpu", "cluster", "full")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CI is set, a test that finds its tools missing fails: .ci/run brings them all."""
    report = yield
    allowed = hasattr(report, "wasxfail") or any(item.get_closest_marker(name) for name in NOT_IN_CI)
    if report.skipped and not allowed and os.environ.get("CI"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"In CI only what is marked {', '.join(NOT_IN_CI)} may be skipped. {why}"
    return report


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
