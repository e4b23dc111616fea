"""Every pod, whatever it is for: the restricted Pod Security standard and more, probes, requests and limits, images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from tests.chart.conftest import Renderer
from tests.chart.documents import Document, Pod, Render, environment, port_of
from tests.chart.helm import CHART

from omni_common.settings import ServiceSettings, parse_duration

UID = 10001
# What the restricted standard lets a pod mount, without what reaches the node or the API.
VOLUMES = {"configMap", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "secret", "projected"}


def test_no_pod_may_become_root(rendered: Render) -> None:
    for pod in rendered.pods:
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True, pod.name
        assert (context["runAsUser"], context["runAsGroup"]) == (UID, UID), pod.name
        assert context["fsGroup"] == UID, pod.name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, pod.name


def test_no_container_has_more_than_it_needs(rendered: Render) -> None:
    for where, container in _containers(rendered):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, where
        assert context["readOnlyRootFilesystem"] is True, where
        assert context["capabilities"] == {"drop": ["ALL"]}, where
        assert not context.get("privileged"), where
        assert context.get("runAsUser", UID) == UID, where


def test_no_pod_shares_the_node(rendered: Render) -> None:
    for pod in rendered.pods:
        assert not any(pod.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC", "hostUsers")), pod.name
        ports = [port for one in pod.all_containers for port in one.get("ports", ())]
        assert not any("hostPort" in port for port in ports), pod.name
        for volume in pod.spec.get("volumes", ()):
            assert VOLUMES & volume.keys(), f"{pod.name}: {volume}"


def test_no_pod_can_speak_to_the_api(rendered: Render) -> None:
    for pod in rendered.pods:
        assert pod.spec["automountServiceAccountToken"] is False, pod.name
        for volume in pod.spec.get("volumes", ()):
            sources = volume.get("projected", {}).get("sources", ())
            assert not any("serviceAccountToken" in source for source in sources), pod.name


def test_no_service_puts_variables_into_pods(rendered: Render) -> None:
    assert all(pod.spec["enableServiceLinks"] is False for pod in rendered.pods)


def test_every_image_has_a_tag_that_stays(rendered: Render) -> None:
    version = next(line.split()[1].strip('"') for line in _chart_yaml() if line.startswith("appVersion:"))
    for where, container in _containers(rendered):
        _, _, tag = container["image"].rpartition(":")
        assert tag.removesuffix("-cuda") == version, where
        assert container["imagePullPolicy"] == "IfNotPresent", where


def test_every_container_asks_for_what_it_needs_and_is_held_to_it(rendered: Render) -> None:
    for where, container in _containers(rendered):
        resources = container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys(), where
        assert "memory" in resources["limits"], where


def test_shared_memory_is_bounded_and_fits_into_the_containers_limits(rendered: Render) -> None:
    for pod in rendered.stages():
        in_memory = [one for one in pod.spec["volumes"] if one.get("emptyDir", {}).get("medium") == "Memory"]
        assert [one for one in in_memory if _mounts(pod, one["name"]) == {"/run/omni"}], pod.name
        for volume in in_memory:
            assert volume["emptyDir"]["sizeLimit"], f"{pod.name}: {volume['name']}"


def test_only_tmp_and_what_is_mounted_can_be_written(rendered: Render) -> None:
    for pod in rendered.pods:
        for volume in pod.spec.get("volumes", ()):
            if "emptyDir" in volume:
                assert "sizeLimit" in (volume["emptyDir"] or {}), f"{pod.name}: {volume['name']} has no bound"
        for container in pod.serving:
            mounted = {one["mountPath"] for one in container.get("volumeMounts", ())}
            assert "/tmp" in mounted, f"{pod.name}/{container['name']}"  # noqa: S108  # of the container


def test_every_container_that_stays_is_probed(rendered: Render) -> None:
    for pod in rendered.standing:
        for container in pod.serving:
            where = f"{pod.name}/{container['name']}"
            assert "startupProbe" in container, where
            assert "livenessProbe" in container, where
            assert "readinessProbe" in container, where
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                _reaches_its_container(container, container[kind], where)


def test_liveness_never_asks_for_readiness(rendered: Render) -> None:
    for pod in rendered.standing:
        for container in pod.serving:
            alive, ready = container["livenessProbe"], container["readinessProbe"]
            if "grpc" in alive:
                assert alive["grpc"]["service"] == "liveness", pod.name
                assert ready["grpc"].get("service", "") in ("", "readiness"), pod.name
            else:
                # Where no pipeline stands for ever, the gateway waits for none.
                resting = any(one["spec"]["minReplicaCount"] == 0 for one in rendered.of("ScaledObject"))
                paths = ("/livez", "/livez" if resting else "/readyz")
                assert (alive["httpGet"]["path"], ready["httpGet"]["path"]) == paths


def test_grace_is_longer_than_the_drain(rendered: Render) -> None:
    for pod in rendered.standing:
        grace = timedelta(seconds=pod.spec["terminationGracePeriodSeconds"])
        for container in pod.serving:
            told = (value for name, value in environment(container).items() if name.endswith("_DRAIN"))
            drain = parse_duration(next(told, ServiceSettings.model_fields["drain"].default))
            assert isinstance(drain, timedelta)
            assert _pause(container) + drain < grace, f"{pod.name}/{container['name']}"


def test_what_callers_hold_is_drained_as_long_as_a_request_may_take(rendered: Render) -> None:
    for pod in rendered.standing:
        for container in pod.containers:
            (drain,) = (value for name, value in environment(container).items() if name.endswith("_DRAIN"))
            assert parse_duration(drain) == parse_duration("10m"), f"{pod.name}/{container['name']}"
            assert _pause(container) >= timedelta(seconds=1), "traffic ends only after everybody has learnt of it"


def test_the_relay_starts_before_the_stages_and_ends_after_them(rendered: Render) -> None:
    for pod in rendered.stages():
        (relay,) = [one for one in pod.serving if "omni-relay" in one["image"]]
        assert relay["restartPolicy"] == "Always", "a native sidecar"
        assert relay in pod.sidecars
        assert "startupProbe" in relay, "the stages wait until it has made the arena"


def test_gpus_are_asked_for_once_a_pod(render: Renderer) -> None:
    for pod in render(files=("values-gpu.yaml",)).stages():
        asking = [one["name"] for one in pod.all_containers if "nvidia.com/gpu" in one["resources"].get("limits", {})]
        assert len(asking) <= 1, f"{pod.name}: a GPU cannot be given to two containers: {asking}"


@pytest.mark.parametrize("mode", ["devicePlugin", "dra"])
def test_a_stage_that_is_spread_has_as_many_gpus_in_its_container(mode: str, render: Renderer) -> None:
    rendered = render(
        {
            "groupDefaults": {"gpu": {"mode": mode}},
            "pipelines": {"qwen3-omni": {"stages": {"thinker": {"tpSize": 2}}}},
        },
        files=("values-gpu.yaml",),
    )
    counts = {
        claim["metadata"]["name"]: claim["spec"]["spec"]["devices"]["requests"][0]["exactly"]["count"]
        for claim in rendered.of("ResourceClaimTemplate")
    }
    asked: dict[str, int] = {}
    for pod in rendered.stages():
        for container in pod.containers:
            for stage in environment(container)["OMNI_STAGE_STAGE"].split(","):
                if container["resources"].get("claims"):
                    asked[stage] = counts[pod.spec["resourceClaims"][0]["resourceClaimTemplateName"]]
                elif gpus := container["resources"]["limits"].get("nvidia.com/gpu"):
                    asked[stage] = int(gpus)
                    assert "/dev/shm" in _mounts(pod, "shm"), "NCCL's ranks share memory there"  # noqa: S108 -- of a container
    assert (asked["thinker"], asked["talker"]) == (2, 1)
    (pipeline,) = [one for one in rendered.of("ConfigMap") if one["metadata"]["name"].endswith("pipelines")]
    stages = json.loads(pipeline["data"]["qwen3-omni.json"])["stages"]
    assert {stage["name"]: stage["tp_size"] for stage in stages if stage["tp_size"] > 1} == {"thinker": 2}


def _mounts(pod: Pod, volume: str) -> set[str]:
    return {
        one["mountPath"]
        for container in pod.serving
        for one in container.get("volumeMounts", ())
        if one["name"] == volume
    }


def _reaches_its_container(container: Document, probe: Document, where: str) -> None:
    handler = probe.get("grpc") or probe.get("httpGet")
    assert handler, where
    port_of(container, handler["port"])
    if "grpc" in probe:
        assert isinstance(handler["port"], int), f"{where}: a gRPC probe takes no port's name"


def _containers(render: Render) -> Iterator[tuple[str, Document]]:
    for pod in render.pods:
        yield from ((f"{pod.name}/{one['name']}", one) for one in pod.all_containers)


def _chart_yaml() -> list[str]:
    return (CHART / "Chart.yaml").read_text().splitlines()


def _pause(container: Document) -> timedelta:
    """Before SIGTERM."""
    before = container.get("lifecycle", {}).get("preStop", {})
    if not before:
        return timedelta()
    return timedelta(seconds=int(before["sleep"]["seconds"] if "sleep" in before else before["exec"]["command"][1]))
