"""Which way a tensor on a device takes to a receiver of its pod."""

from __future__ import annotations

from dataclasses import replace

import pytest

from omni_stage.core.device_way import DeviceWay, Reach, way_between

HERE = Reach("GPU-1", "realm", pairs=True)
OTHER = replace(HERE, device="GPU-2")


@pytest.mark.parametrize(
    ("there", "way"),
    [
        pytest.param(HERE, DeviceWay.SHARED, id="the same GPU"),
        pytest.param(replace(HERE, pairs=False), DeviceWay.SHARED, id="the same GPU, and no communicators"),
        pytest.param(replace(HERE, realm="another"), None, id="the same GPU from another container"),
        pytest.param(replace(HERE, realm=""), None, id="the same GPU, and nothing can be opened"),
        pytest.param(OTHER, DeviceWay.PAIR, id="another GPU"),
        pytest.param(replace(OTHER, realm=""), DeviceWay.PAIR, id="another GPU from another container"),
        pytest.param(replace(OTHER, pairs=False), None, id="another GPU, and no communicators there"),
        pytest.param(replace(OTHER, device=""), None, id="no GPU"),
    ],
)
def test_the_way_depends_on_what_both_can_get_at(there: Reach, way: DeviceWay | None) -> None:
    assert way_between("GPU-1", HERE, there) is way


@pytest.mark.parametrize(
    ("device", "here"),
    [
        pytest.param("GPU-3", HERE, id="it is not on the GPU that its process computes on"),
        pytest.param("cpu", HERE, id="it is on none"),
        pytest.param("GPU-1", replace(HERE, realm="", pairs=False), id="its process can do nothing"),
    ],
)
def test_what_its_process_cannot_give_away_goes_by_the_host(device: str, here: Reach) -> None:
    for there in (HERE, OTHER):
        assert way_between(device, here, there) is None


def test_no_realm_is_nobodys() -> None:
    assert way_between("GPU-1", replace(HERE, realm=""), replace(HERE, realm="")) is None
