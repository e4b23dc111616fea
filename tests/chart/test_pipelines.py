"""The pipeline files that the chart makes, and the pods that it makes of them, where values differ from the models' own
descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from tests.chart.conftest import Renderer
from tests.chart.documents import Pod, Render, environment
from tests.chart.edges import allowed, pipelines, wanted

from omni_common.pipeline import PipelineConfig
from omni_stage.models import load_pipeline_config

OWN = """
pipelines:
  qwen3-omni: {enabled: false}
  mine:
    family: mine
    image: {repository: team/mine, tag: "3"}
    weights: {source: none}
    graph:
      name: of-no-meaning
      entry: hear
      input_modalities: [text]
      output_modalities: [text]
      stages: [{name: hear, stream_to: [say]}, {name: say, terminal: text}]
"""


def test_without_values_pipelines_are_as_the_models_describe_them(render: Renderer) -> None:
    assert pipelines(render())["qwen3-omni"] == load_pipeline_config("qwen3-omni")


def test_a_stage_moves_to_a_pod_of_its_own_with_its_edges(render: Renderer) -> None:
    moved = render(values=_qwen(stages={"code2wav": {"placementGroup": "vocoder", "maxRunning": 5, "credits": 7}}))
    stage = pipelines(moved)["qwen3-omni"].stage("code2wav")
    assert (stage.placement_group, stage.max_running, stage.credits) == ("vocoder", 5, 7)
    assert _stages(_pod(moved, "omni-qwen3-omni-vocoder")) == ["code2wav"]
    assert allowed(moved) == wanted(moved)


def test_stages_of_a_process_share_a_container_and_its_values(render: Renderer) -> None:
    together = render(
        values=_qwen(
            stages={"thinker": {"process": "ar", "threads": 3}, "decode": {"process": "ar", "env": [{"name": "A"}]}}
        )
    )
    container = next(one for one in _pod(together, "omni-qwen3-omni-thinker").containers if one["name"] == "ar")
    told = environment(container)
    assert told["OMNI_STAGE_STAGE"] == "thinker,decode"
    assert told["OMNI_STAGE_THREADS"] == told["OMP_NUM_THREADS"] == "3"
    assert {"name": "A"} in container["env"]
    assert [one["name"] for one in container["ports"]][:2] == ["grpc-4", "grpc-4-1"]
    assert allowed(together) == wanted(together)


def test_a_family_of_ones_own_has_its_graph_and_its_image(render: Renderer) -> None:
    own = render(values=yaml.safe_load(OWN))
    assert pipelines(own)["mine"].name == "mine"
    assert [_stages(_pod(own, f"omni-mine-{stage}")) for stage in ("hear", "say")] == [["hear"], ["say"]]
    assert {one["image"] for pod in own.stages() for one in pod.containers} == {"team/mine:3"}
    assert not [step for pod in own.stages() for step in pod.steps], "it has no weights to fetch"


def test_a_family_twice_has_pods_of_its_own_each(render: Renderer) -> None:
    twice = render(values={"pipelines": {"large": {"family": "qwen3-omni"}}})
    assert {name: one.entry for name, one in pipelines(twice).items()} == {
        "large": "preprocess",
        "qwen3-omni": "preprocess",
    }
    assert allowed(twice) == wanted(twice), "neither may reach the other's"


def test_voices_are_those_of_the_weights(render: Renderer) -> None:
    packaged = _piper(render, {"source": "packaged"})
    assert packaged.default_voice == "en_US-joe-medium"
    assert _piper(render, {"source": "volume", "volume": {"claim": "voices"}}).voices == ()
    named = _piper(render, {"source": "volume", "volume": {"claim": "voices"}}, voices=["a", "b"], defaultVoice="b")
    assert (named.voices, named.default_voice) == (("a", "b"), "b")


def test_the_relays_limit_includes_its_arena(render: Renderer) -> None:
    values = _qwen(placementGroups={"talker": {"relay": {"arenaSize": "1Gi"}}})
    relay = next(one for one in _pod(render(values=values), "omni-qwen3-omni-talker").sidecars)
    assert relay["resources"]["limits"]["memory"] == "1408Mi"
    assert relay["resources"]["requests"]["memory"] == "1120Mi"
    assert environment(relay)["OMNI_RELAY_ARENA_SIZE"] == str(1 << 30)


def _qwen(**values: Any) -> dict[str, object]:
    return {"pipelines": {"qwen3-omni": values}}


def _piper(render: Renderer, weights: Mapping[str, Any], **values: Any) -> PipelineConfig:
    served = render(values={"pipelines": {"piper": {"enabled": True, "weights": dict(weights), **values}}})
    return pipelines(served)["piper"]


def _pod(render: Render, name: str) -> Pod:
    return next(pod for pod in render.stages() if pod.owner["metadata"]["name"] == name)


def _stages(pod: Pod) -> list[str]:
    return [stage for one in pod.containers for stage in environment(one)["OMNI_STAGE_STAGE"].split(",")]
