"""One small round through each stage's model before it takes traffic: kernels are chosen and memory is touched then,
and a checkpoint that does not fit its code fails at start and not at the first caller."""

from __future__ import annotations

import torch
from torch import nn

from omni_common.request import GenerationParams, Modality, RequestKey, Sampling, Usage
from omni_stage.components.tensors import from_torch
from omni_stage.models.qwen3_omni.components.audio_encoder import AudioEncoder
from omni_stage.models.qwen3_omni.components.code2wav import SpeechSession
from omni_stage.models.qwen3_omni.components.image_encoder import ImageEncoder
from omni_stage.models.qwen3_omni.components.mel import BINS
from omni_stage.models.qwen3_omni.components.talker import TalkerRunner
from omni_stage.models.qwen3_omni.components.thinker import ThinkerRunner
from omni_stage.models.qwen3_omni.components.weights import Weights
from omni_stage.models.qwen3_omni.payload_types import (
    AudioInputs,
    CodecFrames,
    ImageInputs,
    Layout,
    Prompt,
    SpokenTokens,
    TalkerPrefill,
    TalkerPrompt,
    ThinkerInput,
)
from omni_stage.scheduler.ar_contract import Batch, ModelRunner
from omni_stage.scheduler.contract import NewRequest

_KEY = RequestKey("warm-up")
_STEPS = Sampling(temperature=0.0, max_tokens=3)
_PARAMS = GenerationParams(
    modalities=frozenset({Modality.TEXT, Modality.AUDIO}),
    sampling=_STEPS,
    stage_sampling={"talker": _STEPS},
)


def warm_image_encoder(encoder: ImageEncoder) -> None:
    encoder.encode([ImageInputs((from_torch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)),), ())])


def warm_audio_encoder(encoder: AudioEncoder) -> None:
    encoder.encode(AudioInputs((from_torch(torch.zeros(BINS, 100)),)))


def warm_thinker(runner: ThinkerRunner, weights: Weights) -> None:
    source = ThinkerInput(Prompt(_layout(weights), speech=True, usage=Usage()), None, None)
    _run(runner, NewRequest(_KEY, _PARAMS, source), ())


def warm_talker(runner: TalkerRunner, weights: Weights) -> None:
    width = weights.config.talker_config.thinker_hidden_size
    rows = from_torch(torch.zeros(3, width))
    heard = TalkerPrefill(rows, from_torch(torch.tensor([False, True, False])), header=rows, marks=rows)
    token = SpokenTokens(from_torch(torch.zeros(1, width)))
    _run(runner, NewRequest(_KEY, _PARAMS, TalkerPrompt(_layout(weights))), (heard, token))


def warm_vocoder(model: nn.Module, weights: Weights) -> None:
    groups = weights.config.code2wav_config.num_quantizers
    session = SpeechSession(model, weights.device)
    session.push("talker", [CodecFrames(from_torch(torch.zeros(4, groups, dtype=torch.int16)))])
    session.close()


def _layout(weights: Weights) -> Layout:
    """A user's turn and the opening of the assistant's, three tokens each."""
    config = weights.config
    start, end = config.im_start_token_id, config.im_end_token_id
    ids = torch.tensor([start, config.user_token_id, end, start, config.assistant_token_id, end])
    return Layout(from_torch(ids), None, None, (), ())


def _run(runner: ModelRunner, request: NewRequest, chunks: tuple[object, ...]) -> None:
    runner.open(request)
    for chunk in chunks:
        runner.feed(_KEY, "warm-up", chunk)
    runner.close_input(_KEY, "warm-up")
    runner.execute(Batch(prefill=(_KEY,), decode=()))
    runner.execute(Batch(prefill=(), decode=(_KEY,)))
    runner.close(_KEY)
