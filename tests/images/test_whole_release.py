"""The chart with no values at all, as `helm install` and `helm test` would have it; FULL=1 builds what it needs."""

from __future__ import annotations

from copy import deepcopy

import pytest
from tests.chart.documents import Pod
from tests.images.release import Release

pytestmark = [pytest.mark.full, pytest.mark.timeout(2400)]  # whoever comes first waits for the builds

VERIFY_SECONDS = 400


def test_the_charts_own_test_hears_speech(whole_release: Release) -> None:
    (pod,) = (pod for pod in whole_release.render.pods if pod.is_test)
    said = whole_release.node.complete(_at_the_pods_port(pod), "verify", VERIFY_SECONDS)
    assert "qwen3-omni" in said


def _at_the_pods_port(pod: Pod) -> Pod:
    """There is no Service here that would lead from its port to the pod's."""
    spec = deepcopy(dict(pod.spec))
    for container in spec["containers"]:
        container["args"] = [one.replace(":443", ":8000") for one in container["args"]]
    return Pod(pod.owner, pod.metadata, spec)
