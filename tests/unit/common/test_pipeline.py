"""Pipelines as data: which graphs hold, and what is read from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omni_common.pipeline import PipelineConfig, StageConfig, load_pipeline, processes_of, replica_names
from omni_common.request import Modality, Task

TEXT, AUDIO = Modality.TEXT, Modality.AUDIO


def _stage(name: str, **fields: Any) -> StageConfig:
    return StageConfig(name=name, **fields)


# entry → a → join → text, entry → join, join ⇢ voice (only for audio)
DIAMOND = (
    _stage("entry", to=("a", "join")),
    _stage("a", to=("join",)),
    _stage("join", to=("text",), stream_to=("voice",), wait_for=("entry", "a")),
    _stage("text", terminal=TEXT),
    _stage("voice", terminal=AUDIO, needs=AUDIO),
)


def _pipeline(*stages: StageConfig, **fields: Any) -> PipelineConfig:
    whole: dict[str, Any] = {
        "name": "test-model",
        "entry": "entry",
        "stages": stages,
        "input_modalities": frozenset({TEXT}),
        "output_modalities": frozenset({TEXT, AUDIO}),
    }
    return PipelineConfig(**(whole | fields))


def _change(name: str, **fields: Any) -> tuple[StageConfig, ...]:
    return tuple(
        StageConfig.model_validate(stage.model_dump() | fields) if stage.name == name else stage for stage in DIAMOND
    )


def test_a_pipeline_survives_its_file(tmp_path: Path) -> None:
    pipeline = _pipeline(*DIAMOND, voices=("low", "high"), default_voice="low")
    path = tmp_path / "pipeline.json"
    path.write_text(pipeline.model_dump_json())
    assert load_pipeline(path) == pipeline


def test_stages_are_found_by_name_and_a_wrong_name_is_told_which_there_are() -> None:
    pipeline = _pipeline(*DIAMOND)
    assert pipeline.stage("join") is DIAMOND[2]
    with pytest.raises(KeyError, match=r"no stage 'vocoder'; it has entry, a, join, text, voice"):
        pipeline.stage("vocoder")


def test_text_is_always_produced_and_audio_when_asked_for() -> None:
    pipeline = _pipeline(*DIAMOND)
    assert pipeline.terminals(frozenset({TEXT})) == {"text"}
    assert pipeline.terminals(frozenset({AUDIO})) == {"text", "voice"}


def test_stages_that_only_audio_needs_are_not_visited_for_text() -> None:
    pipeline = _pipeline(*DIAMOND)
    assert pipeline.visited(frozenset({TEXT})) == {"entry", "a", "join", "text"}
    assert pipeline.visited(frozenset({TEXT, AUDIO})) == {stage.name for stage in DIAMOND}


@pytest.mark.parametrize(
    ("stages", "why"),
    [
        pytest.param((*DIAMOND, _stage("text", terminal=TEXT)), "two stages", id="a name twice"),
        pytest.param(DIAMOND[1:], "entry stage 'entry' is not among", id="no entry"),
        pytest.param(_change("a", to=("nowhere",)), "'nowhere', which is not a stage", id="payload to nowhere"),
        pytest.param(_change("join", stream_to=("x",)), "'x', which is not a stage", id="stream to nowhere"),
        pytest.param(_change("join", wait_for=("x",)), "'x', which is not a stage", id="waits for nobody"),
        pytest.param(_change("join", wait_for=("entry", "text")), "'text', which sends no payload", id="waits in vain"),
        pytest.param(_change("voice", terminal=None), "'voice' must either lead", id="a dead end"),
        pytest.param(_change("a", terminal=TEXT), "'a' must either lead", id="terminal that leads on"),
        pytest.param((*DIAMOND, _stage("alone", terminal=TEXT)), "no path leads to \\['alone'\\]", id="unreachable"),
        pytest.param(_change("a", to=("join", "entry")), "form a cycle", id="cycle of payloads"),
        pytest.param(_change("a", stream_to=("a",)), "a → a form a cycle", id="stream to itself"),
    ],
)
def test_a_graph_that_does_not_hold_is_refused(stages: tuple[StageConfig, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        _pipeline(*stages)


def _together(process: str, **fields: Any) -> tuple[StageConfig, ...]:
    """With `a` and `join` in one process; `fields` are of `a`."""
    shared = {"a": {"process": process, **fields}, "join": {"process": process}}
    return tuple(StageConfig.model_validate(s.model_dump() | shared.get(s.name, {})) for s in DIAMOND)


def test_stages_may_share_a_process() -> None:
    processes = processes_of(_pipeline(*_together("middle")).stages)
    assert {name: [stage.name for stage in stages] for name, stages in processes.items()} == {
        "entry": ["entry"],
        "middle": ["a", "join"],
        "text": ["text"],
        "voice": ["voice"],
    }
    assert _pipeline(*_together("a")).stage("join").process_name == "a"


@pytest.mark.parametrize(
    ("stages", "why"),
    [
        (_together("m", placement_group="pod"), "'a' and 'join' share the process 'm', but not a placement group"),
        (_together("m", replicas=2), "'a' and 'join' share the process 'm', but have 2 and 1 replicas"),
        (_together("text"), "the process 'text' has the name of a stage outside it"),
    ],
)
def test_stages_that_cannot_share_a_process_are_refused(stages: tuple[StageConfig, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        _pipeline(*stages)


def test_replicas_of_one_process_have_names_of_their_own() -> None:
    assert replica_names("echo-say-0", ["say"]) == ("echo-say-0",)
    assert replica_names("echo-both-0", ["say", "beep"]) == ("echo-both-0.say", "echo-both-0.beep")


@pytest.mark.parametrize(
    "fields",
    [{"name": "Camel"}, {"name": ""}, {"stages": ()}, {"colour": "blue"}, {"voices": ("low",), "default_voice": "no"}],
)
def test_a_pipeline_with_wrong_fields_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="PipelineConfig"):
        _pipeline(*DIAMOND, **fields)


@pytest.mark.parametrize(
    "fields",
    [{"name": "A"}, {"name": "a-b"}, {"credits": 0}, {"max_running": 0}, {"replicas": -1}, {"tp_size": 0}, {"gpus": 1}],
)
def test_a_stage_with_wrong_fields_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="StageConfig"):
        StageConfig(**({"name": "a", "terminal": TEXT} | fields))


@pytest.mark.parametrize(
    ("task", "fields", "why"),
    [
        (Task.SPEECH, {"output_modalities": {TEXT}}, "cannot do speech without producing audio"),
        (Task.TRANSCRIPTION, {"input_modalities": {TEXT}}, "cannot do transcription without taking audio"),
        (Task.TRANSLATION, {"input_modalities": {TEXT}}, "cannot do translation without taking audio"),
    ],
)
def test_a_task_that_its_modalities_do_not_allow_is_refused(task: Task, fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        _pipeline(*DIAMOND, tasks={task}, **fields)
    allowed = _pipeline(*DIAMOND, tasks={task}, input_modalities={TEXT, AUDIO}, output_modalities={TEXT, AUDIO})
    assert allowed.tasks == {task}


def test_a_file_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="Invalid JSON"):
        load_pipeline(path)
