"""What can be read aloud, and what is refused before anything is computed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from omni_common.errors import OmniError, Reason
from omni_common.request import (
    GenerationParams,
    GenerationRequest,
    Media,
    Message,
    Modality,
    Part,
    Role,
    Sampling,
    Task,
    Text,
)
from omni_stage.components.tensors import to_torch
from omni_stage.models.qwen3_omni.components.preprocess import Preprocessor
from omni_stage.models.qwen3_omni.request_builders import MAX_FRAMES

PARAMS = GenerationParams(modalities=frozenset({Modality.AUDIO}), task=Task.SPEECH)
CONTEXT = 4096  # of the tiny model


@pytest.fixture(scope="module")
def preprocessor(tiny_qwen: Path) -> Preprocessor:
    return Preprocessor(tiny_qwen)


def asked(*parts: Part, params: GenerationParams = PARAMS) -> GenerationRequest:
    return GenerationRequest("qwen3-omni", (Message(Role.USER, parts),), params)


def test_the_script_is_the_text_and_the_end_of_the_turn(preprocessor: Preprocessor, tiny_qwen: Path) -> None:
    made = preprocessor.prepare(asked(Text(" Grüße, 你好 🙂\n", "input")))
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen)
    assert tokenizer.decode(made.prompt.script) == "Grüße, 你好 🙂<|im_end|>"
    assert tokenizer.decode(to_torch(made.prompt.layout.ids)).endswith(
        "\nGrüße, 你好 🙂<|im_end|>\n<|im_start|>assistant\n"
    )
    assert made.prompt.speech
    assert (made.images, made.audios) == (None, None)


def test_a_chat_has_no_script(preprocessor: Preprocessor) -> None:
    params = GenerationParams(modalities=frozenset({Modality.TEXT, Modality.AUDIO}))
    assert preprocessor.prepare(asked(Text("Hello"), params=params)).prompt.script == ()


@pytest.mark.parametrize(
    ("request_", "why", "param"),
    [
        pytest.param(asked(Text("", "input")), "no text", "input", id="nothing"),
        pytest.param(asked(Text(" \n\t\u3000", "input")), "no text", "input", id="blanks"),
        pytest.param(asked(Media(Modality.AUDIO, b"RIFF", "the.part")), "Only text", "the.part", id="sound"),
        pytest.param(asked(Text("Hi"), params=replace(PARAMS, voice="alloy")), "aiden, chelsie", "voice", id="voice"),
        pytest.param(
            asked(Text("Hi"), params=replace(PARAMS, modalities=frozenset({Modality.TEXT}))),
            "must ask for audio",
            "modalities",
            id="no speech",
        ),
        pytest.param(
            asked(Text("Hi"), params=replace(PARAMS, stage_sampling={"talker": Sampling(temperature=9)})),
            "must be from",
            "stage_sampling.talker.temperature",
            id="too hot",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(
    request_: GenerationRequest, why: str, param: str, preprocessor: Preprocessor
) -> None:
    with pytest.raises(OmniError, match=why) as refused:
        preprocessor.prepare(request_)
    assert (refused.value.reason, refused.value.param) == (Reason.INVALID_REQUEST, param)


def test_a_text_is_refused_where_it_leaves_the_context_no_room(preprocessor: Preprocessor) -> None:
    """It stands in the prompt and in the answer."""
    least = preprocessor.prepare(asked(Text("a"))).prompt
    around = least.layout.ids.shape[0] + len(least.script) - 2
    room = (CONTEXT - around) // 2
    whole = preprocessor.prepare(asked(Text(" a" * room))).prompt
    assert whole.layout.ids.shape[0] + len(whole.script) in {CONTEXT - 1, CONTEXT}
    with pytest.raises(OmniError, match=f"context holds {CONTEXT}") as refused:
        preprocessor.prepare(asked(Text(" a" * (room + 1))))
    assert (refused.value.reason, refused.value.param) == (Reason.CONTEXT_TOO_LONG, "input")


def test_a_text_is_refused_that_has_a_token_for_every_frame_there_may_be(tiny_qwen: Path, tmp_path: Path) -> None:
    folder = tmp_path / "roomy"
    shutil.copytree(tiny_qwen, folder)
    config = json.loads((folder / "config.json").read_bytes())
    config["thinker_config"]["text_config"]["max_position_embeddings"] = 4 * MAX_FRAMES
    (folder / "config.json").write_text(json.dumps(config))
    preprocessor = Preprocessor(folder)
    words = len(preprocessor.prepare(asked(Text("a" + " a" * (MAX_FRAMES - 2)))).prompt.script) - 1
    assert words == MAX_FRAMES - 1
    with pytest.raises(OmniError, match=f"fewer than {MAX_FRAMES} can be said") as refused:
        preprocessor.prepare(asked(Text("a" + " a" * (MAX_FRAMES - 1))))
    assert (refused.value.reason, refused.value.param) == (Reason.CONTEXT_TOO_LONG, "input")
