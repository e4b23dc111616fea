"""How the kubelet asks while a stage loads, so that it hears why one cannot."""

from __future__ import annotations

import pytest
from tests.chart.conftest import Renderer
from tests.chart.documents import Render, environment


def test_a_stage_that_cannot_load_stays_until_it_has_been_asked_why(rendered: Render) -> None:
    """Its answer to the startup probe is the event that says why; a process that is gone answers nothing."""
    for pod in rendered.stages():
        for container in pod.containers:
            probe, stays = container["startupProbe"], environment(container)["OMNI_STAGE_STAY_FAILED"]
            assert int(stays.removesuffix("s")) > probe["periodSeconds"] + probe["timeoutSeconds"], pod.name
            assert probe["grpc"]["service"] == "readiness"


@pytest.mark.parametrize(
    ("seconds", "period", "failures"), [(60, 5, 12), (300, 10, 30), (301, 10, 31), (3600, 30, 120)]
)
def test_what_may_take_long_to_start_is_asked_less_often(
    render: Renderer, seconds: int, period: int, failures: int
) -> None:
    """Each refusal is an event, and a kubelet lets only 25 of a pod's through, then one in five minutes."""
    for pod in render(values={"podDefaults": {"startupSeconds": seconds}}).stages():
        for container in pod.containers:
            probe = container["startupProbe"]
            assert (probe["periodSeconds"], probe["failureThreshold"]) == (period, failures), pod.name
