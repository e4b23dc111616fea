"""Wrong values are refused before anything is installed, by the schema or by a sentence that names the value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter
from tests.chart.conftest import Renderer
from tests.chart.helm import CHART, Refused
from tests.chart.topologies import VALUES

from omni_gateway.keys.ring import Name

Case = Mapping[str, Any]
CASES: Mapping[str, Sequence[Case]] = yaml.safe_load((VALUES / "refused.yaml").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES["by_sentence"], ids=lambda case: case["says"])
def test_what_cannot_work_is_refused_by_a_sentence(case: Case, render: Renderer) -> None:
    with pytest.raises(Refused) as refused:
        render(values=case["values"])
    assert case["says"] in str(refused.value)


@pytest.mark.parametrize("case", CASES["by_schema"], ids=lambda case: case["says"])
def test_what_is_misspelt_or_of_a_wrong_kind_is_refused_by_the_schema(case: Case, render: Renderer) -> None:
    with pytest.raises(Refused, match="meet the specifications of the schema") as refused:
        render(values=case["values"])
    assert case["says"] in str(refused.value)


@pytest.mark.parametrize(
    ("values", "kube_version", "sentence"),
    [
        (
            "pipelines: {qwen3-omni: {placementGroups: {talker: {gpu: {mode: dra}}}}}",
            "1.33.0",
            "talker.gpu.mode is dra, which needs Kubernetes 1.34",
        ),
        (
            "pipelines: {qwen3-omni: {weights: {source: image, image: {reference: a:1}}}}",
            "1.32.0",
            "weights.source is image: volumes from images need Kubernetes 1.33",
        ),
    ],
)
def test_what_the_cluster_is_too_old_for_is_refused(
    values: str, kube_version: str, sentence: str, render: Renderer
) -> None:
    with pytest.raises(Refused) as refused:
        render(values=yaml.safe_load(values), kube_version=kube_version)
    assert sentence in str(refused.value)


def test_a_cluster_that_is_too_old_for_sidecars_is_refused(render: Renderer) -> None:
    with pytest.raises(Refused, match="incompatible with Kubernetes"):
        render(kube_version="1.28.0")


@pytest.mark.parametrize("release", ["9lives", "a.b"])
def test_a_release_whose_services_could_have_no_such_name_is_refused(release: str, render: Renderer) -> None:
    with pytest.raises(
        Refused, match=f"Objects would be named '{release}-omni-gateway', which is no name of a Service"
    ):
        render(release=release)
    assert render({"fullnameOverride": "speech"}, release=release).one("Service", "speech-gateway")


@pytest.mark.parametrize("case", CASES["accepted"], ids=str)
def test_what_looks_like_it_is_accepted(case: Case, render: Renderer) -> None:
    assert render(values=dict(case)).one("Deployment", "omni-gateway")


def test_names_of_keys_are_those_that_the_gateway_takes() -> None:
    pattern = TypeAdapter(Name).json_schema()["pattern"]
    assert f'"{pattern}"' in (CHART / "templates" / "_validation_tls.tpl").read_text("utf-8")
