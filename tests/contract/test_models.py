"""What must hold for every model there is, whoever wrote it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import chain, combinations
from pathlib import Path

import pytest
from tests.contract.payload_examples import examples, same
from tests.unit.stage.one_process import context

from omni.common.v1.tensor_pb2 import BlobChunk
from omni_common.payload import PayloadCodec
from omni_common.pipeline import PipelineConfig, load_pipeline
from omni_common.request import GenerationParams, Modality
from omni_common.transfer import TensorReceiver, TensorSender
from omni_stage.models import families, load_family, load_pipeline_config
from omni_stage.program import StageProgram

NAMES = sorted(families())

# Only `components/` may compute with these; everything else of a model is read by processes that lack them.
TENSOR_LIBRARIES = {"torch", "transformers", "safetensors", "onnx", "onnxruntime", "ctranslate2", "faster_whisper"}
LAYOUT = {"config", "stages", "routing", "request_builders", "payload_types", "callbacks"}


def folder(name: str) -> Path:
    spec = find_spec(families()[name])
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def imports(file: Path) -> Iterator[str]:
    """The top-level names that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def output_sets(pipeline: PipelineConfig) -> list[frozenset[Modality]]:
    """Everything that a request may ask for."""
    known = sorted(pipeline.output_modalities)
    return [frozenset(some) for some in chain.from_iterable(combinations(known, n + 1) for n in range(len(known)))]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_s_folder_has_the_files_that_every_model_has(name: str) -> None:
    assert {file.stem for file in folder(name).glob("*.py")} >= LAYOUT
    assert (folder(name) / "components" / "__init__.py").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_only_components_import_a_tensor_library(name: str) -> None:
    strays = {file.name: TENSOR_LIBRARIES & set(imports(file)) for file in folder(name).glob("*.py")}

    assert not {file: libraries for file, libraries in strays.items() if libraries}


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_is_read_without_a_tensor_library(name: str) -> None:
    program = (
        "import json, sys; from omni_stage.models import load_pipeline_config;"
        f"load_pipeline_config({name!r}); print(json.dumps(sorted(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=50)

    assert not (TENSOR_LIBRARIES | {"numpy"}) & set(json.loads(answer.stdout))


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_survives_its_file(name: str, tmp_path: Path) -> None:
    pipeline = load_pipeline_config(name)
    file = tmp_path / "pipeline.json"
    file.write_text(pipeline.model_dump_json())

    assert load_pipeline(file) == pipeline


@pytest.mark.parametrize("name", NAMES)
def test_the_family_builds_exactly_the_stages_of_its_graph(name: str) -> None:
    family = load_family(name)

    assert family.pipeline == load_pipeline_config(name)
    assert list(family.factories) == [stage.name for stage in family.pipeline.stages]


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_says_which_stages_can_be_spread_over_several_gpus(name: str) -> None:
    family = load_family(name)

    assert set(family.followers) == {stage.name for stage in family.pipeline.stages if stage.tensor_parallel}


@pytest.mark.parametrize("name", NAMES)
def test_every_output_modality_has_a_terminal_stage_that_its_requests_visit(name: str) -> None:
    pipeline = load_pipeline_config(name)

    always = pipeline.output_modalities & {Modality.TEXT}  # speech is made from it, where there is any
    for asked in output_sets(pipeline):
        terminals = pipeline.terminals(asked)
        assert {pipeline.stage(stage).terminal for stage in terminals} == asked | always
        assert terminals <= pipeline.visited(asked)


@pytest.mark.parametrize("name", NAMES)
def test_whatever_a_request_asks_for_its_stages_hang_together(name: str) -> None:
    """Every visited stage is fed by a visited one, and leads on to one unless it is terminal."""
    pipeline = load_pipeline_config(name)
    edges = {stage.name: {*stage.to, *stage.stream_to} for stage in pipeline.stages}
    for asked in output_sets(pipeline):
        visited = pipeline.visited(asked)
        for stage in visited:
            assert stage == pipeline.entry or any(stage in edges[source] for source in visited)
            assert pipeline.stage(stage).terminal is not None or edges[stage] & visited


@pytest.mark.parametrize("name", NAMES)
def test_the_default_voice_is_a_voice(name: str) -> None:
    pipeline = load_pipeline_config(name)

    assert (pipeline.default_voice in pipeline.voices) if pipeline.voices else not pipeline.default_voice


@pytest.mark.parametrize("name", NAMES)
def test_every_payload_type_crosses_an_edge_whole(name: str) -> None:
    codec = PayloadCodec(load_family(name).payloads)
    sender = TensorSender()

    for kind in load_family(name).payloads:
        for value in examples(kind):
            sent = sender.encode(codec, value, "request")
            receiver = TensorReceiver(None, 1 << 24, lambda _: None)
            for blob in sent.blobs:
                data = bytes(blob.data)
                receiver.add(BlobChunk(blob=blob.id, request_id="request", total_length=len(data), data=data))
            assert same(receiver.decode(codec, sent.payload), value)


@pytest.fixture(scope="module")
def echo() -> Mapping[str, StageProgram]:
    """The stages of the one family that needs no weights; the schedulers are not started."""
    family = load_family("echo")
    return {stage.name: family.factories[stage.name](context(family, stage, None)) for stage in family.pipeline.stages}


def test_hooks_stay_within_the_graph(echo: Mapping[str, StageProgram]) -> None:
    pipeline = load_pipeline_config("echo")
    for stage in pipeline.stages:
        program = echo[stage.name]
        assert set(program.project) <= set(stage.to)
        assert (program.merge is not None) == (program.needs is not None) == bool(stage.wait_for)
        for asked in output_sets(pipeline):
            if program.stream_to is not None:
                streams = program.stream_to(GenerationParams(modalities=asked))
                assert set(streams) == set(stage.stream_to) & pipeline.visited(asked)


def test_an_unknown_family_is_told_which_there_are() -> None:
    with pytest.raises(KeyError, match=r"there is no model family .nobody.; there are .*echo.*qwen3-omni"):
        load_family("nobody")
