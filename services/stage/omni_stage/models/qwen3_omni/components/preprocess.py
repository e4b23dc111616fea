"""The entry stage: a request with encoded media becomes token ids, sized pictures and spectrograms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen3OmniMoeConfig

from omni_common.errors import ContextTooLong, InvalidRequest, OmniError, Reason
from omni_common.request import GenerationRequest, Media, Modality, Task, Usage
from omni_stage.components.tensors import from_torch, to_torch
from omni_stage.media import MediaBudget, decode_audio, decode_image, decode_video
from omni_stage.models.qwen3_omni.components.mel import RATE, audio_tokens, log_mels
from omni_stage.models.qwen3_omni.components.pixels import PixelRules, size_image, size_video
from omni_stage.models.qwen3_omni.components.prompt import PromptBuilder
from omni_stage.models.qwen3_omni.config import VIDEO_FPS, check_config
from omni_stage.models.qwen3_omni.payload_types import AudioInputs, ImageInputs, Layout, Preprocessed, Prompt
from omni_stage.models.qwen3_omni.request_builders import MAX_FRAMES, check, reading


@dataclass(slots=True)
class _Media:
    """What a request's media became, each kind in the order of the conversation."""

    images: list[torch.Tensor]
    videos: list[torch.Tensor]
    rates: list[float]
    mels: list[torch.Tensor]


class Preprocessor:
    """Prepares requests for one checkpoint."""

    def __init__(self, folder: Path, budget: MediaBudget | None = None) -> None:
        check_config(folder)
        whole = Qwen3OmniMoeConfig.from_pretrained(folder)
        config = whole.thinker_config
        self._voices = frozenset(whole.talker_config.speaker_id)
        self._context: int = config.text_config.max_position_embeddings
        self._end: int = whole.im_end_token_id
        self._rules = PixelRules.of(folder)
        self._budget = MediaBudget() if budget is None else budget
        self._prompts = PromptBuilder(
            folder,
            {
                Modality.IMAGE: config.image_token_id,
                Modality.AUDIO: config.audio_token_id,
                Modality.VIDEO: config.video_token_id,
            },
        )

    def prepare(self, request: GenerationRequest) -> Preprocessed:
        """Raises InvalidRequest, naming the part, for media and settings that cannot be used, and CONTEXT_TOO_LONG."""
        check(request.params, self._voices)
        if request.params.task is Task.SPEECH:
            return self._prepare_reading(request)
        speech = Modality.AUDIO in request.params.modalities
        media = self._decode(request)
        image_grid, video_grid = ([self._rules.grid(f) for f in frames] for frames in (media.images, media.videos))
        counts = {
            Modality.IMAGE: [self._rules.tokens(g) for g in image_grid],
            Modality.VIDEO: [self._rules.tokens(g) for g in video_grid],
            Modality.AUDIO: [audio_tokens(mel.shape[1]) for mel in media.mels],
        }
        ids = self._prompts.build(request.messages, counts)
        if len(ids) >= self._context:
            raise ContextTooLong(len(ids), self._context)
        layout = Layout(
            ids=from_torch(torch.tensor(ids)),
            image_grid=from_torch(torch.tensor(image_grid)) if image_grid else None,
            video_grid=from_torch(torch.tensor(video_grid)) if video_grid else None,
            audio_frames=tuple(mel.shape[1] for mel in media.mels),
            seconds_per_grid=tuple(self._rules.temporal_patch / rate for rate in media.rates),
        )
        usage = Usage(
            prompt_tokens=len(ids),
            prompt_audio_tokens=sum(counts[Modality.AUDIO]),
            prompt_image_tokens=sum(counts[Modality.IMAGE]) + sum(counts[Modality.VIDEO]),
        )
        pictures = ImageInputs(tuple(map(from_torch, media.images)), tuple(map(from_torch, media.videos)))
        return Preprocessed(
            prompt=Prompt(layout, speech=speech, usage=usage),
            images=pictures if media.images or media.videos else None,
            audios=AudioInputs(tuple(map(from_torch, media.mels))) if media.mels else None,
        )

    def _prepare_reading(self, request: GenerationRequest) -> Preprocessed:
        turn, text = reading(request)
        ids = self._prompts.build((turn,), {})
        words = self._prompts.encode(text)
        script = (*words, self._end)
        if (needed := len(ids) + len(script)) > self._context:
            raise _too_long(f"Saying this takes {needed} tokens; this model's context holds {self._context}.")
        if len(words) >= MAX_FRAMES:  # each is heard with a frame of its own
            raise _too_long(f"The input has {len(words)} tokens; fewer than {MAX_FRAMES} can be said at once.")
        layout = Layout(from_torch(torch.tensor(ids)), None, None, (), ())
        usage = Usage(prompt_tokens=len(ids))
        return Preprocessed(Prompt(layout, speech=True, usage=usage, script=script), images=None, audios=None)

    def _decode(self, request: GenerationRequest) -> _Media:
        media = _Media([], [], [], [])
        clips: list[torch.Tensor] = []
        for part in _media_parts(request):
            if part.modality is Modality.IMAGE:
                image = to_torch(decode_image(part.data, self._budget, param=part.param))
                media.images.append(size_image(image, self._rules, part.param))
            elif part.modality is Modality.VIDEO:
                video = decode_video(part.data, self._budget, VIDEO_FPS, param=part.param)
                media.videos.append(size_video(to_torch(video.frames), self._rules, part.param))
                media.rates.append(video.fps)
            else:
                clips.append(
                    _long_enough(to_torch(decode_audio(part.data, self._budget, RATE, param=part.param)), part)
                )
        if clips:
            media.mels = log_mels(clips)
        return media


def _too_long(message: str) -> OmniError:
    return OmniError(Reason.CONTEXT_TOO_LONG, message, param="input")


def _media_parts(request: GenerationRequest) -> Iterator[Media]:
    for message in request.messages:
        yield from (part for part in message.parts if isinstance(part, Media))


def _long_enough(clip: torch.Tensor, part: Media) -> torch.Tensor:
    """The spectrogram mirrors half a window at both ends, so it needs more samples than that."""
    if len(clip) <= 200:
        raise InvalidRequest("An audio clip needs more than 200 samples at 16 kHz.", param=part.param or None)
    return clip
