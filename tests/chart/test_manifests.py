"""k8s/: plain manifests as the chart renders them now, the script that makes their certificates, values that the chart
takes."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from tests.chart.conftest import Renderer
from tests.chart.documents import Render
from tests.chart.helm import OLDEST, Helm
from tests.chart.manifests import FOLDER, NAMESPACE, PLAIN, plain
from tests.chart.schemas import complaints
from tests.chart.test_objects import named
from tests.chart.tools import ROOT

KEY = ("PRIVATE KEY", base64.b64encode(b"-----BEGIN ").decode()[:12])
# Values of other charts, and files that are no values.
FOREIGN = ("kube-prometheus-stack.yaml", "opentelemetry-collector.yaml", "prometheus-adapter.yaml", "kind.yaml")
# What a values file says that it goes over.
OVER_GPU = "--values charts/omni/values-gpu.yaml"


@pytest.fixture(scope="module")
def newest(helms: dict[int, Helm]) -> Helm:
    return helms[max(helms)]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_manifests_are_what_the_chart_renders(name: str, newest: Helm) -> None:
    assert (FOLDER / name).read_text() == plain(newest, name), "k8s/plain is not what the chart renders: make manifests"


@pytest.mark.parametrize("name", PLAIN)
def test_plain_manifests_hold_no_key(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert not [sign for sign in KEY if sign in text]
    assert not Render(text).of("Secret")


@pytest.mark.parametrize("name", PLAIN)
def test_kubernetes_takes_them(name: str) -> None:
    for document in Render((FOLDER / name).read_text()).documents:
        assert complaints(document, OLDEST) == []
        assert document["metadata"]["namespace"] == NAMESPACE


def test_the_script_makes_every_secret_that_they_name(tmp_path: Path) -> None:
    made = {one["metadata"]["name"]: one for one in _certificates()}
    for name in ("omni.yaml", "omni-gpu.yaml"):
        pods = Render((FOLDER / name).read_text()).pods
        wanted = {secret for pod in pods for volume in pod.spec["volumes"] for secret in named(volume)}
        assert {name for kind, name in wanted if kind == "Secret"} == made.keys()


def test_the_scripts_certificates_are_of_one_ca_and_have_the_meshs_names() -> None:
    names: dict[str, list[str]] = {}
    authorities = set()
    for one in _certificates():
        content = {key: base64.b64decode(value) for key, value in one["data"].items()}
        certificate = x509.load_pem_x509_certificate(content["tls.crt"])
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(content["ca.crt"]))
        authorities.add(content["ca.crt"])
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names[one["metadata"]["name"]] = alternatives.get_values_for_type(x509.DNSName)
    assert len(authorities) == 1
    for component in ("gateway", "coordinator", "stage", "relay"):
        assert names[f"omni-{component}-tls"] == [f"omni-{component}"]
    assert {f"omni-gateway.{NAMESPACE}.svc", "localhost", "chat.example.com"} <= set(names["omni-https"])


@pytest.mark.parametrize(
    "path", sorted((ROOT / "k8s").glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_the_chart_takes_the_example_values(path: Path, render: Renderer) -> None:
    if path.parent == FOLDER or path.name in FOREIGN:
        assert list(yaml.safe_load_all(path.read_text()))
        return
    text = path.read_text()
    base = ["values-gpu.yaml"] if OVER_GPU in text else []
    rendered = render(files=[*base, f"../../{path.relative_to(ROOT)}"])
    assert rendered.pods
    assert [what for document in rendered.documents for what in complaints(document, OLDEST)] == []


def _certificates() -> list[dict[str, Any]]:
    script = [str(FOLDER / "certificates.sh")]
    environment = {"PATH": "/usr/bin:/bin:/usr/sbin", "NAMESPACE": NAMESPACE, "HOSTS": "chat.example.com"}
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, env=environment, check=True)
    return list(yaml.safe_load_all(done.stdout))
