"""A stage's modules are those that from_pretrained makes, read from its own part of the checkpoint only."""

from __future__ import annotations

import json
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as modeling

from omni_stage.components.checkpoint import Checkpoint, CheckpointError
from omni_stage.models import load_pipeline_config
from omni_stage.models.qwen3_omni.components.weights import read_config

# Prefix in the checkpoint, where its config is, its class, where `from_pretrained` puts it.
PARTS = [
    ("thinker.model.", "thinker_config.text_config", modeling.Qwen3OmniMoeThinkerTextModel, "thinker.model"),
    ("thinker.visual.", "thinker_config.vision_config", modeling.Qwen3OmniMoeVisionEncoder, "thinker.visual"),
    ("thinker.audio_tower.", "thinker_config.audio_config", modeling.Qwen3OmniMoeAudioEncoder, "thinker.audio_tower"),
    ("talker.model.", "talker_config.text_config", modeling.Qwen3OmniMoeTalkerModel, "talker.model"),
    ("code2wav.", "code2wav_config", modeling.Qwen3OmniMoeCode2Wav, "code2wav"),
]


@pytest.fixture(scope="module")
def whole(tiny_qwen: Path) -> Any:
    return Qwen3OmniMoeForConditionalGeneration.from_pretrained(tiny_qwen, dtype=torch.float32)


@pytest.mark.parametrize(("prefix", "config_at", "kind", "part_at"), PARTS, ids=[p[0] for p in PARTS])
def test_a_part_has_the_weights_and_the_buffers_of_the_whole(
    prefix: str, config_at: str, kind: Any, part_at: str, tiny_qwen: Path, whole: Any
) -> None:
    config = attrgetter(config_at)(Qwen3OmniMoeConfig.from_pretrained(tiny_qwen))
    checkpoint = Checkpoint(tiny_qwen, (prefix,))
    assert all(name.startswith(prefix) for name in checkpoint.tensors)
    mine = checkpoint.module(lambda: kind._from_config(config), prefix)
    theirs = attrgetter(part_at)(whole)
    assert_equal(dict(mine.named_parameters()), dict(theirs.named_parameters()))
    assert_equal(dict(mine.named_buffers()), dict(theirs.named_buffers()))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 64),
        ("model.safetensors.index.json", b"{}"),
        ("model.safetensors.index.json", b"[1"),
        ("model.safetensors.index.json", b'{"weight_map": 5}'),
    ],
)
def test_a_damaged_file_is_named_in_a_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/{name} is damaged, or is something else: .*\.$"):
        Checkpoint(tmp_path, ("a.",))


def test_weights_that_were_cut_short_and_shards_that_are_not_there_are_named(tiny_qwen: Path, tmp_path: Path) -> None:
    whole = (tiny_qwen / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"^{tmp_path}/model\.safetensors is damaged, or is something else: "):
        Checkpoint(tmp_path, ("thinker.",))
    index = {"weight_map": {"thinker.a": "gone.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=rf"^There is no file {tmp_path}/gone\.safetensors\.$"):
        Checkpoint(tmp_path, ("thinker.",))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{}", r"is not of a Qwen3-Omni: its model_type is None, not qwen3_omni_moe\.$"),
        ("[]", "is not of a Qwen3-Omni"),
        ('{"model_type": "llama"}', "is not of a Qwen3-Omni: its model_type is llama, "),
        ("{", "is damaged, or is something else: "),
    ],
)
def test_a_config_of_something_else_is_refused_before_anything_is_loaded(
    content: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/config\.json {why}"):
        load_pipeline_config("qwen3-omni", tmp_path)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/config\.json {why}"):
        read_config(tmp_path)


def assert_equal(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


def test_shards_hold_what_one_file_holds_and_progress_counts_it(tiny_qwen: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_qwen / "model.safetensors")
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: tensors[name] for name in held}, tmp_path / file)
    weight_map = {name: file for file, held in shards.items() for name in held}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    seen: list[tuple[int, int]] = []
    sharded = Checkpoint(tmp_path, ("talker.",), progress=lambda done, total: seen.append((done, total)))
    assert_equal(sharded.tensors, Checkpoint(tiny_qwen, ("talker.",)).tensors)
    count = sum(name.startswith("talker.") for name in names)
    assert seen == [(n, count) for n in range(1, count + 1)]


def test_floating_point_tensors_come_in_the_type_asked_for(tiny_qwen: Path) -> None:
    checkpoint = Checkpoint(tiny_qwen, ("code2wav.",), dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {torch.bfloat16}


def test_a_missing_tensor_is_said_by_name(tiny_qwen: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_qwen / "model.safetensors")
    del tensors["code2wav.code_embedding.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    config = Qwen3OmniMoeConfig.from_pretrained(tiny_qwen).code2wav_config
    with pytest.raises(CheckpointError, match=r"code_embedding\.weight"):
        Checkpoint(tmp_path, ("code2wav.",)).module(
            lambda: modeling.Qwen3OmniMoeCode2Wav._from_config(config), "code2wav."
        )


def test_a_folder_without_weights_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor its index"):
        Checkpoint(tmp_path, ("talker.",))
