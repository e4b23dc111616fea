"""The chart's life by real helm: install, upgrade, rollback, test, uninstall, against an API server in memory."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.chart.helm import CHART, NAMESPACE, RELEASE, Helm
from tests.lab.kube_server import FakeCluster, cluster
from tests.lab.kube_store import Object, Place

NAMES = ("gateway", "coordinator", "stage", "relay")


@pytest.fixture(scope="module")
def fake(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    with cluster(tmp_path_factory.mktemp(f"cluster{helm.major}"), NAMESPACE) as running:
        yield running


@pytest.fixture(scope="module")
def installed(fake: FakeCluster, helm: Helm) -> Helm:
    """One release for all tests of each helm; the last one removes it."""
    installing = Helm(helm.major, helm.home, {"KUBECONFIG": str(fake.kubeconfig)})
    notes = installing("install", RELEASE, CHART, "--timeout", "30s", *waiting(installing))
    assert "https://" in notes, "the first request of a newcomer"
    return installing


def waiting(helm: Helm) -> list[str]:
    """The older helm waits for ReplicaSets, which nobody makes here."""
    return ["--wait"] if helm.major > 3 else []


def test_certificates_stay_over_upgrades_and_rollbacks(installed: Helm, fake: FakeCluster) -> None:
    before = _certificates(fake)
    assert before
    installed("upgrade", RELEASE, CHART, "--set", "gateway.replicas=3", *waiting(installed))
    assert fake.store.get(_deployment("gateway"))["spec"]["replicas"] == 3
    assert _certificates(fake) == before
    installed("rollback", RELEASE, *waiting(installed))
    assert fake.store.get(_deployment("gateway"))["spec"]["replicas"] == 1
    assert _certificates(fake) == before


def test_an_upgrade_that_changes_nothing_restarts_nothing(installed: Helm, fake: FakeCluster) -> None:
    before = _pod_templates(fake)
    installed("upgrade", RELEASE, CHART, *waiting(installed))
    assert _pod_templates(fake) == before


def test_helm_test_runs_and_cleans_up(installed: Helm, fake: FakeCluster) -> None:
    told = installed("test", RELEASE)
    assert "Phase:          Succeeded" in told
    assert not [one for one in fake.store.objects() if one["kind"] in ("Pod", "Job")]


def test_every_component_has_a_certificate_of_one_ca(installed: Helm, fake: FakeCluster) -> None:
    names = set()
    authorities = set()
    for content in _tls_secrets(fake).values():
        certificate = x509.load_pem_x509_certificate(content["tls.crt"])
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(content["ca.crt"]))
        authorities.add(content["ca.crt"])
        names |= set(_dns_names(certificate))
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert ExtendedKeyUsageOID.SERVER_AUTH in uses
    assert {f"omni-{name}" for name in NAMES} <= names
    assert f"{RELEASE}-gateway.{NAMESPACE}.svc" in names
    assert len(authorities) == 1


def test_nobody_but_helm_keeps_the_cas_key(installed: Helm, fake: FakeCluster) -> None:
    mounted = {
        source
        for one in fake.store.objects()
        if one["kind"] == "Deployment"
        for volume in one["spec"]["template"]["spec"]["volumes"]
        for source in (
            volume.get("secret", {}).get("secretName"),
            *(each.get("secret", {}).get("name") for each in volume.get("projected", {}).get("sources", ())),
        )
        if source
    }
    for name, content in _secrets(fake).items():
        if "ca.key" in content:
            assert name not in mounted, "who has the CA's key can be everybody"


def test_uninstall_leaves_nothing(installed: Helm, fake: FakeCluster) -> None:
    """The last: nothing is there after it."""
    installed("test", RELEASE)
    installed("uninstall", RELEASE, *waiting(installed))
    left = [(one["kind"], one["metadata"]["name"]) for one in fake.store.objects() if one["kind"] != "Namespace"]
    assert left == []


def _deployment(component: str) -> Place:
    return Place("apps/v1", "deployments", NAMESPACE, f"{RELEASE}-{component}")


def _pod_templates(fake: FakeCluster) -> dict[str, Object]:
    deployments = [one for one in fake.store.objects() if one["kind"] == "Deployment"]
    return {one["metadata"]["name"]: one["spec"]["template"] for one in deployments}


def _secrets(fake: FakeCluster) -> Mapping[str, Mapping[str, bytes]]:
    """But helm's own."""
    secrets = [one for one in fake.store.objects() if one["kind"] == "Secret"]
    return {
        one["metadata"]["name"]: {key: base64.b64decode(value) for key, value in one.get("data", {}).items()}
        for one in secrets
        if one.get("type") != "helm.sh/release.v1"
    }


def _tls_secrets(fake: FakeCluster) -> Mapping[str, Mapping[str, bytes]]:
    return {name: content for name, content in _secrets(fake).items() if "tls.crt" in content and "ca.crt" in content}


def _certificates(fake: FakeCluster) -> Mapping[str, bytes]:
    return {
        f"{name}/{key}": value
        for name, content in _secrets(fake).items()
        for key, value in content.items()
        if key.endswith((".crt", ".key"))
    }


def _dns_names(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)
