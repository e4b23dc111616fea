"""The reference: transformers' own Qwen3-Omni, whole, in one process, with its own `generate`.

It shares nothing with the stages but the checkpoint and the decoded media. Preprocessing is the official one where it
works without torchvision; films, whose official processor does not, are cut into patches by plain loops.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tests.parity.cases import FRAMES, TEXT_TOKENS, Draw
from transformers import (
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    Qwen2VLImageProcessorPil,
    Qwen3OmniMoeForConditionalGeneration,
    WhisperFeatureExtractor,
)
from transformers import logging as transformers_logging

from omni_common.request import Media, Message, Modality, Part, Role, Text
from omni_stage.media import MediaBudget, decode_audio, decode_image, decode_video

_PATCH, _MERGE, _TIME = 16, 2, 2
_PLACEHOLDER = {Modality.IMAGE: "<|image_pad|>", Modality.AUDIO: "<|audio_pad|>", Modality.VIDEO: "<|video_pad|>"}


@dataclass(frozen=True, slots=True)
class Spoken:
    """The generated text tokens, the last one included, and the waveform."""

    tokens: list[int]
    wave: torch.Tensor


class Reference:
    def __init__(self, folder: Path) -> None:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._images: Any = Qwen2VLImageProcessorPil.from_pretrained(folder)
        self._sounds: Any = WhisperFeatureExtractor.from_pretrained(folder)
        self.model: Any = Qwen3OmniMoeForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        # transformers reads this of the talker's config, where it is not (5.17 to 5.23).
        self.model.talker.config.audio_config = self.model.config.thinker_config.audio_config

    def say(self, turn: str, words: str, draw: Draw, speaker: str = "Ethan") -> Spoken:
        """What the whole model says when a user's turn is answered with just these words."""
        script = [*self._tokenizer(words)["input_ids"], self.model.config.im_end_token_id]
        inputs = self.inputs([Message(Role.USER, (Text(turn),))])
        sampled = draw.seed is not None
        with self._seeded(draw.seed or 0):
            sequence, wave = self.model.generate(
                **inputs,
                speaker=speaker,
                thinker_max_new_tokens=len(script),
                thinker_do_sample=False,
                thinker_logits_processor=LogitsProcessorList([_Script(inputs["input_ids"].shape[1], script)]),
                talker_max_new_tokens=FRAMES,
                talker_do_sample=sampled,
            )
        return Spoken(sequence[0, inputs["input_ids"].shape[1] :].tolist(), wave.reshape(-1))

    def generate(self, messages: Sequence[Message], draw: Draw) -> Spoken:
        inputs = self.inputs(messages)
        sampled = draw.seed is not None
        settings: dict[str, Any] = {"thinker_do_sample": sampled, "talker_do_sample": sampled}
        if sampled:
            settings |= {"thinker_temperature": 0.7, "thinker_top_k": 20, "thinker_top_p": 0.8}
        with self._seeded(draw.seed or 0):
            sequence, wave = self.model.generate(
                **inputs, speaker="Ethan", thinker_max_new_tokens=TEXT_TOKENS, talker_max_new_tokens=FRAMES, **settings
            )
        return Spoken(sequence[0, inputs["input_ids"].shape[1] :].tolist(), wave.reshape(-1))

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """Each autoregressive stage's random numbers start at the request's seed."""
        talker = self.model.talker
        generate = type(talker).generate

        def from_seed(*args: Any, **kwargs: Any) -> Any:
            torch.manual_seed(seed)
            return generate(talker, *args, **kwargs)

        talker.generate = from_seed
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Passing `repetition_penalty`")  # as `generate` itself passes it
            torch.manual_seed(seed)
            yield

    def inputs(self, messages: Sequence[Message]) -> dict[str, torch.Tensor]:
        """What the official processor makes of a conversation."""
        parts = [part for message in messages for part in message.parts]
        conversation = [{"role": str(m.role), "content": _content(m)} for m in messages]
        text = self._tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        made: dict[str, torch.Tensor] = {}
        text = self._add_images(text, _of(parts, Modality.IMAGE), made)
        text = self._add_sounds(text, _of(parts, Modality.AUDIO), made)
        text = self._add_films(text, _of(parts, Modality.VIDEO), made)
        ids = self._tokenizer([text], return_tensors="pt")
        return {"input_ids": ids["input_ids"], "attention_mask": ids["attention_mask"], **made}

    def _add_images(self, text: str, images: list[Media], made: dict[str, torch.Tensor]) -> str:
        if not images:
            return text
        decoded = [_array(decode_image(i.data, MediaBudget())) for i in images]
        made |= dict(self._images(images=decoded, return_tensors="pt"))
        return _expand(text, Modality.IMAGE, [int(g.prod()) // _MERGE**2 for g in made["image_grid_thw"]])

    def _add_sounds(self, text: str, sounds: list[Media], made: dict[str, torch.Tensor]) -> str:
        if not sounds:
            return text
        waves = [_array(decode_audio(s.data, MediaBudget()), np.float32) for s in sounds]
        mels = self._sounds(
            waves, sampling_rate=16_000, padding=True, truncation=False, return_attention_mask=True, return_tensors="pt"
        )
        made["input_features"], made["feature_attention_mask"] = mels["input_features"], mels["attention_mask"]
        return _expand(text, Modality.AUDIO, [_audio_tokens(int(m.sum())) for m in mels["attention_mask"]])

    def _add_films(self, text: str, films: list[Media], made: dict[str, torch.Tensor]) -> str:
        if not films:
            return text
        (film,) = films
        video = decode_video(film.data, MediaBudget(), 2.0)
        rows, grid = _patches(_array(video.frames))
        made["pixel_values_videos"] = torch.from_numpy(rows)
        made["video_grid_thw"] = torch.tensor([grid])
        made["video_second_per_grid"] = torch.tensor([_TIME / video.fps])
        return _expand(text, Modality.VIDEO, [math.prod(grid) // _MERGE**2])


class _Script(LogitsProcessor):  # type: ignore[misc]
    """Leaves each new token no choice."""

    def __init__(self, prompt: int, script: Sequence[int]) -> None:
        self._prompt, self._script = prompt, script

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores, float("-inf"))
        forced[:, self._script[input_ids.shape[1] - self._prompt]] = 0.0
        return forced


def _content(message: Message) -> str | list[dict[str, str]]:
    if message.role is not Role.USER:
        return "".join(part.text for part in message.parts if isinstance(part, Text))
    return [
        {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": str(part.modality)}
        for part in message.parts
    ]


def _of(parts: Sequence[Part], modality: Modality) -> list[Media]:
    return [p for p in parts if not isinstance(p, Text) and p.modality is modality]


def _array(tensor: Any, dtype: Any = np.uint8) -> NDArray[Any]:
    return np.frombuffer(tensor.data, dtype=dtype).reshape(tensor.shape).copy()


def _expand(text: str, modality: Modality, counts: list[int]) -> str:
    before, *after = text.split(_PLACEHOLDER[modality])
    assert len(after) == len(counts)
    return before + "".join(_PLACEHOLDER[modality] * n + rest for n, rest in zip(counts, after, strict=True))


def _audio_tokens(frames: int) -> int:
    """Each chunk of 100 frames is halved three times, rounding up."""
    chunks = [100] * (frames // 100) + ([frames % 100] if frames % 100 else [])
    return sum(math.ceil(math.ceil(math.ceil(c / 2) / 2) / 2) for c in chunks)


def _patches(frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
    """[T, height, width, 3] → one row per patch, those of one merged token side by side."""
    if len(frames) % _TIME:
        frames = np.concatenate([frames, frames[-1:]])
    pixels = (frames.astype(np.float32) / 255 - 0.5) / 0.5
    time, rows, columns = len(frames) // _TIME, frames.shape[1] // _PATCH, frames.shape[2] // _PATCH
    made = []
    for t in range(time):
        for block in np.ndindex(rows // _MERGE, columns // _MERGE):
            for inner in np.ndindex(_MERGE, _MERGE):
                top, left = ((b * _MERGE + i) * _PATCH for b, i in zip(block, inner, strict=True))
                patch = pixels[t * _TIME : (t + 1) * _TIME, top : top + _PATCH, left : left + _PATCH]
                made.append(patch.transpose(3, 0, 1, 2).reshape(-1))
    return np.stack(made), (time, rows, columns)
