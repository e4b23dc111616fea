"""What a person sees while the mesh comes up."""

from __future__ import annotations

import pytest

from omni_cli.launcher.readiness import Progress, all_ready, changes, parse_progress


def loading(loaded: int) -> Progress:
    return Progress("thinker-0", "loading", loaded, 100)


def test_a_replica_is_news_when_its_phase_changes_and_at_each_quarter_of_its_tensors() -> None:
    seen: dict[str, Progress] = {}
    looks = [Progress("thinker-0", "starting"), *map(loading, (0, 10, 24, 25, 60, 99)), Progress("thinker-0", "ready")]
    shown = [str(news).split(maxsplit=1)[1] for look in looks for news in changes(seen, [look])]
    assert shown == [
        "starting",
        "loading 0 of 100 tensors",
        "loading 25 of 100 tensors",
        "loading 60 of 100 tensors",
        "loading 99 of 100 tensors",
        "ready",
    ]


def test_replicas_are_read_from_the_body_of_readyz() -> None:
    replica = {"replica": "a-0", "phase": "warming_up", "tensors_loaded": 3, "tensors_total": 3}
    body = {"pipelines": [{"name": "p", "ready": False, "stages": [{"stage": "a", "replicas": [replica]}]}]}
    assert [str(progress) for progress in parse_progress(body)] == ["  a-0                          warming up"]


def test_a_body_without_pipelines_tells_nothing() -> None:
    assert list(parse_progress({"ready": False})) == []


@pytest.mark.parametrize(
    ("status", "ready", "wanted", "expected"),
    [
        pytest.param("ready", {"a": True, "b": True}, ("a", "b"), True, id="all are"),
        pytest.param("ready", {"a": True, "b": False}, ("a", "b"), False, id="one is not"),
        pytest.param("ready", {"a": True}, ("a", "b"), False, id="no coordinator has told of one yet"),
        pytest.param("ready", {"a": True, "b": False}, ("a",), True, id="nobody waits for the other"),
        pytest.param("starting", {"a": True}, ("a",), False, id="the gateway itself is not"),
    ],
)
def test_a_mesh_is_ready_when_each_of_its_pipelines_is(
    status: str, ready: dict[str, bool], wanted: tuple[str, ...], expected: bool
) -> None:
    pipelines = [{"name": name, "ready": is_ready, "stages": []} for name, is_ready in ready.items()]
    assert all_ready({"status": status, "pipelines": pipelines}, wanted) is expected


def test_a_body_without_pipelines_is_not_ready() -> None:
    assert not all_ready({}, ["a"])
