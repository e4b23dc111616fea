"""What the chart sets in a container's environment is what its service reads: names and values, and files that are
mounted where the environment says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import pytest
from tests.chart.conftest import Renderer
from tests.chart.documents import Document, Render, environment, port_of
from tests.chart.edges import pipelines

from omni_common.settings import ServiceSettings
from omni_coordinator.settings import CoordinatorSettings
from omni_gateway.settings import GatewaySettings
from omni_relay.settings import RelaySettings
from omni_stage.settings import StageSettings
from omni_stage.weights.settings import WeightsSettings

SERVICES: Mapping[str, type[ServiceSettings]] = {
    "OMNI_GATEWAY_": GatewaySettings,
    "OMNI_COORDINATOR_": CoordinatorSettings,
    "OMNI_STAGE_": StageSettings,
    "OMNI_RELAY_": RelaySettings,
}
WEIGHTS = "OMNI_WEIGHTS_"
# What the kubelet would fill in.
FILLED_IN = {"POD_NAME": "omni-x-abcde", "POD_IP": "10.0.0.1", "NODE_NAME": "node-1"}
MOUNTED = ("OMNI_GATEWAY_HTTPS_CERT", "OMNI_GATEWAY_HTTPS_KEY", "OMNI_GATEWAY_API_KEYS", "OMNI_STAGE_PIPELINE")
MESH_TLS = ("TLS_CERT", "TLS_KEY", "TLS_CA")


def test_every_service_takes_its_environment(rendered: Render) -> None:
    assert list(refusals(rendered)) == []
    assert {prefix for _, _, prefix in _services(rendered)} == set(SERVICES)


def test_the_step_that_fetches_weights_takes_its_environment(rendered: Render) -> None:
    for pod in rendered.stages():
        for step in pod.steps:
            given = {name: value for name, value in _filled_in(step).items() if name.startswith(WEIGHTS)}
            try:
                _take(WeightsSettings, WEIGHTS, given)
            except ValueError as error:
                pytest.fail(f"{pod.name}/{step['name']} would not start: {error}")
            folders = [PurePosixPath(one["mountPath"]) for one in step["volumeMounts"] if not one.get("readOnly")]
            target = PurePosixPath(given[f"{WEIGHTS}FOLDER"])
            assert any(folder in (target, *target.parents) for folder in folders), pod.name


def test_no_variable_is_for_a_service_that_is_not_there(rendered: Render) -> None:
    for where, container, prefix in _services(rendered):
        for name in _filled_in(container):
            assert not name.startswith("OMNI_") or name.startswith(prefix), f"{where}: {name}"


def test_files_that_the_environment_names_are_mounted(rendered: Render) -> None:
    for where, container, prefix in _services(rendered):
        told = environment(container)
        names = (*MOUNTED, *(prefix + one for one in MESH_TLS))
        files = [PurePosixPath(told[name]) for name in names if name in told]
        files += [PurePosixPath(one) for one in told.get("OMNI_COORDINATOR_PIPELINES", "").split(",") if one]
        folders = [PurePosixPath(one["mountPath"]) for one in container["volumeMounts"]]
        for file in files:
            assert any(folder in (file, *file.parents) for folder in folders), f"{where}: {file} is not mounted"


def test_every_component_has_its_own_certificate(rendered: Render) -> None:
    for where, container, prefix in _services(rendered):
        told = environment(container)
        assert all(prefix + name in told for name in MESH_TLS), f"{where} speaks without TLS"


def test_a_certificates_secret_is_mounted_where_its_variable_points(rendered: Render) -> None:
    for pod in rendered.standing:
        volumes = {one["name"]: one for one in pod.spec["volumes"]}
        for container in pod.serving:
            prefix = _prefix(container)
            folder = PurePosixPath(environment(container)[f"{prefix}TLS_CERT"]).parent
            mount = next(one for one in container["volumeMounts"] if PurePosixPath(one["mountPath"]) == folder)
            assert mount.get("readOnly") is True, f"{pod.name}/{container['name']}"
            assert "subPath" not in mount, "a file mounted by subPath is never renewed"
            assert _secrets_of(volumes[mount["name"]]), f"{pod.name}/{container['name']}"


def test_listening_ports_are_declared(rendered: Render) -> None:
    for where, container, prefix in _services(rendered):
        told = environment(container)
        port_of(container, int(told[f"{prefix}BIND"].rpartition(":")[2]))
        assert told[f"{prefix}METRICS_HOST"] == "0.0.0.0", where  # noqa: S104  # in a pod of its own
        for name in ("METRICS_PORT", "HEALTH_PORT"):
            if f"{prefix}{name}" in told:
                port_of(container, int(told[f"{prefix}{name}"]))


def test_ports_and_their_names_are_of_one_container_each(rendered: Render) -> None:
    for pod in rendered.standing:
        ports = [one for container in pod.serving for one in container.get("ports", ())]
        numbers, names = [one["containerPort"] for one in ports], [one["name"] for one in ports]
        assert len(set(numbers)) == len(numbers), f"{pod.name}: {numbers}"
        assert len(set(names)) == len(names), f"{pod.name}: {names}"


def test_every_stage_of_a_pipeline_runs_once_and_no_other(rendered: Render) -> None:
    for pipeline in pipelines(rendered).values():
        pods = [pod for pod in rendered.stages() if pod.labels["omni.dev/pipeline"] == pipeline.name]
        told = [environment(container)["OMNI_STAGE_STAGE"] for pod in pods for container in pod.containers]
        assert sorted(stage for names in told for stage in names.split(",")) == sorted(pipeline.by_name)


def test_pods_hold_the_stages_of_their_placement_group(rendered: Render) -> None:
    for pipeline in pipelines(rendered).values():
        for pod in rendered.stages():
            if pod.labels["omni.dev/pipeline"] == pipeline.name:
                groups = {
                    pipeline.by_name[stage].placement_group or stage
                    for container in pod.containers
                    for stage in environment(container)["OMNI_STAGE_STAGE"].split(",")
                }
                assert groups == {pod.labels["omni.dev/placement-group"]}


def test_a_misspelt_setting_would_be_seen(render: Renderer) -> None:
    _, container, prefix = next(_services(render()))
    given = {name: value for name, value in _filled_in(container).items() if name.startswith(prefix)}
    with pytest.raises(ValueError, match="Extra inputs"):
        _take(SERVICES[prefix], prefix, {**given, f"{prefix}METRICS_PROT": "9000"})


def refusals(render: Render) -> Iterator[str]:
    """What services would say to their environments when they start, if it is not to their liking."""
    for where, container, prefix in _services(render):
        given = {name: value for name, value in _filled_in(container).items() if name.startswith(prefix)}
        try:
            _take(SERVICES[prefix], prefix, given)
        except ValueError as error:
            yield f"{where} would not start: {error}"


def _take(service: type[ServiceSettings], prefix: str, given: Mapping[str, str]) -> None:
    service.model_validate({name.removeprefix(prefix).lower(): value for name, value in given.items()})


def _services(render: Render) -> Iterator[tuple[str, Document, str]]:
    for pod in render.standing:
        for container in pod.serving:
            yield f"{pod.name}/{container['name']}", container, _prefix(container)


def _prefix(container: Document) -> str:
    image = container["image"].rpartition(":")[0].rpartition("/")[2]
    return f"{image.upper().replace('-', '_')}_"


def _filled_in(container: Document) -> Mapping[str, str]:
    told = {**FILLED_IN, **{one["name"]: "from-elsewhere" for one in container.get("env", ()) if "valueFrom" in one}}
    told |= FILLED_IN
    for name, value in environment(container).items():
        told[name] = re.sub(r"\$\((\w+)\)", lambda match: told[match[1]], value)
    return told


def _secrets_of(volume: Document) -> list[str]:
    if "secret" in volume:
        return [volume["secret"]["secretName"]]
    return [one["secret"]["name"] for one in volume.get("projected", {}).get("sources", ()) if "secret" in one]
