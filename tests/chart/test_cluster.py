"""What the chart asks of a cluster while it renders: Secrets that values name, kinds that it needs, certificates."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.chart.helm import CHART, NAMESPACE, RELEASE, Helm, Refused
from tests.lab.kube_server import FakeCluster, cluster
from tests.lab.kube_store import KINDS, Object, Place

RENEW = "omni.dev/renew-after"


@pytest.fixture(scope="module")
def fake(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    with cluster(tmp_path_factory.mktemp(f"asked{helm.major}"), NAMESPACE) as running:
        # Every namespace of a cluster has it: by it the chart knows that there is one.
        _create(running, "configmaps", "ConfigMap", "kube-root-ca.crt", {})
        yield running


@pytest.fixture(scope="module")
def connected(fake: FakeCluster, helm: Helm) -> Helm:
    return Helm(helm.major, helm.home, {"KUBECONFIG": str(fake.kubeconfig)})


def test_a_secret_that_is_not_there_is_refused_then_one_without_its_key(connected: Helm, fake: FakeCluster) -> None:
    values = {"auth": {"enabled": True, "existingSecret": "callers"}}
    with pytest.raises(
        Refused, match=r"auth.existingSecret names the Secret 'callers', which is not in namespace 'team'"
    ):
        _render(connected, values)
    _create(fake, "secrets", "Secret", "callers", {"keys": "e30="})
    with pytest.raises(Refused, match=r"auth.existingSecret names the Secret 'callers', which has no key keys.json"):
        _render(connected, values)


def test_a_certificates_secret_that_is_not_there_is_refused(connected: Helm) -> None:
    with pytest.raises(Refused, match=r"tls.https.existingSecret names the Secret 'mine', which is not in namespace"):
        _render(connected, {"tls": {"https": {"source": "existingSecret", "existingSecret": "mine", "hosts": ["a"]}}})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"metrics": {"podMonitor": {"enabled": True}}}, "the cluster does not have monitoring.coreos.com/v1"),
        ({"tls": {"source": "certManager"}}, "the cluster does not have cert-manager.io/v1"),
        ({"gateway": {"route": {"enabled": True, "parentRefs": [{"name": "a"}]}}}, "gateway.networking.k8s.io/v1"),
        (
            {"gateway": {"keda": {"enabled": True}, "autoscaling": {"targets": {"inFlight": 8}}}},
            "gateway.keda.enabled is true, but the cluster does not have keda.sh/v1alpha1",
        ),
    ],
)
def test_a_kind_that_the_cluster_does_not_know_is_refused(
    values: Mapping[str, Any], sentence: str, connected: Helm
) -> None:
    with pytest.raises(Refused) as refused:
        _render(connected, values)
    assert sentence in str(refused.value)


def test_a_gateway_api_without_policies_for_backends_is_refused(
    connected: Helm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(KINDS, "gateway.networking.k8s.io/v1", {"httproutes": "HTTPRoute"})
    unasked = Helm(connected.major, tmp_path, connected.environment)  # what it has heard of the cluster, it keeps
    with pytest.raises(Refused, match=r"backendTLSPolicy is true, but the cluster does not have .*/BackendTLSPolicy"):
        _render(unasked, {"gateway": {"route": {"enabled": True, "parentRefs": [{"name": "a"}]}}})


def test_certificates_are_made_anew_when_they_must_be_and_only_those(connected: Helm, fake: FakeCluster) -> None:
    connected("install", RELEASE, CHART)
    first = _certificates(fake)
    assert len(first) == 5, "one for each component, and that of HTTPS"

    connected("upgrade", RELEASE, CHART, "--set", "tls.https.hosts={omni.example.com}")
    named = _certificates(fake)
    assert _changed(first, named) == {"omni-https"}, "another name"

    fake.store.change(_secret("omni-stage-tls"), _in_its_last_third)
    connected("upgrade", RELEASE, CHART, "--reuse-values")
    renewed = _certificates(fake)
    assert _changed(named, renewed) == {"omni-stage-tls"}, "its time is nearly over"

    fake.store.delete(_secret("omni-ca"))
    connected("upgrade", RELEASE, CHART, "--reuse-values")
    assert _changed(renewed, _certificates(fake)) == set(renewed), "of another CA, no one would trust them"


def _render(helm: Helm, values: Mapping[str, Any]) -> str:
    """With the cluster's answers, unlike `helm template` by itself."""
    return helm("install", "tried", CHART, "--dry-run=server", *helm.as_options(values))


def _create(fake: FakeCluster, resource: str, kind: str, name: str, data: Mapping[str, str]) -> None:
    content = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "data": dict(data)}
    fake.store.create(Place("v1", resource, NAMESPACE, name), content)


def _secret(name: str) -> Place:
    return Place("v1", "secrets", NAMESPACE, name)


def _in_its_last_third(secret: Object) -> Object:
    secret["metadata"]["annotations"][RENEW] = "1"
    return secret


def _certificates(fake: FakeCluster) -> Mapping[str, bytes]:
    """All but the CA's own."""
    return {
        one["metadata"]["name"]: base64.b64decode(one["data"]["tls.crt"])
        for one in fake.store.objects()
        if one["kind"] == "Secret" and {"tls.crt", "ca.crt"} <= set(one.get("data", {}))
    }


def _changed(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> set[str]:
    return {name for name in before if before[name] != after[name]}
