"""Clusters with IPv6: where pods listen, and what their policies let out."""

from __future__ import annotations

from tests.chart.conftest import Renderer
from tests.chart.documents import environment


def test_every_process_listens_for_ipv6_where_the_values_say_so(render: Renderer) -> None:
    told = [
        (name, value)
        for pod in render({"listenAddress": "::"}).standing
        for container in pod.serving
        for name, value in environment(container).items()
        if name.startswith("OMNI_")
    ]
    assert not [one for one in told if "0.0.0.0" in one[1]]  # noqa: S104  # looked for, not bound to
    binds = [value for name, value in told if name.endswith("_BIND")]
    assert {bind.rpartition(":")[0] for bind in binds} == {"[::]"}
    assert {value for name, value in told if name.endswith("_METRICS_HOST")} == {"::"}
    assert {bind.rpartition(":")[2] for bind in binds} >= {"7070", "7080", "7100", "8000"}


def test_weights_may_be_fetched_from_the_internet_of_both_families(render: Renderer) -> None:
    files = ["values-gpu.yaml"]
    rules = [rule for one in render(files=files).of("NetworkPolicy") for rule in one["spec"].get("egress", ())]
    blocks = {peer["ipBlock"]["cidr"] for rule in rules for peer in rule.get("to", ()) if "ipBlock" in peer}
    assert blocks == {"0.0.0.0/0", "::/0"}
