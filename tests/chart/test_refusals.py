"""Wrong values are refused before anything is installed, by the schema or by a sentence that names the value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from tests.chart.conftest import Renderer
from tests.chart.helm import Refused

THINKER = "pipelines.qwen3-omni.placementGroups.thinker"
STAGES = "pipelines.qwen3-omni.stages"

# The values, and what the refusal says of them.
BY_SENTENCE = {
    "pipelines: {qwen3-omni: {enabled: false}}": "pipelines has none that is enabled",
    "pipelines: {mine: {}}": "pipelines.mine.family is empty: it must say whose code runs, echo, piper",
    "pipelines: {mine: {family: llama}}": "pipelines.mine.family is 'llama', which this chart does not know",
    "pipelines: {qwen3-omni: {stages: {thinkr: {credits: 8}}}}": f"{STAGES}.thinkr: there is no such stage; there are "
    "preprocess, image_encoder",
    "pipelines: {qwen3-omni: {placementGroups: {thnker: {replicas: 2}}}}": "pipelines.qwen3-omni.placementGroups.thnker "
    "has no stages",
    "pipelines: {qwen3-omni: {stages: {talker: {process: ar}, thinker: {process: ar}}}}": f"{STAGES}.talker.process is "
    "'ar', as that of stage 'thinker', but they are in the placement groups 'talker' and 'thinker'",
    "pipelines: {qwen3-omni: {stages: {decode: {process: thinker}}}}": f"{STAGES}.decode.process is 'thinker', the name "
    "of another stage",
    "pipelines: {qwen3-omni: {stages: {decode: {process: a, threads: 2}, thinker: {process: a, threads: 3}}}}": f"{STAGES}"
    ".decode.threads differs from that of stage 'thinker'",
    "pipelines: {qwen3-omni: {stages: {thinker: {tpSize: 2}}}}": f"{STAGES}.thinker.tpSize is 2",
    "pipelines: {qwen3-omni: {stages: {thinker: {device: cuda}}}}": f"{STAGES}.thinker.device is cuda, but {THINKER}",
    "pipelines: {qwen3-omni: {weights: {source: packaged}}}": "pipelines.qwen3-omni.weights.source is 'packaged', which "
    "the family 'qwen3-omni' does not have: take tiny, hub, volume, image",
    "pipelines: {qwen3-omni: {weights: {source: hub}}}": "pipelines.qwen3-omni.weights.hub.id is empty",
    "pipelines: {qwen3-omni: {weights: {source: volume}}}": "pipelines.qwen3-omni.weights.volume.claim is empty",
    "pipelines: {qwen3-omni: {weights: {source: image}}}": "pipelines.qwen3-omni.weights.image.reference is empty",
    "pipelines: {qwen3-omni: {weights: {cache: {claim: a, create: true}}}}": "weights.cache.create are both set",
    "pipelines: {qwen3-omni: {placementGroups: {thinker: {weights: {source: hub}}}}}": f"{THINKER}.weights.hub.id is empty",
    "pipelines: {qwen3-omni: {placementGroups: {thinker: {gpu: {mode: devicePlugin}}}}}": f"{THINKER}.gpu.mode is "
    "devicePlugin, which gives a GPU to one container only, but its stages image_encoder and audio_encoder",
    "pipelines: {echo: {enabled: true, placementGroups: {front: {gpu: {mode: devicePlugin}}}}}": "pipelines.echo."
    "placementGroups.front.gpu.mode is devicePlugin, but none of its stages wants a GPU",
    "pipelines: {qwen3-omni: {placementGroups: {thinker: {relay: {arenaSize: 16Mi}}}}}": f"{THINKER}.relay.arenaSize is "
    "16Mi",
    "pipelines: {qwen3-omni: {placementGroups: {thinker: {relay: {transports: [ucx]}}}}}": f"{THINKER}.relay.transports "
    "has ucx, which moves tensors in plaintext",
    "pipelines: {a.b: {family: echo}, a-b: {family: echo}}": "both make objects named 'omni-a-b-front'",
    "pipelines: {qwen3-omni: {placementGroups: {thinker: {replicas: 2, autoscaling: {enabled: true, targets: {waiting: 4}}}}}"
    "}": f"{THINKER}.replicas is set, and {THINKER}.autoscaling.enabled is true",
    "gateway: {autoscaling: {enabled: true}, keda: {enabled: true}}": "gateway.autoscaling.enabled and gateway.keda.enabled "
    "are both true",
    "gateway: {autoscaling: {enabled: true}}": "gateway.autoscaling.targets has none above 0",
    "gateway: {autoscaling: {enabled: true, minReplicas: 5, targets: {cpuPercent: 70}}}": "gateway.autoscaling.minReplicas "
    "is 5, above maxReplicas, which is 4",
    "gateway: {autoscaling: {enabled: true, minReplicas: 0, targets: {cpuPercent: 70}}}": "gateway.autoscaling.minReplicas "
    "is 0: only KEDA",
    "gateway: {keda: {enabled: true}, autoscaling: {minReplicas: 0, targets: {cpuPercent: 70}}}": "nobody would hear",
    "gateway: {autoscaling: {enabled: true, targets: {waiting: 4}}}": "gateway.autoscaling.targets.waiting is a figure of "
    "stages",
    "coordinator: {autoscaling: {enabled: true, targets: {inFlight: 4}}}": "coordinator.autoscaling.targets.inFlight is a "
    "figure of the gateway",
    "{gateway: {keda: {enabled: true}, autoscaling: {targets: {inFlight: 4}}}, metrics: {prometheusAddress: ''}}": "metrics"
    ".prometheusAddress is empty",
    "gateway: {ingress: {enabled: true}}": "gateway.ingress.hosts is empty",
    "gateway: {route: {enabled: true}}": "gateway.route.parentRefs is empty",
    "tls: {source: existingSecrets, existingSecrets: {gateway: a, coordinator: b, stage: c}}": "tls.existingSecrets.relay is "
    "empty",
    "tls: {https: {source: existingSecret}}": "tls.https.existingSecret is empty",
    "auth: {enabled: true}": "auth.keys is empty",
    f"auth: {{enabled: true, existingSecret: a, keys: {{b: {{sha256: '{'0' * 64}'}}}}}}": "auth.keys and "
    "auth.existingSecret are both set",
    "tracing: {enabled: true}": "tracing.endpoint is empty",
}

BY_SCHEMA = {
    "gatway: {}": "gatway",
    "gateway: {replica: 2}": "replica",
    "gateway: {replicas: -1}": "/gateway/replicas",
    "gateway: {settings: {maxBdoy: 64MiB}}": "maxBdoy",
    "gateway: {settings: {maxBody: much}}": "/gateway/settings/maxBody",
    "gateway: {settings: {stallTimeout: 30}}": "/gateway/settings/stallTimeout",
    "gateway: {settings: {bind: '0.0.0.0:1'}}": "bind",
    "gateway: {env: [{name: OMNI_GATEWAY_MAX_BODY, value: '1'}]}": "/gateway/env/0/name",
    "requestTimeout: 600": "/requestTimeout",
    "logLevel: TRACE": "/logLevel",
    "pipelines: {qwen3-omni: {stages: {thinker: {credit: 8}}}}": "credit",
    "pipelines: {qwen3-omni: {stages: {thinker: {credits: 0}}}}": "credits",
    "pipelines: {qwen3-omni: {stages: {thinker: {dtype: int4}}}}": "dtype",
    "pipelines: {qwen3-omni: {placementGroups: {thinker: {gpus: 1}}}}": "gpus",
    "pipelines: {Qwen: {family: qwen3-omni}}": "/pipelines",
    "pipelines: {qwen3-omni: {weights: {source: s3}}}": "source",
    "groupDefaults: {relay: {arenaSize: 256MB}}": "/groupDefaults/relay/arenaSize",
    "groupDefaults: {relay: {resources: {limits: {memory: 1.5Gi}}}}": "/groupDefaults/relay/resources/limits/memory",
    "tls: {source: magic}": "/tls/source",
    "auth: {keys: {a: {sha256: secret}}}": "/auth/keys/a/sha256",
    "networkPolicy: {metricsFrom: [{}]}": "/networkPolicy/metricsFrom/0",
    "tracing: {sampling: 2}": "/tracing/sampling",
}


@pytest.mark.parametrize("values", BY_SENTENCE)
def test_what_cannot_work_is_refused_by_a_sentence(values: str, render: Renderer) -> None:
    with pytest.raises(Refused) as refused:
        render(values=_read(values))
    assert BY_SENTENCE[values] in str(refused.value)


@pytest.mark.parametrize("values", BY_SCHEMA)
def test_what_is_misspelt_or_of_a_wrong_kind_is_refused_by_the_schema(values: str, render: Renderer) -> None:
    with pytest.raises(Refused, match="meet the specifications of the schema") as refused:
        render(values=_read(values))
    assert BY_SCHEMA[values] in str(refused.value)


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
        render(values=_read(values), kube_version=kube_version)
    assert sentence in str(refused.value)


def test_a_cluster_that_is_too_old_for_sidecars_is_refused(render: Renderer) -> None:
    with pytest.raises(Refused, match="incompatible with Kubernetes"):
        render(kube_version="1.28.0")


def _read(values: str) -> Mapping[str, Any]:
    read: Mapping[str, Any] = yaml.safe_load(values)
    return read
