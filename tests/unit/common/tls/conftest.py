"""Certificates of a mesh."""

from __future__ import annotations

import pytest
from tests.unit.relay.wire.authority import Authority, Files

from omni_common.component import Component


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("mesh"), "mesh-ca")


@pytest.fixture(scope="module")
def mine(authority: Authority) -> dict[Component, Files]:
    return {component: authority.issue(component) for component in Component}
