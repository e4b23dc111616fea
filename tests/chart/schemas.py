"""What the API servers of the oldest and the newest Kubernetes would say to a document, strictly: unknown fields too.

The schemas are those that the package `kubernetes-validate` carries; its own function reads two megabytes for each
document and only warns of a kind that it does not know, so here they are read once, and such a kind is an error unless
it is one of the custom resources below. Those are held to models made from their CRDs where a package has them, else
to the subset that the chart may use (`custom.json`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus
from pydantic import BaseModel, ValidationError
from referencing import Registry, Resource
from tests.chart.documents import Document

MODELS: dict[tuple[str, str], type[BaseModel]] = {
    ("monitoring.coreos.com/v1", "PodMonitor"): prometheus.PodMonitor,
    ("monitoring.coreos.com/v1", "ServiceMonitor"): prometheus.ServiceMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): prometheus.PrometheusRule,
    ("keda.sh/v1alpha1", "ScaledObject"): keda.ScaledObject,
    ("keda.sh/v1alpha1", "TriggerAuthentication"): keda.TriggerAuthentication,
}
# Fields that are newer than the models: KEDA 2.17's.
NEWER = {("ScaledObject", "$.spec.fallback.behavior")}
_SUBSETS = json.loads(Path(__file__).with_name("custom.json").read_text())


def complaints(document: Document, kube_version: str) -> list[str]:
    """A sentence for each thing that is wrong with it; none when it is fine."""
    return list(_complaints(json.dumps(document, sort_keys=True, default=str), kube_version))


@cache  # the same document is in many renders
def _complaints(text: str, kube_version: str) -> tuple[str, ...]:
    document = json.loads(text)
    which = f"{document['apiVersion']} {document['kind']} '{document['metadata']['name']}'"
    return tuple(f"{which}: {what}" for what in _checker(document, kube_version)(document))


def _checker(document: Document, kube_version: str) -> Callable[[Any], Iterator[str]]:
    key = document["apiVersion"], document["kind"]
    if model := MODELS.get(key):
        return lambda content: _by_model(model, content)
    if subset := _SUBSETS.get(" ".join(key)):
        return lambda content: _by_schema(jsonschema.Draft202012Validator(subset), content)
    validator = _validator(f"v{kube_version}-local-strict", *key)
    if validator is None:
        return lambda _: iter([f"Kubernetes {kube_version} does not know this kind"])
    return lambda content: _by_schema(validator, content)


def _by_model(model: type[BaseModel], content: dict[str, Any]) -> Iterator[str]:
    try:
        known = model.model_validate(content).model_dump(by_alias=True, exclude_unset=True, mode="json")
    except ValidationError as error:
        yield from (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return
    # A model drops what it does not know without a word.
    for path in _dropped(content, known, "$"):
        if (content["kind"], path) not in NEWER:
            yield f"{path} is not a field"


def _dropped(given: object, known: object, path: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key in known:
                yield from _dropped(value, known[key], f"{path}.{key}")
            elif value is not None:
                yield f"{path}.{key}"
    elif isinstance(given, list) and isinstance(known, list):
        for place, (left, right) in enumerate(zip(given, known, strict=True)):
            yield from _dropped(left, right, f"{path}[{place}]")


def _by_schema(validator: jsonschema.Draft202012Validator, content: object) -> Iterator[str]:
    for error in validator.iter_errors(content):
        yield f"{error.json_path}: {error.message[:300]}"


@cache
def _validator(folder: str, api_version: str, kind: str) -> jsonschema.Draft202012Validator | None:
    # networking.k8s.io/v1 is networking-v1 in the files' names.
    group = re.sub(r"^([^./]*)(?:[.][^/]*)?/", r"\1-", api_version)
    schema = _read(folder, f"{kind.lower()}-{group}.json")
    if schema is None:
        return None
    registry = Resource.from_contents(schema) @ (_definitions(folder) @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


@cache
def _definitions(folder: str) -> Resource[Any]:
    return Resource.from_contents(_read(folder, "_definitions.json"))


def _read(folder: str, name: str) -> Any:
    file = resources.files("kubernetes_validate") / "kubernetes-json-schema" / folder / name
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return None
