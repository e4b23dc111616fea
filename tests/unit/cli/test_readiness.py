"""What a person sees while the mesh comes up."""

from __future__ import annotations

from omni_cli.launcher.readiness import Progress, changes, parse_progress


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
    assert [str(progress) for progress in parse_progress(body)] == ["  a-0                  warming up"]


def test_a_body_without_pipelines_tells_nothing() -> None:
    assert list(parse_progress({"ready": False})) == []
