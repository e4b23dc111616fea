"""Speech decoded in pieces is the speech decoded at once, sample for sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3OmniMoeConfig
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as modeling

from omni_common.request import AudioOutput, TerminalResult, Usage
from omni_stage.components.checkpoint import Checkpoint
from omni_stage.components.tensors import from_torch
from omni_stage.models.qwen3_omni.components.code2wav import SpeechSession, StreamingVocoder, pcm16
from omni_stage.models.qwen3_omni.payload_types import CodecFrames

FRAMES = 30  # several times the transformer's window of 8


@pytest.fixture(scope="module")
def vocoder(tiny_qwen: Path) -> Any:
    config = Qwen3OmniMoeConfig.from_pretrained(tiny_qwen).code2wav_config
    return Checkpoint(tiny_qwen, ("code2wav.",)).module(
        lambda: modeling.Qwen3OmniMoeCode2Wav._from_config(config), "code2wav."
    )


@pytest.fixture(scope="module")
def codes() -> torch.Tensor:
    return torch.randint(0, 64, (4, FRAMES), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("cuts", [[1] * FRAMES, [2] * 15, [7, 7, 7, 7, 2], [1, 29], [FRAMES]], ids=str)
def test_pieces_of_any_size_make_the_whole(cuts: list[int], vocoder: Any, codes: torch.Tensor) -> None:
    with torch.inference_mode():
        whole = vocoder(codes[None]).reshape(-1)
        stream = StreamingVocoder(vocoder)
        pieces, frames = [], 0
        for piece in torch.split(codes, cuts, dim=1):
            pieces.append(stream.decode(piece))
            frames += piece.shape[1]
            assert sum(map(len, pieces)) == max(0, frames * 1920 - 555)
    torch.testing.assert_close(torch.cat(pieces), whole, atol=1e-4, rtol=0)


def test_a_session_emits_pcm_and_counts_its_frames(vocoder: Any, codes: torch.Tensor) -> None:
    session = SpeechSession(vocoder, torch.device("cpu"))
    chunks = [CodecFrames(from_torch(codes[:, n : n + 1].T.to(torch.int16))) for n in range(3)]
    outputs = [*session.push("talker", chunks[:1]), *session.push("talker", chunks[1:])]
    assert all(isinstance(o, AudioOutput) and o.sample_rate == 24_000 for o in outputs)
    assert sum(len(o.pcm) for o in outputs if isinstance(o, AudioOutput)) == 2 * (3 * 1920 - 555)
    assert session.finish() == ((), TerminalResult(None, Usage(completion_audio_tokens=3)))


def test_a_session_without_frames_ends_in_silence(vocoder: Any) -> None:
    session = SpeechSession(vocoder, torch.device("cpu"))
    assert session.finish() == ((), TerminalResult(None, Usage()))


def test_full_scale_does_not_wrap_around() -> None:
    assert pcm16(torch.tensor([1.0, -1.0, 0.0])) == b"\xff\x7f\x01\x80\x00\x00"
