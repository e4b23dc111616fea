"""The launcher's settings are the services' own: none unknown to them, none missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_cli.launcher.ground import Ground
from omni_cli.launcher.network import OwnSubnet
from omni_cli.launcher.plan import Plan, ProcessSpec, Served, Tier, Wishes, plan
from omni_cli.launcher.shape import shape
from omni_cli.serving import serve
from omni_common.settings import ServiceSettings
from omni_coordinator.settings import CoordinatorSettings
from omni_gateway.settings import GatewaySettings
from omni_relay.settings import RelaySettings
from omni_stage.models import families, load_pipeline_config
from omni_stage.settings import StageSettings

SETTINGS: dict[Tier, type[ServiceSettings]] = {
    Tier.RELAY: RelaySettings,
    Tier.STAGE: StageSettings,
    Tier.COORDINATOR: CoordinatorSettings,
    Tier.GATEWAY: GatewaySettings,
}


def planned(wishes: Wishes) -> Plan:
    ground = Ground(Path("pipelines"), Path("arenas"), OwnSubnet("127.1.2"))
    return plan(shape(wishes), wishes, ground)


def read(process: ProcessSpec, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    with monkeypatch.context() as environment:
        for name, value in process.settings.items():
            environment.setenv(name, value)
        return SETTINGS[process.tier]()


@pytest.mark.parametrize("family", sorted(families()))
def test_every_service_accepts_the_settings_that_the_launcher_gives_it(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = (Served(family, load_pipeline_config(family), Path("model")),)
    wishes = Wishes(served, coordinators=2, encryption="aead", transports=("tcp",))
    for process in planned(wishes).processes:
        settings = read(process, monkeypatch)
        assert process.metrics == f"{settings.metrics_host}:{settings.metrics_port}"
        if isinstance(settings, StageSettings):
            assert settings.coordinator_targets == ("127.1.2.2:7070", "127.1.2.3:7070")
            assert settings.replica == process.name


def test_a_gateway_can_listen_on_an_ipv6_address(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = planned(Wishes((serve("echo"),), host="::1", port=8001)).processes[-1]
    settings = read(gateway, monkeypatch)
    assert isinstance(settings, GatewaySettings)
    assert settings.host_and_port == ("::1", 8001)
