"""The gateway's settings."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from omni_gateway.settings import GatewaySettings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_GATEWAY_COORDINATORS", "a:1, b:2")
    monkeypatch.setenv("OMNI_GATEWAY_BIND", "[::1]:0")
    monkeypatch.setenv("OMNI_GATEWAY_MAX_BODY", "64MiB")
    monkeypatch.setenv("OMNI_GATEWAY_STALL_TIMEOUT", "5s")
    settings = GatewaySettings()
    assert settings.coordinators == ("a:1", "b:2")
    assert settings.host_and_port == ("::1", 0)
    assert settings.max_body == 64 << 20
    assert settings.stall_timeout == timedelta(seconds=5)


def test_a_gateway_needs_a_coordinator() -> None:
    with pytest.raises(ValidationError, match="coordinators"):
        GatewaySettings(coordinators=())


@pytest.mark.parametrize("bind", ["8000", "localhost", "::1:80", "localhost:http"])
def test_an_address_without_a_port_is_refused(bind: str) -> None:
    with pytest.raises(ValidationError, match="bind"):
        GatewaySettings(bind=bind, coordinators=("a:1",))
