"""The names that callers ask the HTTPS port for are names that its certificate can be for, wherever it comes from."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from tests.chart.conftest import Renderer
from tests.chart.documents import Document, Render
from tests.chart.helm import CHART, NAMESPACE, RELEASE, Helm

Values = dict[str, Any]

PUBLIC = "chat.example.com"
SECRET: Values = {"source": "existingSecret", "existingSecret": "public", "hosts": [PUBLIC]}
ISSUER: Values = {"source": "certManager", "issuer": {"name": "letsencrypt"}, "hosts": [PUBLIC]}
FOREIGN = pytest.mark.parametrize("https", [SECRET, ISSUER], ids=["secret", "issuer"])


@FOREIGN
def test_a_public_certificate_is_asked_for_by_its_own_name(
    https: Values, render: Renderer, helms: dict[int, Helm]
) -> None:
    values = {"tls": {"https": https}}
    arguments = _arguments(render(values))
    assert f"https://{RELEASE}-gateway:443" in arguments, "the Service is what is connected to"
    assert f"--server-name={PUBLIC}" in arguments
    assert not [one for one in arguments if one.startswith("--ca")]
    curl = _curl(helms[4], values)
    assert curl[curl.index("--resolve") + 1] == f"{PUBLIC}:8443:127.0.0.1"
    assert f"https://{PUBLIC}:8443/v1/chat/completions" in curl
    assert "--cacert" not in curl


@FOREIGN
def test_a_private_certificate_from_outside_is_trusted_by_the_ca_that_is_named(
    https: Values, render: Renderer, helms: dict[int, Helm]
) -> None:
    values = {"tls": {"https": {**https, "existingSecretCA": "our-ca.pem"}}}
    rendered = render(values)
    assert {"--ca=/etc/omni/https/ca.crt", f"--server-name={PUBLIC}"} <= set(_arguments(rendered))
    (volume,) = [one for one in _test_pod(rendered)["volumes"] if one["name"] == "ca"]
    assert volume["secret"]["items"] == [{"key": "our-ca.pem", "path": "ca.crt"}]
    assert "--cacert" in _curl(helms[4], values)
    assert r"jsonpath='{.data.our-ca\.pem}'" in _notes(helms[4], values)


def test_a_wildcard_is_asked_for_by_a_name_that_it_means(render: Renderer) -> None:
    arguments = _arguments(render({"tls": {"https": {**SECRET, "hosts": ["*.example.com"]}}}))
    assert "--server-name=omni.example.com" in arguments


@pytest.mark.parametrize("source", ["selfSigned", "certManager"])
def test_a_certificate_of_the_meshs_own_ca_is_for_the_service(
    source: str, render: Renderer, helms: dict[int, Helm]
) -> None:
    values = {"tls": {"source": source, "https": {"hosts": [PUBLIC]}}}
    arguments = _arguments(render(values))
    assert "--ca=/etc/omni/https/ca.crt" in arguments
    assert not [one for one in arguments if one.startswith("--server-name")]
    curl = _curl(helms[4], values)
    assert "https://localhost:8443/v1/chat/completions" in curl
    assert {"--cacert", "omni-ca.crt"} <= set(curl)


def test_an_issuer_that_is_not_the_meshs_is_asked_for_what_the_public_trusts_only(render: Renderer) -> None:
    asked = _certificate(render({"tls": {"source": "certManager", "https": ISSUER}}))
    assert asked["dnsNames"] == [PUBLIC]
    assert "ipAddresses" not in asked
    assert "server auth" in asked["usages"]
    assert "client auth" not in asked["usages"]


def test_the_meshs_issuer_is_asked_for_the_services_names_as_well(render: Renderer) -> None:
    asked = _certificate(render({"tls": {"source": "certManager", "https": {"hosts": [PUBLIC]}}}))
    assert {PUBLIC, "localhost", f"{RELEASE}-gateway", f"{RELEASE}-gateway.{NAMESPACE}.svc"} <= set(asked["dnsNames"])
    assert asked["ipAddresses"] == ["127.0.0.1"]


def test_the_first_request_waits_for_the_port_that_is_forwarded(helms: dict[int, Helm]) -> None:
    assert "--retry-connrefused" in _curl(helms[4], {})


def _test_pod(rendered: Render) -> Document:
    (pod,) = (one for one in rendered.pods if one.is_test)
    return pod.spec


def _arguments(rendered: Render) -> list[str]:
    (container,) = _test_pod(rendered)["containers"]
    return list(container["args"])


def _certificate(rendered: Render) -> Document:
    (one,) = (one for one in rendered.of("Certificate") if one["metadata"]["name"] == f"{RELEASE}-https")
    spec: Document = one["spec"]
    return spec


def _notes(helm: Helm, values: Values) -> str:
    """What is printed after an install; only helm 4 says it without a cluster."""
    return helm("install", RELEASE, CHART, "--namespace", NAMESPACE, "--dry-run=client", *helm.as_options(values))


def _curl(helm: Helm, values: Values) -> list[str]:
    """The words of the first request's command."""
    command = re.search(r"^  curl (.*\\\n)*.*$", _notes(helm, values), re.MULTILINE)
    assert command is not None
    return shlex.split(command.group())
