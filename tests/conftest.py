"""What all tests share: anyio on asyncio, the backend that grpc.aio needs."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
