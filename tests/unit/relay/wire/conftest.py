from __future__ import annotations

import pytest
from tests.unit.relay.wire.authority import Authority, Files
from tests.unit.relay.wire.meeting import TOKEN

from omni_relay.wire.credentials import Credentials, Mode


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("mesh"), "mesh-ca")


@pytest.fixture(scope="session")
def files(authority: Authority) -> Files:
    return authority.issue("relay.mesh")


@pytest.fixture(params=list(Mode))
def credentials(request: pytest.FixtureRequest, files: Files) -> Credentials:
    """Good ones, of each mode."""
    mode: Mode = request.param
    return Credentials(mode, TOKEN) if mode is Mode.NONE else files.credentials(mode)
