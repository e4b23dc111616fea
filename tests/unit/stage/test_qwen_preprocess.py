"""Preprocessing without torchvision gives what the official processors give, and refuses what it cannot use."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.unit.stage.media_files import sine, wav_file
from transformers import Qwen2VLImageProcessorPil, WhisperFeatureExtractor

from omni_common.errors import ContextTooLong, InvalidRequest
from omni_common.request import (
    GenerationParams,
    GenerationRequest,
    Media,
    Message,
    Modality,
    Part,
    Role,
    Sampling,
    Text,
)
from omni_stage.components.tensors import to_torch
from omni_stage.models.qwen3_omni.components.mel import audio_tokens, log_mels
from omni_stage.models.qwen3_omni.components.pixels import PixelRules, patches, size_image
from omni_stage.models.qwen3_omni.components.preprocess import Preprocessor


@pytest.fixture(scope="module")
def preprocessor(tiny_qwen: Path) -> Preprocessor:
    return Preprocessor(tiny_qwen)


def asked(*parts: Part, params: GenerationParams | None = None) -> GenerationRequest:
    return GenerationRequest("qwen3-omni", (Message(Role.USER, parts),), params or GenerationParams())


def png(width: int, height: int) -> bytes:
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([127 + 100 * np.sin(columns / 17), 127 + 100 * np.cos(rows / 23), (rows + columns) % 255], -1)
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("seconds", [(0.02,), (1.0,), (2.3, 0.7, 1.5001), (4.0, 4.0)], ids=str)
def test_spectrograms_are_the_official_ones(seconds: Sequence[float], tiny_qwen: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(int(16_000 * s), generator=generator) * 0.1 for s in seconds]
    extractor: Any = WhisperFeatureExtractor.from_pretrained(tiny_qwen)
    theirs = extractor(
        [c.numpy() for c in clips],
        sampling_rate=16_000,
        padding=True,
        truncation=False,
        return_attention_mask=True,
        return_tensors="pt",
    )
    for mine, features, mask in zip(log_mels(clips), theirs["input_features"], theirs["attention_mask"], strict=True):
        torch.testing.assert_close(mine, features[:, mask.bool()], atol=2e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 7, 8, 99, 100, 101, 230, 1000])
def test_audio_positions_are_what_three_halvings_leave_of_each_chunk(frames: int) -> None:
    chunks = [100] * (frames // 100) + ([frames % 100] if frames % 100 else [])
    for _ in range(3):
        chunks = [-(-chunk // 2) for chunk in chunks]
    assert audio_tokens(frames) == sum(chunks)


@pytest.mark.parametrize(("width", "height"), [(96, 64), (417, 300), (40, 700), (20, 20)])
def test_pictures_are_sized_and_cut_as_officially(width: int, height: int, tiny_qwen: Path) -> None:
    rules = PixelRules.of(tiny_qwen)
    pixels = np.array(Image.open(io.BytesIO(png(width, height))))
    processor: Any = Qwen2VLImageProcessorPil.from_pretrained(tiny_qwen)
    theirs = processor(images=[pixels], return_tensors="pt")
    film = size_image(torch.from_numpy(pixels), rules, "")
    assert list(rules.grid(film)) == theirs["image_grid_thw"][0].tolist()
    difference = (patches(film, rules) - theirs["pixel_values"]).abs()
    if film.shape[2:] == (height, width):
        assert difference.max() < 1e-6
    else:
        assert difference.mean() < 0.005  # Pillow's resampling differs a little from torch's


def test_a_request_becomes_ids_pictures_sounds_and_counts(preprocessor: Preprocessor) -> None:
    made = preprocessor.prepare(
        asked(
            Media(Modality.IMAGE, png(96, 64)),
            Media(Modality.AUDIO, wav_file(sine(1.0, 16_000), 16_000)),
            Text("What?"),
            params=GenerationParams(modalities=frozenset({Modality.TEXT, Modality.AUDIO})),
        )
    )
    layout, usage = made.prompt.layout, made.prompt.usage
    assert made.prompt.speech
    assert made.images is not None
    assert [t.shape for t in made.images.images] == [(1, 3, 64, 96)]
    assert made.audios is not None
    assert [t.shape for t in made.audios.mels] == [(128, 100)]
    assert layout.audio_frames == (100,)
    assert layout.image_grid is not None
    assert to_torch(layout.image_grid).tolist() == [[1, 4, 6]]
    assert (usage.prompt_image_tokens, usage.prompt_audio_tokens) == (6, 13)
    assert usage.prompt_tokens == layout.ids.shape[0] > 6 + 13


def test_text_alone_needs_no_encoder(preprocessor: Preprocessor) -> None:
    made = preprocessor.prepare(asked(Text("Hello")))
    assert (made.images, made.audios, made.prompt.speech) == (None, None, False)


def test_a_prompt_over_the_context_is_refused_with_its_length(preprocessor: Preprocessor) -> None:
    with pytest.raises(ContextTooLong, match="context holds 4096"):
        preprocessor.prepare(asked(Text("word salad " * 5000)))


@pytest.mark.parametrize(
    ("part", "why"),
    [
        pytest.param(Media(Modality.IMAGE, b"GIF89a", "the.part"), "could not be decoded", id="a broken picture"),
        pytest.param(Media(Modality.AUDIO, wav_file(sine(0.01, 16_000), 16_000), "the.part"), "200", id="a click"),
        pytest.param(Media(Modality.IMAGE, png(2000, 8), "the.part"), "too narrow", id="a thread"),
    ],
)
def test_media_that_cannot_be_used_are_refused_by_name(part: Media, why: str, preprocessor: Preprocessor) -> None:
    with pytest.raises(InvalidRequest, match=why) as refused:
        preprocessor.prepare(asked(part))
    assert refused.value.param == "the.part"


def test_an_unknown_voice_is_refused_before_anything_is_computed(preprocessor: Preprocessor) -> None:
    params = GenerationParams(modalities=frozenset({Modality.TEXT, Modality.AUDIO}), voice="alloy")
    with pytest.raises(InvalidRequest, match="aiden, chelsie, ethan") as refused:
        preprocessor.prepare(asked(Text("Hello"), params=params))
    assert refused.value.param == "audio.voice"


def test_a_voice_may_be_written_in_capitals(preprocessor: Preprocessor) -> None:
    params = GenerationParams(modalities=frozenset({Modality.TEXT, Modality.AUDIO}), voice="Chelsie")
    assert preprocessor.prepare(asked(Text("Hello"), params=params)).prompt.speech


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"sampling": Sampling(temperature=float("nan"))}, "temperature"),
        ({"sampling": Sampling(repetition_penalty=1e-40)}, "repetition_penalty"),
        ({"sampling": Sampling(max_tokens=0)}, "max_tokens"),
        ({"stage_sampling": {"talker": Sampling(top_p=-1.0)}}, "stage_sampling.talker.top_p"),
    ],
)
def test_settings_that_would_spoil_a_batch_are_refused(
    settings: dict[str, Any], param: str, preprocessor: Preprocessor
) -> None:
    with pytest.raises(InvalidRequest, match="must be from") as refused:
        preprocessor.prepare(asked(Text("Hello"), params=GenerationParams(**settings)))
    assert refused.value.param == param
