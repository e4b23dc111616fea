"""Values that make sense together, thrown together: each draw takes one of every list."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from typing import Any

Values = dict[str, Any]


def _of_qwen(**parts: Any) -> Values:
    return {"pipelines": {"qwen3-omni": parts}}


CHOICES: Sequence[Sequence[Values]] = (
    # Who has which certificate.
    (
        {},
        {"tls": {"source": "none"}},
        {"tls": {"source": "certManager"}},
        {"tls": {"source": "certManager", "certManager": {"issuer": {"name": "mesh"}}}},
        {"tls": {"https": {"source": "none"}}},
        {"tls": {"https": {"source": "existingSecret", "existingSecret": "public", "existingSecretCA": "ca.crt"}}},
    ),
    # Who may call.
    (
        {},
        {"auth": {"enabled": True, "existingSecret": "callers"}, "tests": {"apiKeySecret": "caller"}},
        {"auth": {"enabled": True, "keys": {"a": {"sha256": "0" * 64, "requestsPerMinute": 5}}}},
    ),
    # Which pipelines.
    (
        {},
        {"pipelines": {"piper": {"enabled": True}, "whisper": {"enabled": True}}},
        {"pipelines": {"echo": {"enabled": True}}},
        {"pipelines": {"second": {"enabled": True, "family": "qwen3-omni"}}},
    ),
    # Where weights come from.
    (
        {},
        _of_qwen(weights={"source": "hub", "hub": {"id": "a/b", "tokenSecret": "hub"}, "cache": {"create": True}}),
        _of_qwen(weights={"source": "volume", "volume": {"claim": "models"}}),
        _of_qwen(weights={"source": "image", "image": {"reference": "models/qwen:1"}}),
    ),
    # What shares a pod.
    (
        {},
        _of_qwen(stages={"talker": {"placementGroup": "thinker"}}),
        _of_qwen(stages={"code2wav": {"placementGroup": "vocoder"}}),
        _of_qwen(stages={"preprocess": {"placementGroup": "front"}, "decode": {"process": "text"}}),
    ),
    # What computes.
    (
        {},
        _of_qwen(placementGroups={"thinker": {"gpu": {"mode": "dra", "count": 2}, "runtimeClassName": "nvidia"}}),
        {"stageDefaults": {"dtype": "float32", "threads": 2, "settings": {"maxInbound": "1GiB"}}},
    ),
    # How many, and who says so.
    (
        {},
        {"gateway": {"replicas": 3}, "coordinator": {"replicas": 2}},
        {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 2, "targets": {"inFlight": 32}}}},
        _of_qwen(placementGroups={"thinker": {"keda": {"enabled": True}, "autoscaling": {"targets": {"waiting": 2}}}}),
        _of_qwen(placementGroups={"thinker": {"replicas": 0}}),
    ),
    # What is around it.
    (
        {},
        {"networkPolicy": {"gatewayFrom": [{"podSelector": {"matchLabels": {"app": "chat"}}}], "metricsFrom": []}},
        {"tracing": {"enabled": True, "endpoint": "http://collector.tracing:4317"}},
        {"metrics": {"podMonitor": {"enabled": True}}, "gateway": {"service": {"type": "NodePort", "nodePort": 30443}}},
        {"image": {"registry": "registry.example.com/team/", "pullSecrets": ["registry"]}},
    ),
    # What pods are told.
    (
        {},
        {"commonLabels": {"team": "speech"}, "commonAnnotations": {"owner": "speech@example.com"}},
        {"podDefaults": {"priorityClassName": "high", "nodeSelector": {"disk": "fast"}, "podLabels": {"a": "b"}}},
        {"fullnameOverride": "speech", "logLevel": "DEBUG", "requestTimeout": "90s"},
        {"gateway": {"settings": {"maxBody": "64MiB", "outputCredits": 32}, "env": [{"name": "TZ", "value": "UTC"}]}},
    ),
)


def draw(seed: int) -> Values:
    """One of them, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311  # nothing secret
    values: Values = {}
    for choice in CHOICES:
        _merge(values, copy.deepcopy(chance.choice(choice)))
    return values


def _merge(into: Values, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
