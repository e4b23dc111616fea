"""What an API server says of itself: its version, its groups, their resources."""

from __future__ import annotations

from tests.lab.kube_store import CLUSTER_WIDE, KINDS, Object

GIT_VERSION = "v1.36.0"
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def discovery(path: str) -> Object | None:
    """The answer at that path; None where it is about objects."""
    groups: dict[str, list[Object]] = {}
    for group_version in KINDS:
        if "/" in group_version:
            group, version = group_version.split("/")
            groups.setdefault(group, []).append({"groupVersion": group_version, "version": version})
    match path.strip("/").split("/"):
        case ["version"]:
            _, minor, _ = GIT_VERSION.split(".")
            return {"major": "1", "minor": minor, "gitVersion": GIT_VERSION}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            listed = [{"name": name, "versions": all_, "preferredVersion": all_[0]} for name, all_ in groups.items()]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        case ["api", "v1"]:
            return _resources("v1")
        case ["apis", group, version] if f"{group}/{version}" in KINDS:
            return _resources(f"{group}/{version}")
    return None


def _resources(group_version: str) -> Object:
    resources = [
        {
            "name": name,
            "singularName": kind.lower(),
            "namespaced": name not in CLUSTER_WIDE,
            "kind": kind,
            "verbs": _VERBS,
        }
        for name, kind in KINDS[group_version].items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}
